"""Steps as a compiler may have made them, and a compiler that says what a test likes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from trainer.accelerators import Slice
from trainer.preflight.compiler import Accepted, Answer, CompilerError, Refused
from trainer.preflight.verdict import CompiledStep, Memory

GIB = 2**30
MEMORY = Memory(arguments=3 * GIB, outputs=2 * GIB, shared=GIB, temporaries=GIB, code=GIB // 2)
"""5.5 GiB in all."""


def step(name: str, **fields: Any) -> CompiledStep:
    """Takes 5.5 GiB, and 0.5 more beside it."""
    made = CompiledStep(name, MEMORY, beside=GIB // 2, flops=197e9, bytes_accessed=819e7, seconds=3.0)
    return dataclasses.replace(made, **fields)


def accepted(**memory: int) -> Accepted:
    return Accepted(dataclasses.replace(MEMORY, **memory), flops=197e9, bytes_accessed=819e7, seconds=3.0)


def out_of_memory(needed: int) -> Refused:
    return Refused("memory", "Ran out of memory on HBM", needed, seconds=1.0)


class FakeCompiler:
    """Answers by the size of a program's batch; notes what it was asked."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.failure = ""

    def __call__(self, programs: Mapping[str, bytes], timeout: float | None = None) -> dict[str, Answer]:
        if self.failure:
            raise CompilerError(self.failure)
        assert timeout is None or timeout > 0
        assert all(isinstance(hlo, bytes) and hlo for hlo in programs.values())
        self.asked += programs
        return {name: self.answer(name) for name in programs}

    def make(self, slice_: Slice) -> Any:
        """In place of `Compiler`."""
        return self
