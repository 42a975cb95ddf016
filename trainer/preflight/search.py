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

    It guesses from what the refused batch needed, or halves, steps on from there twice as far each time, and halves
    what is left between a batch that fits and one that does not. What is larger than one that does not fit is taken
    not to.

    Args:
      fits: tries a batch.
      unit: the smallest batch.
      refused: a multiple of it that does not fit.
      needed: bytes that that one takes, if known.
      allowed: bytes that there are.
      has_time: asked before each trial; where not, what is known by then is given.
    """
    fitting, too_large, stride = 0, refused // unit, 1
    place = _guess(too_large, needed, allowed)
    while too_large - fitting > 1 and has_time():
        if not fitting < place < too_large:
            place = (fitting + too_large) // 2
        if fits(place * unit):
            fitting, place = place, place + stride
        else:
            too_large, place = place, place - stride
        stride *= 2
    return Largest(fitting * unit, too_large * unit, unit)


def _guess(too_large: int, needed: int | None, allowed: int) -> int:
    """Where the border may be: memory grows about in proportion to the batch. Else the next power of two below."""
    if needed:
        return too_large * allowed // needed
    return 2 ** ((too_large - 1).bit_length() - 1) if too_large > 1 else 0
