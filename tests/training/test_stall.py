"""What hangs is noticed, shown, and ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from trainer.records.worker_states import WorkerStates
from trainer.storage import RunDirectory
from trainer.training.stall import EXIT_STALLED, StallDetector


def states(folder: Path, index: int = 0, workers: int = 1, now: float = 1000.0) -> WorkerStates:
    return WorkerStates(RunDirectory(str(folder)), index, workers, clock=lambda: now)


class Watched:
    """A detector whose clock stands still until it is moved."""

    def __init__(self, minutes: float, of: WorkerStates) -> None:
        self.now, self.left, self.noted = 0.0, [], []  # type: ignore[var-annotated]
        self.detector = StallDetector(minutes, of, self.noted.append, clock=lambda: self.now, leave=self.left.append)


def test_a_call_that_does_not_come_back_ends_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, step in ((1, 40), (0, 0)):
        states(tmp_path, index, workers=3, now=990.0).write(step, "in a training call for 3 seconds")
    watched = Watched(2.0, states(tmp_path, 0, workers=3))
    watched.detector.step = 41
    with watched.detector.watching("a training call"):
        watched.now = 119.0
        watched.detector.look()
        assert not watched.left
        watched.now = 121.0
        watched.detector.look()
    assert watched.left == [EXIT_STALLED] and EXIT_STALLED not in (0, 2, 75)
    assert watched.noted == ["a training call did not come back for 2.0 minutes (--stall_minutes), after step 41."]
    err = capsys.readouterr().err
    assert "test_a_call_that_does_not_come_back" in err, "the stack of this thread"
    assert "worker 0: 41 steps, in a training call for 121 seconds, said 0 seconds ago\n" in err
    assert "worker 1: 40 steps, in a training call for 3 seconds, said 10 seconds ago\n" in err
    assert "worker 2: says nothing\n" in err


def test_what_comes_back_in_time_may_take_long_together(tmp_path: Path) -> None:
    watched = Watched(1.0, states(tmp_path))
    for _ in range(5):
        with watched.detector.watching("a training call"):
            watched.now += 50.0
            watched.detector.look()
        watched.now += 500.0
        watched.detector.look()
    assert not watched.left
    assert not list(tmp_path.iterdir()), "one worker alone has nobody to tell"


def test_one_worker_alone_says_nothing_of_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(1.0, states(tmp_path))
    with watched.detector.watching("a validation"):
        watched.now = 61.0
        watched.detector.look()
    assert watched.left == [EXIT_STALLED]
    err = capsys.readouterr().err
    assert "test_one_worker_alone" in err and not err.endswith("\n\n")


def test_a_place_that_hangs_does_not_keep_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.stall._SECONDS_FOR_LAST_WORDS", 0.05)
    watched = Watched(1.0, states(tmp_path))
    release = threading.Event()
    monkeypatch.setattr(watched.detector, "_note_failure", lambda _: release.wait(20))
    with watched.detector.watching("a validation"):
        watched.now = 61.0
        start = time.monotonic()
        watched.detector.look()
    assert watched.left == [EXIT_STALLED] and time.monotonic() - start < 10
    release.set()


def test_a_thread_looks_while_the_run_goes_on(tmp_path: Path) -> None:
    left = threading.Event()
    detector = StallDetector(0.002, states(tmp_path), lambda _: None, leave=lambda _: left.set())
    with detector.running(), detector.watching("a training call"):
        assert left.wait(10)


def test_zero_minutes_wait_without_end(tmp_path: Path) -> None:
    left: list[int] = []
    detector = StallDetector(0.0, states(tmp_path), lambda _: None, leave=left.append)
    with detector.running(), detector.watching("a training call"):
        time.sleep(0.1)
    assert not left
