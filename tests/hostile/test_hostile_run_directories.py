"""A run directory whose files were damaged: a sentence that names it, or the result of the undamaged run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hostile_run_directories import DAMAGE, FILES, files
from runs import pretend_to_export

from trainer import run
from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError


def config_of(folder: Path) -> Config:
    return Config(
        data="synthetic:2",
        splits=(98, 1, 1),
        examples_per_class=8,
        image_size=8,
        epochs=2,
        batch_size=8,
        run_dir=str(folder),
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoints are all there and whose end was not noted, so that it is concluded again."""
    folder = tmp_path_factory.mktemp("interrupted") / "r"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.export.publish.export_model", pretend_to_export)
        assert run.execute(config_of(folder), quiet=True) == EXIT_DONE
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}), encoding="utf-8")
    return folder


def result(folder: Path) -> dict[str, Any]:
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return {name: status[name] for name in ("step", "epoch", "train", "validation", "best", "test")}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_the_run_goes_on_to_the_same_result_or_says_what_is_wrong(
    name: str, damage: str, interrupted: Path, tmp_path: Path, no_export: None
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(interrupted, folder)
    for file in files(folder, name):
        DAMAGE[damage](file)
    try:
        code = run.execute(config_of(folder), quiet=True)
    except UserError as error:
        assert str(folder) in str(error)
        return
    assert code == EXIT_DONE
    assert result(folder) == result(interrupted)
