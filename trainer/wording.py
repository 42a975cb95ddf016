"""Words that sentences to a person have in common. No TensorFlow."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things, as in "1 worker" and "2 workers".

    Args:
      number: 0 or more.
      noun: in the singular; an s makes its plural.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
