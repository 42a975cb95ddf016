"""From a run and a slice to a report.

    stage A   TensorFlow's own TPUStrategy, and its lowering to HLO: in every installation, seconds
    stage B   the TPU's real compiler, in a process of its own: where it is installed, a minute or so

Without stage B nothing "fits": whether memory is enough only the compiler knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from trainer.accelerators import GIB, Slice
from trainer.config import Config
from trainer.features.extractors import ACCELERATOR_BATCH
from trainer.host_memory import free_memory
from trainer.preflight import roofline
from trainer.preflight.cache import REPORTS, Cache
from trainer.preflight.compiler import COMPILER, VERSIONS, Answer, CompilerError
from trainer.preflight.compiling import CachedCompiler, MakeCompiler, compiled_steps
from trainer.preflight.input_rate import input_rate
from trainer.preflight.origins import origin
from trainer.preflight.readiness import check_program
from trainer.preflight.report import Report
from trainer.preflight.report_key import report_key
from trainer.preflight.search import Largest
from trainer.preflight.step_functions import all_variables, bytes_of
from trainer.preflight.steps import RunSteps, StepPrograms
from trainer.preflight.too_large import BatchSearch, refusals, with_way_out
from trainer.preflight.verdict import EXTRACT, CompiledStep, DoesNot, Fits, Number, Problem, Unchecked
from trainer.preparation import Built, Prepared
from trainer.records.console import Console
from trainer.wording import counted

MOST_REPLICAS = 256
"""To trace for more takes several minutes: so many copies of all variables are made."""

FEW_REPLICAS = 32
"""Up to so many, nobody looks beforehand whether there is memory for the copies."""


@dataclass(frozen=True)
class Options:
    """How to check.

    Attributes:
      stage: "a" leaves the compiler out.
      search_seconds: after which no other batch is tried, where the run's own does not fit.
    """

    stage: Literal["a", "b"]
    search_seconds: float


@dataclass(frozen=True)
class Lowered:
    """The programs of a run with some batch, and what stage A says of them."""

    programs: StepPrograms
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...]


class Checker:
    """Checks one run on any number of slices; what slices have in common is done once."""

    def __init__(
        self,
        config: Config,
        options: Options,
        make_compiler: MakeCompiler,
        cache: Cache,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[], int] = free_memory,
        measure: Callable[[Prepared, Built], Number] = input_rate,
    ) -> None:
        """Notes what to check.

        Args:
          config: the run, with `--strategy=tpu`.
          options: how.
          make_compiler: makes the compiler for a slice.
          cache: what was found out before.
          console: is told what takes long.
          clock: seconds.
          free: bytes of memory that programs can still have.
          measure: measures the input pipeline.
        """
        self._config = config
        self._options = options
        self._make_compiler = make_compiler
        self._cache = cache
        self._console = console
        self._clock = clock
        self._free_memory = free
        self._measure = measure
        self._runs: dict[int, RunSteps] = {}
        self._lowered: dict[tuple[int, int], Lowered] = {}
        self._input_rate: Number | None = None

    def check(self, slice_: Slice) -> Report:
        """The report for a slice.

        Raises:
          UserError: data, module, batch or precision cannot be used at all, or the cache not be written.
        """
        reason = self._too_many(slice_.replicas)
        if reason:
            return Report(Unchecked(slice_.name, reason), self._config.batch_size, settled=False)
        run = self._run(slice_.replicas)
        options = [self._options.stage, self._options.search_seconds]
        key = report_key(self._config, run.prepared, {"slice": slice_.name, "options": options, "versions": VERSIONS})
        known = self._cache.load(REPORTS, key) if key else None
        if known:
            return Report.from_json(known)
        report = self._stage_a(run, slice_)
        if self._options.stage == "b" and isinstance(report.verdict, Unchecked):
            report = self._stage_b(report, run, slice_)
        if key and report.settled:
            self._cache.save(REPORTS, key, report.to_json())
        return report

    def _too_many(self, replicas: int) -> str:
        """Why a slice is too large to be traced here; "" where it is not."""
        smaller = "check a smaller slice with the same batch each"
        if replicas > MOST_REPLICAS:
            return f"Preflight traces at most {MOST_REPLICAS} replicas: {smaller}."
        if replicas <= FEW_REPLICAS:
            return ""
        needed, free = replicas * bytes_of(all_variables(self._run(1).built)), self._free_memory()
        if 2 * needed <= free:
            return ""
        return (
            f"All weights are copied {replicas} times to trace for as many replicas, which takes {needed / GIB:.1f} of "
            f"{free / GIB:.1f} GiB of free memory, and as much again: {smaller}, or take a machine with more."
        )

    def _run(self, replicas: int) -> RunSteps:
        if replicas not in self._runs:
            self._runs[replicas] = RunSteps(self._config, replicas, self._console)
        return self._runs[replicas]

    def _lower(self, run: RunSteps, batch: int) -> Lowered:
        place = run.prepared.cluster.replicas, batch
        if place not in self._lowered:
            self._console.note(f"tracing the steps for {counted(place[0], 'replica')}")
            programs = run.trace(batch)
            found = [
                Problem(name, finding.rule, finding.message, origin(program, finding.name))
                for name, program in programs.by_name().items()
                for finding in check_program(program)
            ]
            # The compiler takes float64, and is slow with it: nothing that would end a run.
            remarks = tuple(problem for problem in found if problem.rule == "emulated")
            problems = tuple(problem for problem in found if problem.rule != "emulated")
            self._lowered[place] = Lowered(programs, problems, remarks)
        return self._lowered[place]

    def _stage_a(self, run: RunSteps, slice_: Slice) -> Report:
        began = self._clock()
        lowered = self._lower(run, self._config.batch_size)
        seconds = {"trace": self._clock() - began}
        verdict: DoesNot | Unchecked = Unchecked(
            slice_.name,
            "TensorFlow can lower all steps for a TPU, but its compiler was not asked whether they compile and fit: "
            "--stage=b asks it, where it is installed (pip install '.[preflight]').",
        )
        if lowered.problems:
            verdict = DoesNot(slice_.name, lowered.problems)
        return Report(verdict, self._config.batch_size, remarks=lowered.remarks, seconds=seconds)

    def _stage_b(self, report: Report, run: RunSteps, slice_: Slice) -> Report:
        programs = self._lower(run, self._config.batch_size).programs
        compiler = CachedCompiler(slice_, self._make_compiler, self._cache, self._console)
        began = self._clock()
        try:
            answers = compiler(programs)
        except CompilerError as error:
            reason = f"The TPU compiler gave no answer: {error}."
            return replace(report, verdict=Unchecked(slice_.name, reason), settled=False)
        report = replace(report, seconds={**report.seconds, "compile": self._clock() - began})
        steps = compiled_steps(run, programs, answers)
        problems = refusals(slice_, answers, steps)
        if problems:
            return self._refused(report, run, slice_, compiler, answers)
        fits = Fits(slice_.name, COMPILER, tuple(steps.values()), slice_.device.usable_bytes)
        return replace(report, verdict=fits, numbers=self._numbers(run, slice_, steps))

    def _refused(
        self, report: Report, run: RunSteps, slice_: Slice, compiler: CachedCompiler, answers: dict[str, Answer]
    ) -> Report:
        """The report on a run that the compiler refuses, with what to change."""
        steps = compiled_steps(run, self._lower(run, self._config.batch_size).programs, answers)
        problems = refusals(slice_, answers, steps)
        largest, failure = None, ""
        if any(problem.rule == "memory" and problem.step != EXTRACT for problem in problems):
            began = self._clock()
            largest, failure = self._largest_batch(run, slice_, compiler, answers, steps)
            report = replace(report, seconds={**report.seconds, "search": self._clock() - began})
        if failure:
            report = replace(report, remarks=(*report.remarks, Problem("", "compiler", failure)), settled=False)
        pieces = self._config.accumulation_steps
        verdict = DoesNot(slice_.name, tuple(with_way_out(problem, largest, pieces) for problem in problems))
        if largest:
            report = replace(report, largest_batch=largest.batch, settled=largest.exact)
        return replace(report, verdict=verdict)

    def _largest_batch(
        self,
        run: RunSteps,
        slice_: Slice,
        compiler: CachedCompiler,
        answers: dict[str, Answer],
        steps: dict[str, CompiledStep],
    ) -> tuple[Largest | None, str]:
        """What a search for it came to, or why it came to nothing."""

        def trace(batch: int) -> StepPrograms:
            self._console.note(f"looking for the largest batch: trying {batch}")
            return self._lower(run, batch).programs

        search = BatchSearch(run, slice_, trace, compiler, self._options.search_seconds, self._clock)
        try:
            return search(self._config.batch_size, answers, steps), ""
        except CompilerError as error:
            return None, f"The largest batch that fits was not found, because the compiler gave no answer: {error}."

    def _numbers(self, run: RunSteps, slice_: Slice, steps: dict[str, CompiledStep]) -> dict[str, Number]:
        prepared = run.prepared
        if self._input_rate is None:
            self._input_rate = self._measure(prepared, run.built)
        splits, epochs = prepared.splits, self._config.epochs
        work = roofline.Work(
            global_batch=self._config.batch_size,
            steps=prepared.steps_total,
            evaluated=epochs * len(splits.validation) + len(splits.test),
            extracted=len(prepared.train) * max(1, self._config.feature_cache_views)
            + len(splits.validation)
            + len(splits.test),
            extraction_batch=ACCELERATOR_BATCH * slice_.replicas,
        )
        return roofline.numbers(steps, slice_, work, self._input_rate, prepared.source.kind)
