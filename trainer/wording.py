"""Words that sentences to a person have in common. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """A number of things, as in "1 worker" and "2 workers".

    Args:
      number: 0 or more.
      noun: in the singular; an s makes its plural.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def either(things: Iterable[object]) -> str:
    """Things of which one is to be taken, as in "1, 2 or 4"."""
    *others, last = map(str, things)
    return f"{', '.join(others)} or {last}" if others else last


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the graph node that TensorFlow puts first, or its type's name."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\{\{.*?\}\} ", "", line)


def duration(seconds: float) -> str:
    """How long something took, as in "9.5 s", "12 min 05 s" and "3 h 05 min"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 100 * 60:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
