"""Workers that do not see the same thing say so, all of them; and one process alone needs nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from trainer.agreement import check_agreement, check_shared, come_together
from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.errors import UserError
from trainer.records.console import Console
from trainer.storage import RunDirectory
from trainer.topology import Topology

THREE = Topology(("a:1", "b:1", "c:1"), "chief", 0, has_chief_type=False)


class Gathered:
    """A cluster of three, whose other two workers gave these rows."""

    topology = THREE

    def __init__(self, *others: list[float]) -> None:
        self._others = others

    def gather(self, mine: np.ndarray) -> np.ndarray:
        return np.array([mine, *self._others], np.float64)

    def barrier(self) -> None:
        pass


def three(*others: list[float]) -> Cluster:
    return cast(Cluster, Gathered(*others))


FINGERPRINT = "ffffffff00000001"
HALVES = [float(0xFFFFFFFF), 1.0]


def test_workers_that_agree_go_on() -> None:
    check_agreement(three([*HALVES, 40], [*HALVES, 40]), FINGERPRINT, 40)
    check_agreement(connect(Config()), FINGERPRINT, 40)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ([HALVES[0], 2.0, 40.0], "worker 2 sees other examples than the chief"),
        ([HALVES[0] - 1, 1.0, 40.0], "worker 2 sees other examples than the chief"),
        ([*HALVES, 0.0], "worker 2 would start at step 0 and the chief at step 40"),
    ],
)
def test_a_worker_that_differs_is_named(other: list[float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_agreement(three([*HALVES, 40], other), FINGERPRINT, 40)


def test_a_run_directory_that_a_worker_does_not_see_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    check_shared(three([1.0], [1.0]), RunDirectory(str(tmp_path)), "config.json")
    with pytest.raises(UserError, match=f"worker 1 does not see what the chief writes to --run_dir={tmp_path}"):
        check_shared(three([0.0], [1.0]), RunDirectory(str(tmp_path)), "config.json")


def come(environment: dict[str, str], **fields: Any) -> Any:
    return come_together(Config.parse(fields), environment, Console(quiet=True))


def test_one_process_needs_no_cluster_and_names_its_run_directory() -> None:
    topology, run_dir = come({"TF_CONFIG": "not even looked at"})
    assert topology is None
    assert run_dir.startswith("runs/") and run_dir.endswith("-digits-convnet")
    assert come({}, run_dir="mine").run_dir == "mine"


def test_an_evaluator_must_be_told_the_run_directory() -> None:
    cluster = {"worker": ["127.0.0.1:1"], "evaluator": ["127.0.0.1:2"]}
    config = json.dumps({"cluster": cluster, "task": {"type": "evaluator", "index": 0}})
    with pytest.raises(UserError, match="The evaluator needs --run_dir"):
        come({"TF_CONFIG": config}, strategy="multi_worker")
    topology, run_dir = come({"TF_CONFIG": config}, strategy="multi_worker", run_dir="theirs")
    assert topology.role == "evaluator" and run_dir == "theirs"
