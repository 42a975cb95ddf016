"""Where the wall time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Phase = Literal["startup", "features", "compile", "train", "evaluate", "checkpoint", "export"]
"""What a second can be spent on."""

PHASES: tuple[Phase, ...] = get_args(Phase)


class Stopwatch:
    """Sums up wall time by phase. Each second counts for one phase: the innermost that is being measured.

    For one thread.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the total.

        Args:
          clock: gives seconds that never go back, from any origin.
        """
        self._clock = clock
        self._started = self._last = clock()
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._running: list[Phase] = []

    @contextmanager
    def measure(self, phase: Phase) -> Iterator[None]:
        """Counts the time of the `with` block for `phase`; a `measure` inside it takes its own time away.

        Raises:
          ValueError: there is no such phase.
        """
        if phase not in self._seconds:
            raise ValueError(f"no phase {phase!r}: one of {', '.join(PHASES)}")
        self._settle()
        self._running.append(phase)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase up to now, running ones included, and "total": all since the start, measured or not."""
        self._settle()
        return {**self._seconds, "total": self._last - self._started}

    def _settle(self) -> None:
        """Books the time since the last change for the phase that was running."""
        now = self._clock()
        if self._running:
            self._seconds[self._running[-1]] += now - self._last
        self._last = now
