"""Where the wall time of a run goes, over all the times that it was started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Phase = Literal["startup", "features", "compile", "input_wait", "train", "evaluate", "checkpoint", "export"]
"""What a second can be spent on. input_wait: training steps that wait for images. checkpoint: training that waits for a
checkpoint; most of one is written while training goes on."""

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

    def move(self, seconds: float, source: Phase, target: Phase) -> None:
        """Books some seconds for another phase than the one that was measured."""
        self._settle()
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

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


@dataclass
class Attempt:
    """One start of a run.

    Attributes:
      began: when, ISO 8601 in UTC.
      from_step: where it went on.
      to_step: the last step that it told of.
      seconds: by phase and in total, as `Stopwatch.seconds` gives them.
      lost_seconds: of training steps that a later start had to repeat.
    """

    began: str
    from_step: int
    to_step: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    lost_seconds: float = 0.0

    def lose(self, resumed_step: int) -> None:
        """Notes that the next start went on from `resumed_step`: the steps after it count at their mean time."""
        self.to_step = max(self.to_step, resumed_step)  # It may have been killed before it told.
        if self.to_step > max(resumed_step, self.from_step):
            repeated = self.to_step - max(resumed_step, self.from_step)
            self.lost_seconds = self.seconds.get("train", 0.0) * repeated / (self.to_step - self.from_step)

    @classmethod
    def from_json(cls, values: Any) -> Attempt:
        """Reads one out of status.json.

        Raises:
          TypeError, KeyError, ValueError: it is none.
        """
        seconds = {str(phase): float(count) for phase, count in values["seconds"].items()}
        steps = int(values["from_step"]), int(values["to_step"])
        return cls(str(values["began"]), *steps, seconds, float(values["lost_seconds"]))


def goodput(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Where the time of all starts went.

    Returns:
      "starts", how many there were; seconds by phase, "lost" and "total"; "train" is without what was lost. "share" is
      that of "train" in the total: 1 would be a run that does nothing else.
    """
    phases = {phase: sum(attempt.seconds.get(phase, 0.0) for attempt in attempts) for phase in (*PHASES, "total")}
    lost = sum(attempt.lost_seconds for attempt in attempts)
    phases["train"] -= lost
    share = phases["train"] / phases["total"] if phases["total"] else 0.0
    return {"starts": len(attempts), **phases, "lost": lost, "share": share}
