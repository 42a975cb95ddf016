"""When long work is to say how far it is. No TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_REPORTS = 5.0
"""Often enough to see that something happens, rarely enough for a log file."""


class EveryFewSeconds:
    """Is due once every few seconds, for the first time a few seconds after it was made. For one thread at a time.

    Attributes:
      was_due: whether it ever was, so that a last word is in place.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts waiting; `clock` tells seconds."""
        self._clock = clock
        self._last = clock()
        self.was_due = False

    def due(self) -> bool:
        """Whether `SECONDS_BETWEEN_REPORTS` have passed since it was last due; if so, they begin anew."""
        now = self._clock()
        if now - self._last < SECONDS_BETWEEN_REPORTS:
            return False
        self._last, self.was_due = now, True
        return True
