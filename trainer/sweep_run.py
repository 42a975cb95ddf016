"""Runs the points of a sweep on this machine, one after the other, and compares them.

Each runs in a process of its own, because a process can set up its devices but once. A point that is done is not run
again, so the same command goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from trainer.config import DEFAULT_RUNS_FOLDER, Config
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.records.console import Console
from trainer.records.status import FILE_NAME as STATUS_FILE
from trainer.report.run_record import CONFIG_FILE
from trainer.storage import RunDirectory, reading_or_writing
from trainer.sweep import Point
from trainer.terminal import print_error
from trainer.wording import counted

_HANDED_ON = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""What a run is told when the sweep gets a signal: a run knows the first two (`trainer.stop_request`)."""


class ChildProcess:
    """Runs one command at a time, and hands on to it what asks this process to end, which it outlives."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins to count.

        Args:
          seconds: from now on, after which the command is asked to end; None: no limit.
          clock: seconds.
        """
        self._clock = clock
        self._deadline = None if seconds is None else clock() + seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._undelivered: deque[signal.Signals] = deque()
        self.asked = False
        """Whether somebody, or the clock, has asked for an end."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes signals. To be called in the main thread."""
        before = {number: signal.signal(number, self._take) for number in _HANDED_ON}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end; starts nothing where an end has been asked for.

        Args:
          command: program and arguments.

        Returns:
          Its exit code as a shell gives it, 128 + N after signal N; 75 where it was not started.
        """
        if self._deadline is not None and self._clock() >= self._deadline:
            self.asked = True
        if self.asked:
            return EXIT_PREEMPTED
        # In a session of its own: a terminal sends Ctrl-C to all of ours, and twice means at once.
        self._process = subprocess.Popen(command, start_new_session=True)
        try:
            self._deliver()
            code = self._wait(self._process)
        finally:
            self._process = None
        return code if code >= 0 else 128 - code

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        if self._deadline is not None:
            try:
                return process.wait(max(0.0, self._deadline - self._clock()))
            except subprocess.TimeoutExpired:
                self._take(signal.SIGTERM, None)
        return process.wait()

    def _take(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        self._undelivered.append(_HANDED_ON[signal.Signals(number)])
        self._deliver()

    def _deliver(self) -> None:
        """Sends each signal once, whether it came before the process or after, and in the middle of this very loop."""
        with contextlib.suppress(IndexError):
            while self._process:
                self._process.send_signal(self._undelivered.popleft())


def new_sweep_dir(moment: datetime) -> str:
    """Makes a folder for a sweep that is given none, such as runs/20261121-093000-sweep; numbered if that is taken.

    Raises:
      UserError: it cannot be made.
    """
    suggested = f"{DEFAULT_RUNS_FOLDER}/{moment:%Y%m%d-%H%M%S}-sweep"
    for number in itertools.count(1):
        path = suggested if number == 1 else f"{suggested}-{number}"
        with reading_or_writing(path), contextlib.suppress(FileExistsError):
            os.makedirs(path)
            break
    return path


def run_sweep(
    points: Sequence[Point],
    sweep_dir: str,
    console: Console,
    process: ChildProcess,
    *,
    flags: Sequence[str] = (),
) -> int:
    """Runs what is not done yet, prints a comparison of all, and writes it as a page.

    Args:
      points: of one sweep.
      sweep_dir: the folder, local or gs://, that the run directories lie in, each by its point's name.
      console: is told what runs.
      process: runs the commands; it must be `listening`.
      flags: given to every run beside its configuration.

    Returns:
      0 where all are done; 75 where the sweep, or one of its runs, was asked to stop for now; otherwise the exit code
      of the first run that failed, after all others have run.

    Raises:
      UserError: the folder is a run directory itself, or cannot be written.
    """
    folder = RunDirectory(sweep_dir)
    _check_free(folder)
    failures: list[tuple[str, int]] = []
    for number, point in enumerate(points, 1):
        run = RunDirectory(folder.join(point.name))
        title = f"run {number} of {len(points)}: {point.name}"
        if _is_done(point.config, run):
            console.note(f"{title}: done already")
            continue
        console.note(title)
        code = _run(point, run, process, flags)
        if code == EXIT_PREEMPTED or (process.asked and code != EXIT_DONE):
            console.warning(f"The sweep stopped at {title}. The same command with --run_dir={folder.path} goes on.")
            return EXIT_PREEMPTED
        if code != EXIT_DONE:
            console.warning(f"{point.name} ended with exit code {code}; the others go on.")
            failures.append((point.name, code))
    _compare(points, folder, console)
    if failures:
        name, code = failures[0]
        print_error(
            f"{len(failures)} of {counted(len(points), 'run')} failed, first {name} with exit code {code}: what it "
            f"said stands above. The same command with --run_dir={folder.path} runs what is not done."
        )
        return code
    return EXIT_DONE


def _compare(points: Sequence[Point], folder: RunDirectory, console: Console) -> None:
    """Prints and writes the comparison of all that has begun."""
    from trainer.report.compare import compare, read_runs
    from trainer.report.compare_page import PAGE_NAME, comparison_page
    from trainer.report.compare_text import comparison_text, terminal_columns

    runs = [RunDirectory(folder.join(point.name)) for point in points]
    begun = [run.path for run in runs if run.exists(CONFIG_FILE) and run.exists(STATUS_FILE)]
    if len(begun) < 2:
        console.note(f"{counted(len(begun), 'run')} of this sweep: nothing to compare.")
        return
    comparison = compare(read_runs(begun))
    folder.write_text(PAGE_NAME, comparison_page(comparison, f"{datetime.now():%Y-%m-%d %H:%M}"))
    console.note(f"\n{comparison_text(comparison, terminal_columns())}\n\npage: {folder.join(PAGE_NAME)}")


def _check_free(folder: RunDirectory) -> None:
    """Refuses a run directory, whose own files the runs' folders would lie among."""
    if folder.exists(CONFIG_FILE):
        raise UserError(f"--run_dir={folder.path} holds a run: give --sweep a folder of its own.")


def _is_done(config: Config, run: RunDirectory) -> bool:
    """Whether the directory holds this run, with these very settings, done.

    Otherwise the run itself finds out what there is to do, or why it cannot be done there.
    """
    if not (run.exists(CONFIG_FILE) and run.exists(STATUS_FILE)):
        return False
    try:
        status: Any = json.loads(run.read_text(STATUS_FILE))
        there: Any = json.loads(run.read_text(CONFIG_FILE))
    except ValueError:
        return False
    here = config.model_dump(mode="json")
    same = isinstance(there, dict) and {**there, "run_dir": ""} == {**here, "run_dir": ""}
    return same and isinstance(status, dict) and status.get("state") == "done"


def _run(point: Point, run: RunDirectory, process: ChildProcess, flags: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
        config = Path(scratch) / CONFIG_FILE
        config.write_text(point.config.to_json(), encoding="utf-8")
        return process.run(
            [sys.executable, "-m", "trainer.task", f"--config={config}", f"--run_dir={run.path}", *flags]
        )
