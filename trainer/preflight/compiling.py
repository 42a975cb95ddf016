"""A run's programs and what the compiler says of them, asked once for each program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

from trainer.accelerators import Slice
from trainer.preflight.cache import ANSWERS, Cache, key_of, program_digest
from trainer.preflight.compiler import VERSIONS, Accepted, Answer, Compiler, Refused
from trainer.preflight.steps import RunSteps, StepPrograms
from trainer.preflight.verdict import CALLED, CompiledStep, Memory
from trainer.records.console import Console

MakeCompiler = Callable[[Slice], Compiler]


class CachedCompiler:
    """The compiler for a slice, which remembers its answers."""

    def __init__(self, slice_: Slice, make: MakeCompiler, cache: Cache, console: Console) -> None:
        """Names the slice; the console is told what is compiled."""
        self._slice = slice_
        self._console = console
        self._make = make
        self._cache = cache

    def __call__(
        self, programs: StepPrograms, timeout: float | None = None, only: Collection[str] | None = None
    ) -> dict[str, Answer]:
        """Its answers by the programs' names; see `Compiler`.

        Args:
          programs: to ask about.
          timeout: seconds for all of them, if less than usual.
          only: the names of those to ask about; None: all.

        Raises:
          CompilerError: one is missing.
          LoweringError: a program has no form that it could take.
        """
        wanted = {name: program for name, program in programs.by_name().items() if only is None or name in only}
        protos = {name: program.hlo_proto for name, program in wanted.items()}
        keys = {
            name: key_of({"program": program_digest(hlo), "slice": self._slice.name, "versions": VERSIONS})
            for name, hlo in protos.items()
        }
        saved = {name: self._cache.load(ANSWERS, key) for name, key in keys.items()}
        answers = {name: _from_json(values) for name, values in saved.items() if values is not None}
        missing = {name: hlo for name, hlo in protos.items() if name not in answers}
        if missing:
            steps = ", ".join(CALLED[name] for name in missing)
            self._console.note(f"compiling {steps} for {self._slice.name}: minutes, where a large module is trained")
        new = self._make(self._slice)(missing, timeout) if missing else {}
        for name, answer in new.items():
            self._cache.save(ANSWERS, keys[name], asdict(answer))
        answers |= new
        return {name: answers[name] for name in protos}


def compiled_steps(run: RunSteps, programs: StepPrograms, answers: Mapping[str, Answer]) -> dict[str, CompiledStep]:
    """The steps that were accepted, with what the run keeps on a device beside each."""
    return {
        name: CompiledStep(
            name=name,
            memory=answer.memory,
            beside=run.beside(programs.by_name()[name]),
            flops=answer.flops,
            bytes_accessed=answer.bytes_accessed,
            seconds=answer.seconds,
        )
        for name, answer in answers.items()
        if isinstance(answer, Accepted)
    }


def _from_json(values: Mapping[str, Any]) -> Answer:
    if "memory" in values:
        return Accepted(**{**values, "memory": Memory(**values["memory"])})
    return Refused(**values)
