"""A sample of benchmarks/kill_matrix.py, and a real process that is asked to end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill_matrix

from trainer.errors import EXIT_PREEMPTED

PATIENCE_SECONDS = 120.0


def test_a_run_that_is_killed_while_it_writes_a_checkpoint_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    with kill_matrix.matrices(tmp_path) as kinds:
        matrix = kinds["frozen, cached, local"]
        matrix.run_undisturbed()
        assert {"features", "train", "evaluate", "export", "write checkpoint", "write metrics"} <= matrix.phases.keys()
        for attempt in range(3):  # How many checkpoints a run writes depends on the disk: the one drawn may not come.
            result = matrix.killed(attempt, matrix.draw(random.Random(attempt), "write checkpoint"))
            if result.killed:
                break
    assert result.killed and result.starts == 1
    assert result.wrong == []


def test_sigterm_saves_in_the_middle_of_an_epoch_and_leaves_with_75(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.task", "--data=digits", "--epochs=3", "--steps_per_loop=1", "--export="]
    run_dir = tmp_path / "stopped"
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        [*command, f"--run_dir={run_dir}"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (run_dir / "metrics.jsonl").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        seconds = time.monotonic() - sent
    assert process.returncode == EXIT_PREEMPTED and seconds < 25
    assert said == (
        "warning: Asked to end (SIGTERM). "
        f"The same command with --run_dir={run_dir} goes on from the last checkpoint.\n"
    )
    status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    newest = sorted(path.name for path in (run_dir / "checkpoints").iterdir())[-1]
    assert status["state"] == "preempted" and newest == f"step-{status['step']:08d}.safetensors"
    assert not (run_dir / ".lease").exists()
