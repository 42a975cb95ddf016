"""The largest batch that fits: which ones to try, and which ones not even to try."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.host_memory import free_memory, peak_memory, resident_memory

SEARCH_SECONDS = 120.0
"""After this long no other batch is tried: each takes as long as the tracing of a step and two steps."""


def largest_batch(fits: Callable[[int], bool], *, multiple_of: int, most: int, first: int) -> int:
    """Looks for the largest that fits of `multiple_of` times 1, 2, 4, 8, and so on.

    Args:
      fits: whether a batch does. What is larger than one that does not is taken not to, and is not asked about.
      multiple_of: the smallest batch, at least 1.
      most: none is larger, but for the smallest.
      first: where to begin: from the largest that is not above it, it goes up as long as they fit, or else down.

    Returns:
      The batch; 0 where not even the smallest fits.
    """
    size = multiple_of
    while 2 * size <= min(first, most):
        size *= 2
    if fits(size):
        while 2 * size <= most and fits(2 * size):
            size *= 2
        return size
    while size > multiple_of:
        size //= 2
        if fits(size):
            return size
    return 0


class HostMemory:
    """Says which batches might take too much of the memory that programs share with this one.

    There a batch that does not fit raises no error: the system ends some process. So memory is measured while the
    batches grow. A step takes at most in proportion to its batch.
    """

    def __init__(
        self,
        share: float,
        *,
        free: Callable[[], int] = free_memory,
        resident: Callable[[], int] = resident_memory,
        peak: Callable[[], int] = peak_memory,
    ) -> None:
        """Looks at what is free now.

        Args:
          share: in (0, 1], how much of that a step may take.
          free, resident, peak: bytes, see `trainer.host_memory`.
        """
        self._allowed = share * free()
        self._before = resident()
        self._peak = peak
        self._tried = 0

    def allows(self, batch: int) -> bool:
        """Whether a batch takes no more than the share, as far as those tell that were tried; without any, yes.

        What the process held earlier may hide what they took: then it counts as theirs.
        """
        taken = self._peak() - self._before
        return not self._tried or taken * batch / self._tried <= self._allowed

    def note(self, batch: int) -> None:
        """Takes in that a batch was tried."""
        self._tried = max(self._tried, batch)


class BatchSearch:
    """Tries batches as long as there is time and memory for it, on all workers alike, and keeps what came of it.

    Attributes:
      fitting: batches that fit, in the order in which they were tried.
      too_large: those that did not.
      untried: one that was not tried, and why, for a person; None where all were.
    """

    def __init__(
        self,
        trial: Callable[[int], bool],
        *,
        memory: HostMemory | None = None,
        seconds: float = SEARCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        gather: Callable[[NDArray], NDArray] = lambda mine: mine[np.newaxis],
    ) -> None:
        """Starts the clock.

        Args:
          trial: whether a batch fits; it says so of each worker alone.
          memory: is asked first, where a batch that does not fit would do harm.
          seconds: after which no other is tried.
          clock: seconds.
          gather: what each worker gave, see `trainer.cluster.Cluster.gather`; alone, what this one did.
        """
        self.fitting: list[int] = []
        self.too_large: list[int] = []
        self.untried: tuple[int, str] | None = None
        self._trial = trial
        self._memory = memory
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._gather = gather

    def __call__(self, batch: int) -> bool:
        """Whether a batch is known to fit, on every worker."""
        reason = self._reason_against(batch)
        if not self._agreed(not reason):
            self.untried = batch, reason or "another worker has no room or no time for it"
            return False
        fits = self._agreed(self._trial(batch))
        if self._memory:
            self._memory.note(batch)
        (self.fitting if fits else self.too_large).append(batch)
        return fits

    def _reason_against(self, batch: int) -> str:
        if self._clock() - self._began > self._seconds:
            return f"the search has taken its {self._seconds:.0f} seconds"
        if self._memory and not self._memory.allows(batch):
            return "it might take more of this machine's memory than is safe"
        return ""

    def _agreed(self, mine: bool) -> bool:
        return bool(self._gather(np.array([float(mine)])).all())
