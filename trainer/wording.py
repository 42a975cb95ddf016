"""Words that sentences to a person have in common. No TensorFlow."""

from __future__ import annotations

import re


def counted(number: int, noun: str) -> str:
    """A number of things, as in "1 worker" and "2 workers".

    Args:
      number: 0 or more.
      noun: in the singular; an s makes its plural.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the graph node that TensorFlow puts first, or its type's name."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\{\{.*?\}\} ", "", line)
