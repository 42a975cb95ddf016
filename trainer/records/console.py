"""What a person sees while a run goes on: a progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from trainer.records.reminder import reminding
from trainer.terminal import discard, printable

if TYPE_CHECKING:
    from trainer.records.progress_bar import ProgressBar

SECONDS_BETWEEN_LINES = 10.0
"""In a log, progress within an epoch is told at most this often."""

_TITLE_WIDTH = 9
"""Columns of the titles of `Console.entry`."""

_REMEMBERED = 50
"""How many calls of `progress` the time that is left is judged by."""


class Console:
    """Prints notes, warnings and progress. Nothing in a path or label acts as markup or as a terminal's control code.

    A run outlives who watches it: when a pipe's reader is gone, or a log's disk is full, nothing more is printed there.

    A context manager: at its end the bar is taken away and the terminal is as it was.
    """

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
        self._seen: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self._bar: ProgressBar | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if not self._quiet:
            self._print(self._out, text)

    def entry(self, title: str, text: str) -> None:
        """Prints a line of a table: a short title and a text, with one or more lines for it on a narrow terminal."""
        indent = " " * _TITLE_WIDTH
        line = _titled(title, printable(text, None))
        if len(line) > self._width():
            line = textwrap.fill(
                line, self._width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        self.note(line)

    def warning(self, text: str) -> None:
        """Prints a line to standard error, quiet or not."""
        self._print(self._err, f"warning: {text}")

    def progress(
        self,
        *,
        epoch: int,
        epochs: int,
        step: int,
        steps_total: int,
        metrics: Mapping[str, float],
        examples_per_second: float | None,
        unit: str,
    ) -> None:
        """Shows how far the run is.

        Args:
          epoch: the epoch that is running, from 1.
          epochs: of the run.
          step: steps done.
          steps_total: of the run.
          metrics: "loss" and "accuracy" of the epoch so far.
          examples_per_second: over all replicas; None where it is not known yet.
          unit: what an example is called in it.
        """
        if self._quiet:
            return
        now = self._clock()
        self._seen.append((now, step))
        if _is_terminal(self._out):
            from trainer.records.progress_bar import Moment

            left = self._seconds_left(steps_total)
            self._shown_bar().show(
                Moment(epoch, epochs, step, steps_total, dict(metrics), examples_per_second, unit, left)
            )
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            speed = f"  {examples_per_second:,.0f} {unit}/s" if examples_per_second else ""
            self.note(f"step {step}/{steps_total}  {shown(metrics)}{speed}")

    def work(self, title: str, done: int, total: int | None) -> None:
        """Shows how far some work outside of training is.

        Args:
          title: what is being done.
          done: images.
          total: of them; None where it is not known yet.
        """
        if self._quiet:
            return
        now = self._clock()
        if _is_terminal(self._out):
            from trainer.records.progress_bar import Work

            self._shown_bar().show(Work(title, done, total))
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.entry(title, f"{done}" if total is None else f"{done} of {total}")

    @contextmanager
    def waiting(self, title: str, what: str) -> Iterator[None]:
        """Shows that something goes on while the body runs, of which nobody knows how long it takes.

        On a terminal the time stands where the bar does; a log gets a line after ten seconds, twenty, forty, ….

        Args:
          title: as of `entry`.
          what: is waited for, as in "the training step" with the title "compile".
        """
        if self._quiet:
            yield
        elif _is_terminal(self._out):
            from trainer.records.progress_bar import Waiting

            self._shown_bar().show(Waiting(_titled(title, what), self._clock, self._clock()))
            try:
                yield
            finally:
                self.close()
        else:
            with reminding(lambda seconds: self.entry(title, f"{what}, {seconds:g} s so far"), SECONDS_BETWEEN_LINES):
                yield

    def epoch_done(
        self, *, epoch: int, epochs: int, train: Mapping[str, float], validation: Mapping[str, float]
    ) -> None:
        """Prints one line of an epoch: training metrics, and validation metrics where there are any.

        On a terminal that is too narrow for it, it is set closer, or the validation metrics take a line of their own.
        """
        self._last_line = self._clock()
        title = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        self.note(_first_fitting(self._width(), _epoch_lines(title, shown(train), shown(validation))))

    def close(self) -> None:
        """Takes the bar away, as at the end of `work`; the next `progress` or `work` brings it back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _shown_bar(self) -> ProgressBar:
        if self._bar is None:
            from trainer.records.progress_bar import ProgressBar

            self._bar = ProgressBar(self._out, self._err)
        return self._bar

    def _print(self, stream: TextIO, text: str) -> None:
        text = printable(text, stream.encoding, kept="\n")
        # A terminal's lines go through the bar, which makes room for them, whichever of the two streams they take.
        try:
            if self._bar is not None and _is_terminal(stream):
                self._bar.print_above(text)
            else:
                print(text, file=stream, flush=True)
        except OSError as error:
            discard(stream)
            if stream is self._out:
                self._print(self._err, f"warning: Nothing more can be printed ({error.strerror}); all else goes on.")

    def _seconds_left(self, steps_total: int) -> float | None:
        """Judged by the speed of late, pauses for validation included; None before there is one."""
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        if last_step <= first_step:
            return None
        return (steps_total - last_step) * (last_time - first_time) / (last_step - first_step)

    def _width(self) -> int:
        """Columns of the terminal; a log has room for every line."""
        if not _is_terminal(self._out):
            return sys.maxsize
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


def _titled(title: str, text: str) -> str:
    return f"{title:<{_TITLE_WIDTH}}{text}"


def shown(metrics: Mapping[str, float]) -> str:
    """Loss and accuracy, as far as they are there, with four digits: "loss 0.1234  accuracy 0.9000"."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in ("loss", "accuracy") if name in metrics)


def _epoch_lines(title: str, train: str, validation: str) -> list[str]:
    """An epoch's line, from the widest to the narrowest way to set it."""
    if not validation:
        return [f"{title}  {train}"]
    return [
        f"{title}  {train}  validation {validation}",
        f"{title} {train.replace('  ', ' ')}, validation {validation.replace('  ', ' ')}",
        f"{title}  {train}\n{'validation':>{len(title)}}  {validation}",
    ]


def _first_fitting(width: int, texts: list[str]) -> str:
    return next((text for text in texts if len(text) <= width), texts[-1])


def _is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it through something that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"
