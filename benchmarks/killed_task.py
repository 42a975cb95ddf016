"""`python -m trainer.task`, which gets SIGKILL a given time after it enters a phase: a part of kill_matrix.py.

    python benchmarks/killed_task.py PHASE TIMES SECONDS [TRAINER FLAGS]
    python benchmarks/killed_task.py PHASES FILE [TRAINER FLAGS]

The first form kills the process SECONDS after it has entered PHASE for the TIMES-th time; the second notes in FILE how
often each phase was entered and how long it took at most, as JSON. It is the trainer itself that runs, in this process;
only its stopwatch, and what writes its checkpoints, metrics and status, tell when a phase begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from trainer.records import goodput  # noqa: E402 (found through the line above)
from trainer.storage import RunDirectory  # noqa: E402

WRITTEN = {"checkpoints/": "write checkpoint", "status.json": "write status", "config.json": "write config"}
"""What is called a phase of its own when it is written, by the beginning of its name."""


class Phases:
    """Is told when a phase begins and ends."""

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """Stands around a phase."""
        yield


class Killer(Phases):
    """Kills this process."""

    def __init__(self, phase: str, times: int, seconds: float) -> None:
        """`seconds` after `phase` has begun for the `times`-th time."""
        self._phase, self._left, self._seconds = phase, times, seconds

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """See `Phases.within`."""
        if phase == self._phase:
            self._left -= 1
            if not self._left:
                threading.Thread(target=self._kill, daemon=True).start()
        yield

    def _kill(self) -> None:
        time.sleep(self._seconds)
        os.kill(os.getpid(), signal.SIGKILL)


class Observer(Phases):
    """Notes phases and writes them down at the end."""

    def __init__(self, file: Path) -> None:
        """`file` gets a JSON object of {"times", "seconds"} by phase."""
        self._file = file
        self._times: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """See `Phases.within`."""
        start = time.perf_counter()
        yield
        self._times[phase] += 1
        self._seconds[phase] = max(self._seconds[phase], time.perf_counter() - start)

    def write(self) -> None:
        """Writes the file."""
        seen = {phase: {"times": times, "seconds": self._seconds[phase]} for phase, times in self._times.items()}
        self._file.write_text(json.dumps(seen, indent=2), encoding="utf-8")


def report_phases(phases: Phases) -> None:
    """Has the trainer tell when its phases begin and end."""
    measure, write, append = goodput.Stopwatch.measure, RunDirectory.write_bytes, RunDirectory.append_text

    @contextlib.contextmanager
    def told_measure(stopwatch: goodput.Stopwatch, phase: goodput.Phase) -> Iterator[None]:
        with measure(stopwatch, phase), phases.within(phase):
            yield

    def told_write(run: RunDirectory, name: str, *content: bytes | memoryview, synced: bool = True) -> None:
        known = next((phase for start, phase in WRITTEN.items() if name.startswith(start)), "write another file")
        with phases.within("write features" if name.endswith(".features") else known):
            write(run, name, *content, synced=synced)

    def told_append(run: RunDirectory, name: str, text: str) -> None:
        with phases.within("write metrics"):
            append(run, name, text)

    replaced: dict[str, Callable[..., Any]] = {"write_bytes": told_write, "append_text": told_append}
    for name, function in replaced.items():
        setattr(RunDirectory, name, function)
    goodput.Stopwatch.measure = told_measure  # type: ignore[method-assign, assignment]


def main() -> None:
    """Runs the trainer."""
    phase, *rest = sys.argv[1:]
    observer = None
    if phase == "PHASES":
        observer, flags = Observer(Path(rest[0])), rest[1:]
        report_phases(observer)
    else:
        report_phases(Killer(phase, int(rest[0]), float(rest[1])))
        flags = rest[2:]
    sys.argv = ["trainer.task", *flags]
    from trainer.task import console_main

    try:
        console_main()
    finally:
        if observer:
            observer.write()


if __name__ == "__main__":
    main()
