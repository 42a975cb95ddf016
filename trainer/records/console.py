"""What a person sees while a run goes on: a progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 10.0
"""In a log, progress within an epoch is told at most this often."""


class Console:
    """Prints notes, warnings and progress. Text is printed as it is: nothing in a path or label is markup."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Chooses between bar and lines by looking at `out`.

        Args:
          quiet: print warnings only.
          out: for notes and progress; standard output by default. A terminal gets the bar.
          err: for warnings; standard error by default.
          clock: seconds.
        """
        self._quiet = quiet
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._clock = clock
        self._last_line = clock()
        self._bar: Any = None
        self._bar_task: Any = None

    def note(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._out, flush=True)

    def warning(self, text: str) -> None:
        """Prints a line to standard error, quiet or not."""
        print(f"warning: {text}", file=self._err, flush=True)

    def progress(
        self,
        *,
        epoch: int,
        epochs: int,
        step: int,
        steps_total: int,
        metrics: Mapping[str, float],
        images_per_second: float | None,
    ) -> None:
        """Shows how far the run is.

        Args:
          epoch: the epoch that is running, from 1.
          epochs: of the run.
          step: steps done.
          steps_total: of the run.
          metrics: "loss" and "accuracy" of the epoch so far.
          images_per_second: over all replicas; None where it is not known yet.
        """
        if self._quiet:
            return
        speed = f"{images_per_second:,.0f} img/s" if images_per_second else ""
        if self._out.isatty():
            self._show_bar(f"epoch {epoch}/{epochs}", step, steps_total, f"loss {metrics['loss']:.3f} {speed}")
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            self.note(f"step {step}/{steps_total}  {_shown(metrics)}  {speed}".rstrip())

    def epoch_done(
        self, *, epoch: int, epochs: int, train: Mapping[str, float], validation: Mapping[str, float]
    ) -> None:
        """Prints one line of an epoch: training metrics, and validation metrics where there are any."""
        self._last_line = self._clock()
        line = f"epoch {epoch:>{len(str(epochs))}}/{epochs}  {_shown(train)}"
        self.note(f"{line}  validation {_shown(validation)}" if validation else line)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show_bar(self, title: str, step: int, steps_total: int, tail: str) -> None:
        if self._bar is None:
            self._bar = self._new_bar()
            self._bar_task = self._bar.add_task(title, total=steps_total)
            self._bar.start()
        self._bar.update(self._bar_task, completed=step, description=title, tail=tail)

    def _new_bar(self) -> Any:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TextColumn("{task.fields[tail]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=RichConsole(file=self._out),
            transient=True,
            expand=True,
        )


def _shown(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in ("loss", "accuracy") if name in metrics)
