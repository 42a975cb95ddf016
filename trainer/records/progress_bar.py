"""The bar at the bottom of a terminal: as much of the numbers as the window has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

REFRESHES_A_SECOND = 4

_SHORTEST_BAR = 8
"""Columns; rather than a shorter bar, some numbers are left out."""


@dataclass(frozen=True)
class Moment:
    """What the bar shows; see `Console.progress`.

    Attributes:
      seconds_left: until the last step; None where it is not known yet.
    """

    epoch: int
    epochs: int
    step: int
    steps_total: int
    metrics: Mapping[str, float]
    examples_per_second: float | None
    unit: str
    seconds_left: float | None

    def texts(self) -> list[tuple[str, str]]:
        """What may stand to the left and to the right of the bar, from the fullest to the barest."""
        count = f"{self.step}/{self.steps_total}"
        left = "" if self.seconds_left is None else _duration(self.seconds_left)
        speed = f"{self.examples_per_second:,.0f}" if self.examples_per_second else ""
        loss, accuracy = (f"{self.metrics[name]:.3f}" if name in self.metrics else "" for name in ("loss", "accuracy"))
        title, short_title = f"epoch {self.epoch}/{self.epochs}", f"{self.epoch}/{self.epochs}"
        full = (count, loss and f"loss {loss}", accuracy and f"accuracy {accuracy}", speed and f"{speed} {self.unit}/s")
        short = (count, loss and f"loss {loss}", accuracy and f"acc {accuracy}", speed and f"{speed}/s")
        return [
            (title, _joined(*full, left and f"{left} left")),
            (title, _joined(*short, left)),
            (short_title, _joined(*short, left)),
            (short_title, _joined(*short[:3], left)),
            (short_title, _joined(*short[:2], left)),
            (short_title, _joined(count, left)),
            ("", count),
        ]

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Draws one line that fits the window of the moment."""
        yield _line(self.texts(), self.step, self.steps_total, options)


@dataclass(frozen=True)
class Work:
    """What the bar shows of work outside of training; see `Console.work`."""

    title: str
    done: int
    total: int | None

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Draws one line that fits the window of the moment."""
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        yield _line([(self.title, count), ("", f"{self.done}")], self.done, self.total, options)


@dataclass(frozen=True)
class Waiting:
    """What stands in place of the bar while nobody knows how far something is; see `Console.waiting`.

    Attributes:
      began: by `clock`, in seconds.
    """

    title: str
    clock: Callable[[], float]
    began: float

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Draws one line, with the time of the moment."""
        time = _duration(self.clock() - self.began)
        room = options.max_width - len(time) - 3
        title = self.title if len(self.title) <= room else f"{self.title[: room - 1]}…"
        yield Text(f"{title}  {time}", no_wrap=True)


class ProgressBar:
    """A bar that stays below what is printed, until it is stopped."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        """Prepares the bar; it appears with the first moment.

        Args:
          out: a terminal.
          err: what warnings of libraries go to; if it is a terminal too, they are kept above the bar.
        """
        self._console = RichConsole(file=out)
        self._live = Live(
            console=self._console,
            refresh_per_second=REFRESHES_A_SECOND,
            transient=True,
            redirect_stderr=err.isatty(),
        )

    def show(self, moment: Moment | Work | Waiting) -> None:
        """Shows a new state, from the next refresh on."""
        self._live.update(moment)
        if not self._live.is_started:
            self._live.start(refresh=True)

    def print_above(self, text: str) -> None:
        """Prints a text as it is above the bar."""
        self._console.print(Text(text), soft_wrap=True)

    def stop(self) -> None:
        """Takes the bar away and gives the terminal back."""
        self._live.stop()


def _line(texts: list[tuple[str, str]], done: int, total: int | None, options: ConsoleOptions) -> Table:
    """A bar between the first pair of texts that leaves room for it."""
    room = options.max_width - 3  # Two gaps, and some terminals wrap on writing the last column.
    title, numbers = next((pair for pair in texts if len("".join(pair)) + _SHORTEST_BAR <= room), texts[-1])
    line = Table.grid(padding=(0, 1, 0, 0))
    width = max(1, room - len(title) - len(numbers))
    line.add_row(Text(title), Bar(total, done, width=width), Text(numbers, no_wrap=True))
    return line


def _joined(*parts: str) -> str:
    return "  ".join(filter(None, parts))


def _duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: "0:07", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
