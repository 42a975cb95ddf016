"""What to say of a run that does not fit: why, and with which batch it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from trainer.accelerators import Slice
from trainer.preflight.compiler import Answer, Refused
from trainer.preflight.compiling import CachedCompiler, compiled_steps
from trainer.preflight.search import Largest, largest_fitting
from trainer.preflight.steps import RunSteps, StepPrograms
from trainer.preflight.verdict import EXTRACT, TRAIN, CompiledStep, Problem

ON_FEATURES = "Computing features once does not depend on --batch_size: --feature_cache=off computes them in its steps."
"""What to change where computing features takes too much."""

_GIB = 2**30

Trace = Callable[[int], StepPrograms]
"""The programs of a run with some global batch."""


def refusals(slice_: Slice, answers: Mapping[str, Answer], steps: Mapping[str, CompiledStep]) -> list[Problem]:
    """Why steps do not compile or fit; [] where all do.

    Args:
      slice_: what they were compiled for.
      answers: of the compiler, by the steps' names.
      steps: those that it accepted.
    """
    allowed = slice_.device.usable_bytes
    said = [
        Problem(name, answer.rule, f"The compiler refuses it: {answer.words}.")
        for name, answer in answers.items()
        if isinstance(answer, Refused)
    ]
    return said + [
        Problem(
            name,
            "memory",
            f"It takes {step.needed / _GIB:.2f} GiB with what the run keeps beside it, and the compiler allows "
            f"{allowed / _GIB:.2f} GiB.",
        )
        for name, step in steps.items()
        if step.needed > allowed
    ]


class BatchSearch:
    """Looks for the largest batch with which a run fits."""

    def __init__(
        self,
        run: RunSteps,
        slice_: Slice,
        trace: Trace,
        compiler: CachedCompiler,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
          run: on a slice of that size.
          slice_: the slice.
          trace: traces the run's steps.
          compiler: is asked about them.
          seconds: that it may take.
          clock: seconds.
        """
        self._run, self._slice, self._trace, self._compiler = run, slice_, trace, compiler
        self._clock = clock
        self._end = clock() + seconds
        self._longest = 0.0

    def __call__(self, batch: int, answers: Mapping[str, Answer], steps: Mapping[str, CompiledStep]) -> Largest:
        """Searches below a batch that does not fit.

        Raises:
          CompilerError: the compiler did not answer about one.
        """
        needed = [answer.needed for answer in answers.values() if isinstance(answer, Refused) and answer.needed]
        needed += [step.needed for step in steps.values()]
        most, allowed = max(needed, default=0), self._slice.device.usable_bytes
        # The other steps fit with a larger batch than those that will be tried.
        suspects = {problem.step for problem in refusals(self._slice, answers, steps)}
        return largest_fitting(
            partial(self._fits, names=suspects),
            unit=self._run.smallest_batch,
            refused=batch,
            needed=most if most > allowed else None,
            allowed=allowed,
            has_time=self._has_time,
        )

    def _has_time(self) -> bool:
        """Whether there is time for a trial that takes as long as the longest so far."""
        return self._clock() + self._longest < self._end

    def _fits(self, batch: int, names: Collection[str]) -> bool:
        began = self._clock()
        programs = self._trace(batch)
        answers = self._compiler(programs, max(1.0, self._end - self._clock()), names)
        self._longest = max(self._longest, self._clock() - began)
        return not refusals(self._slice, answers, compiled_steps(self._run, programs, answers))


def with_way_out(problem: Problem, largest: Largest | None, pieces: int) -> Problem:
    """The same with what to change.

    Args:
      problem: a refusal.
      largest: what a search came to; None where there was none.
      pieces: the run's `--accumulation_steps`.
    """
    if problem.rule != "memory":
        return problem
    message = f"{problem.message} {_way_out(problem.step, largest, pieces)}"
    return Problem(problem.step, problem.rule, message, problem.where)


def _way_out(step: str, largest: Largest | None, pieces: int) -> str:
    if step == EXTRACT:
        return ON_FEATURES
    again = f" --accumulation_steps={2 * pieces} keeps the batch and needs less." if step == TRAIN else ""
    if largest is None:
        return f"A smaller --batch_size needs less.{again}"
    if not largest.batch:
        word = "Not even" if largest.exact else "No batch was found that fits, and not even"
        return f"{word} --batch_size={largest.refused} does: a smaller --image_size or another --backbone needs less."
    if largest.exact:
        return f"The largest that compiles and fits is --batch_size={largest.batch}.{again}"
    return (
        f"--batch_size={largest.batch} compiles and fits, and {largest.refused} does not; for lack of time, nothing "
        f"between them was tried.{again}"
    )
