"""A comparison for the terminal: a table where it is wide enough, otherwise a block of lines for each run."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping

from rich.cells import cell_len

from trainer.report.compare import Comparison
from trainer.report.compare_words import ABSENT, cells, notes, same_values, titled, verdicts
from trainer.terminal import printable

_GAP = "  "

_FALLBACK_SIZE = (100, 24)
"""Columns and lines where no terminal tells its own."""


def terminal_columns() -> int:
    """How wide the terminal is, or what the environment variable COLUMNS says."""
    return shutil.get_terminal_size(_FALLBACK_SIZE).columns


def comparison_text(comparison: Comparison, width: int) -> str:
    """All of it, in lines of at most `width` columns wherever words can be broken.

    Args:
      comparison: of two or more runs.
      width: columns of the terminal.
    """
    comparison, titles = titled(comparison)
    rows = {titles[run.name]: cells(comparison, run) for run in comparison.runs}
    told = [name for name in next(iter(rows.values())) if any(row[name] != ABSENT for row in rows.values())]
    rows = {_plain(name): {heading: _plain(row[heading]) for heading in told} for name, row in rows.items()}
    table = _table(rows)
    parts = [
        table if max(map(cell_len, table)) <= width else _blocks(rows, width),
        [line for sentence in verdicts(comparison) for line in _wrapped(sentence, width)],
        _settings(comparison, width),
        [line for sentence in notes(comparison) for line in _wrapped(sentence, width)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each run below a line of headings."""
    lines = [["run", *next(iter(rows.values()))], *([name, *row.values()] for name, row in rows.items())]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [_GAP.join(map(_padded, line, widths)).rstrip() for line in lines]


def _blocks(rows: Mapping[str, Mapping[str, str]], width: int) -> list[str]:
    """For each run its name, and below it a line for each heading."""
    lines: list[str] = []
    for name, row in rows.items():
        lines += ["", *_wrapped(name, width)]
        widest = max(map(cell_len, row), default=0)
        for heading, text in row.items():
            begin = f"{_GAP}{_padded(heading, widest)}{_GAP}"
            lines += _wrapped(text, width, first=begin, rest=" " * len(begin))
    return lines[1:]


def _settings(comparison: Comparison, width: int) -> list[str]:
    """The settings that differ, each value with the runs that have it."""
    if not comparison.settings:
        return ["settings: all the same"]
    lines: list[str] = []
    for changes_result, title in ((True, "settings that change the result"), (False, "other settings that differ")):
        chosen = [setting for setting in comparison.settings if setting.changes_result == changes_result]
        lines += [title] if chosen else []
        for setting in chosen:
            for value, names in same_values(setting, comparison.runs):
                lines += _wrapped(f"--{setting.field}={value}: {'; '.join(names)}", width, first=_GAP, rest=2 * _GAP)
    return lines


def _wrapped(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        _plain(text), max(width, 20), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _plain(text: str) -> str:
    return printable(text, None)
