"""Whole runs of several workers: killed and started again, or refused before they begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import kill_workers
import pytest

from launch.local.worker_processes import free_ports, worker_environment
from trainer.errors import EXIT_USER

pytestmark = pytest.mark.strategies

FLAGS = [
    "--data=synthetic:2",
    "--image_size=8",
    "--epochs=3",
    "--batch_size=128",
    "--steps_per_loop=1",
    "--dropout=0.2",
    "--export=",
    "--noreport",
]


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """One of the 20 runs of benchmarks/kill_workers.py."""
    undisturbed = kill_workers.train(tmp_path / "undisturbed", 2, FLAGS)
    assert undisturbed.code == 0, undisturbed.log
    killed = kill_workers.train(tmp_path / "killed", 2, FLAGS, kill_workers.Kill(worker=1, step=20, delay=0.0))
    assert killed.code == 0, killed.log
    assert killed.restarts == 1 and killed.step is not None and killed.step >= 20
    expected = kill_workers.variables_of(tmp_path / "undisturbed")
    assert len(expected) > 20
    assert kill_workers.differences(expected, kill_workers.variables_of(tmp_path / "killed")) == []
    statuses = [json.loads((tmp_path / name / "status.json").read_text()) for name in ("undisturbed", "killed")]
    assert statuses[0]["step"] == statuses[1]["step"] == statuses[0]["steps_total"] > killed.step
    assert statuses[0]["test"] == statuses[1]["test"]


def test_a_worker_with_another_configuration_is_refused_by_all(tmp_path: Path) -> None:
    ports = free_ports(2)
    rates = ["--learning_rate=0.01", "--learning_rate=0.1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.task", "--strategy=multi_worker", f"--run_dir={tmp_path / 'r'}", rate],
            env=worker_environment(os.environ, ports, index),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, rate in enumerate(rates)
    ]
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [EXIT_USER, EXIT_USER]
    for text in said:
        assert "--learning_rate is 0.1 on worker 1 and 0.01 on the chief" in text
        assert "Traceback" not in text
    assert not (tmp_path / "r").exists()
