"""Readers of option values, for argparse: what is wrong is said in one sentence."""

from __future__ import annotations

from collections.abc import Callable

from trainer.errors import UserError


def whole_number(option: str, least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in a range.

    Args:
      option: for the sentence.
      least: is accepted.
      most: is accepted.
    """

    def read(text: str) -> int:
        if not (text.isdecimal() and text.isascii() and least <= int(text) <= most):
            raise UserError(f"{option}={text}: must be a whole number from {least} to {most}.")
        return int(text)

    return read


def hours(option: str, most: float, *, zero: bool = False) -> Callable[[str], float]:
    """A reader of hours, whole or not.

    Args:
      option: for the sentence.
      most: is accepted.
      zero: whether 0 is accepted.
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (0 < value <= most or (zero and value == 0)):
            raise UserError(f"{option}={text}: must be hours {'from' if zero else 'above'} 0 to {most:g}, as in 1.5.")
        return value

    return read
