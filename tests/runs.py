"""What tests of whole runs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl.testing import flagsaver

from trainer import task
from trainer.storage import RunDirectory


def run_task(*arguments: str) -> int:
    """The exit code of `python -m trainer.task ARGUMENTS`, in this process."""
    with flagsaver.flagsaver():
        try:
            rest = task.parse_flags(["task", *arguments])
        except SystemExit as ended:
            return int(ended.code or 0)
        return task.main(rest)


def status_of(run_dir: Path) -> dict[str, Any]:
    """What status.json says."""
    loaded: dict[str, Any] = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    return loaded


def pretend_to_export(model: object, names: object, images: object, directory: RunDirectory, beside: object) -> str:
    """Stands in for `trainer.export.saved_model.export_model`: makes the folder and no more."""
    return directory.make_folder("export")
