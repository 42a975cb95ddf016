"""The largest batch that fits: few trials, since each takes the compiler a while. No TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Largest:
    """What a search came to.

    Attributes:
      batch: the largest that is known to fit; 0: none is.
      refused: the smallest that is known not to.
      unit: of which all batches are multiples.
    """

    batch: int
    refused: int
    unit: int

    @property
    def exact(self) -> bool:
        """Whether nothing lies between the two."""
        return self.refused - self.batch <= self.unit


_FINE = 32
"""Where what is left is so many times smaller than the batch, it pays to try a round number's neighbour."""


def largest_fitting(
    fits: Callable[[int], bool],
    *,
    unit: int,
    refused: int,
    needed: int | None,
    allowed: int,
    has_time: Callable[[], bool] = lambda: True,
) -> Largest:
    """Looks for the largest multiple of `unit` that fits.

    It guesses from what the refused batch needed, or halves, and then halves what is left between a batch that fits and
    one that does not, at round numbers: devices pad batches, so that memory grows in steps that begin behind these.
    What is larger than one that does not fit is taken not to.

    Args:
      fits: tries a batch.
      unit: the smallest batch.
      refused: a multiple of it that does not fit.
      needed: bytes that that one takes, if known.
      allowed: bytes that there are.
      has_time: asked before each trial; where not, what is known by then is given.
    """
    fitting, too_large = 0, refused // unit
    place = _guess(too_large, needed, allowed)
    while too_large - fitting > 1 and has_time():
        if not fitting < place < too_large:
            place = _roundest(fitting, too_large)
        if fits(place * unit):
            fitting = place
        else:
            too_large = place
        left = too_large - fitting
        is_likely = _roundness(fitting) >= left and left * _FINE <= too_large
        place = fitting + 1 if is_likely else 0
    return Largest(fitting * unit, too_large * unit, unit)


def _guess(too_large: int, needed: int | None, allowed: int) -> int:
    """Where the border may be, as a round number: memory grows about in proportion. Without a clue, a power of two."""
    if not needed:
        return 2 ** ((too_large - 1).bit_length() - 1) if too_large > 1 else 0
    place = too_large * allowed // needed
    digits = max(0, place.bit_length() - 4)
    return place >> digits << digits


def _roundest(low: int, high: int) -> int:
    """The multiple of the largest power of two well between two numbers."""
    margin = (high - low) // 4
    first, last = low + max(1, margin), high - max(1, margin)
    step = 2 ** (last.bit_length())
    while last // step * step < first:
        step //= 2
    return last // step * step


def _roundness(place: int) -> int:
    """The largest power of two that divides a number; of 0, which is no batch, 0."""
    return place & -place
