"""The evaluator of a cluster judges the checkpoints that the workers leave, and ends with their run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from runs import pretend_to_export

from trainer import run, watch
from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.records.console import Console
from trainer.storage import RunDirectory
from trainer.topology import Topology

EVALUATOR = Topology(("127.0.0.1:1",), "evaluator", 0, has_chief_type=False)
TINY: dict[str, Any] = {
    "data": "synthetic:2",
    "image_size": 8,
    "examples_per_class": 128,
    "epochs": 2,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "ema_decay": 0.5,
}


class Watched:
    """An evaluator whose clock moves only while it sleeps."""

    def __init__(self, run_dir: Path, **fields: Any) -> None:
        self.now = 0.0
        self._config = Config.parse(TINY | {"strategy": "multi_worker", "worker_timeout": 20} | fields)
        self._run = RunDirectory(str(run_dir))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def watch(self) -> tuple[int, str]:
        out = io.StringIO()
        code = watch.watch(
            self._config, self._run, EVALUATOR, Console(out=out), clock=lambda: self.now, sleep=self.sleep
        )
        return code, out.getvalue()


def test_every_checkpoint_is_judged_as_the_run_judged_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.export.publish.export_model", pretend_to_export)
    run.execute(Config.parse(TINY | {"run_dir": str(tmp_path / "r")}), quiet=True)
    code, said = Watched(tmp_path / "r").watch()
    assert code == EXIT_DONE
    status = json.loads((tmp_path / "r" / "status.json").read_text(encoding="utf-8"))
    last = f"{status['step']}: accuracy {status['validation']['accuracy']:.4f}"
    assert "evaluator: one CPU replica" in said
    assert last in said
    assert last in Watched(tmp_path / "r", batch_size="auto").watch()[1]
    assert list((tmp_path / "r" / "tensorboard" / "evaluator").glob("events.*"))


def test_a_run_that_does_not_begin_is_missed_after_the_timeout(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"There is no run in --run_dir=.*nowhere after --worker_timeout=20 seconds"):
        watched.watch()
    assert 20 < watched.now < 40
