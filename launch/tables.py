"""What the commands on jobs print: tables and folded lines, as wide as the terminal, on which nothing in them acts."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from trainer.terminal import discard, printable

_COLORS = {
    "running": 36,
    "succeeded": 32,
    "failed": 31,
    "stopping": 33,
    "cancelled": 33,
    "preempted": 33,
    "gone": 2,
    "unknown": 35,
}
"""How the words for states are set on a terminal (ECMA-48: foreground colors; 2 is faint)."""

_NARROWEST = 20


@dataclass(frozen=True)
class Look:
    """What a stream can show.

    Attributes:
      stream: where to.
      width: columns of the terminal; None for a file or a pipe, which have room for every line.
      colored: whether words may have colors.
    """

    stream: TextIO
    width: int | None
    colored: bool

    def text(self, text: str) -> str:
        """A text without what acts on the terminal."""
        return printable(text, self.stream.encoding)

    def state(self, word: str, padded_to: int = 0) -> str:
        """The word for a state, in its color."""
        shown = self.text(word).ljust(padded_to)
        return f"\x1b[{_COLORS[word]}m{shown}\x1b[0m" if self.colored and word in _COLORS else shown


def look_of(stream: TextIO, environment: Mapping[str, str]) -> Look:
    """What a stream can show.

    Args:
      stream: where to.
      environment: NO_COLOR (https://no-color.org) or TERM=dumb there mean no colors.
    """
    if not stream.isatty():
        return Look(stream, None, False)
    colored = not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return Look(stream, max(columns or 80, _NARROWEST), colored)


def print_lines(lines: Sequence[str], stream: TextIO | None = None) -> None:
    """Prints lines; they vanish where nobody reads any more, as behind `| head`."""
    stream = stream or sys.stdout
    try:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
    except OSError:
        discard(stream)


def print_text(text: str) -> None:
    """Prints a text of one line or several, in which nothing acts on the terminal."""
    print_lines([printable(text, sys.stdout.encoding, kept="\n")])


def print_json(value: Any) -> None:
    """Prints indented JSON in ASCII, which no terminal acts on."""
    print_lines([json.dumps(value, indent=2)])


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], state: int, look: Look) -> list[str]:
    """Lines of a table; [] where the terminal is too narrow for it.

    Args:
      titles: of the columns.
      rows: their cells, a text for each column.
      state: the number of the column whose words are states.
      look: of the stream.
    """
    from rich.cells import cell_len

    cells = [[look.text(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[column]) for row in [list(titles), *cells]) for column in range(len(titles))]
    if look.width is not None and sum(widths) + 2 * (len(widths) - 1) > look.width:
        return []

    def line(row: Sequence[str], *, colored: bool) -> str:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths)]
        if colored:
            padded[state] = look.state(row[state], widths[state])
        return "  ".join(padded).rstrip()

    return [line(titles, colored=False), *(line(row, colored=True) for row in cells)]


def folded(start: str, text: str, look: Look) -> list[str]:
    """A line, or several where the terminal is too narrow for one.

    Args:
      start: of the first line; the others are indented by as much.
      text: behind it.
      look: of the stream.
    """
    line = f"{start}{look.text(text)}"
    if look.width is None or len(line) <= look.width or " " not in text:  # One long word: the terminal breaks it.
        return [line]
    return textwrap.wrap(
        line,
        look.width,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
