"""All that preflight found out about one run on one accelerator, for a person and as JSON. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.preflight.roofline import shown_seconds
from trainer.preflight.verdict import (
    EVALUATE,
    EXTRACT,
    TRAIN,
    CompiledStep,
    DoesNot,
    Fits,
    Number,
    Problem,
    Unchecked,
    Verdict,
    verdict_from_json,
    verdict_to_json,
)

GIB = 2**30
MIB = 2**20

_CALLED = {TRAIN: "training", EVALUATE: "evaluation", EXTRACT: "features"}
_SHOWN = ("step", "steps", "hours", "price", "input_needed", "input_here")
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Report:
    """A verdict and what belongs to it.

    Attributes:
      verdict: the answer.
      batch_size: the global batch it is about.
      largest_batch: the largest batch that the compiler took, where the run's own is too large; None: nobody looked.
      remarks: what is worth knowing and speaks not against the run.
      numbers: by name, see `trainer.preflight.roofline`; empty where the steps were not compiled.
      seconds: what took how long, by name: "trace", "compile", "search".
    """

    verdict: Verdict
    batch_size: int
    largest_batch: int | None = None
    remarks: tuple[Problem, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: the verdict's own keys and these."""
        rest = {**asdict(self), **verdict_to_json(self.verdict)}
        del rest["verdict"]
        return {"verdict": self.verdict.word, **rest}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """What `to_json` wrote.

        Raises:
          ValueError: it is none.
        """
        return cls(
            verdict=verdict_from_json(values),
            batch_size=values["batch_size"],
            largest_batch=values["largest_batch"],
            remarks=tuple(Problem(**remark) for remark in values["remarks"]),
            numbers={name: Number(**number) for name, number in values["numbers"].items()},
            seconds=dict(values["seconds"]),
        )

    def lines(self) -> list[str]:
        """The report for a person, the verdict first."""
        verdict = self.verdict
        lines = [f"{verdict.accelerator}: {_without_name(verdict)}"]
        if isinstance(verdict, Unchecked):
            lines.append(f"  why       {verdict.reason}")
        if isinstance(verdict, DoesNot):
            lines += [f"  {_place(problem):<9} {problem.message}{_where(problem)}" for problem in verdict.problems]
        if isinstance(verdict, Fits):
            lines += [_memory_line(step, verdict.allowed) for step in verdict.steps]
        lines += [f"  note      {remark.message}{_where(remark)}" for remark in self.remarks]
        lines += [_number_line(name, self.numbers[name]) for name in _SHOWN if name in self.numbers]
        if isinstance(verdict, Fits):
            lines.append(f"  by        {verdict.compiler}; how it runs and what it computes, only the slice can show")
        return lines


def table(reports: list[Report]) -> list[str]:
    """Several reports, a line each."""
    rows = [("accelerator", "verdict", "memory", "of", "step at best", "hours at best"), *map(_row, reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _row(report: Report) -> tuple[str, ...]:
    verdict = report.verdict
    if not isinstance(verdict, Fits):
        return (verdict.accelerator, verdict.word, "", "", "", "")
    most = max(step.needed for step in verdict.steps)
    step, hours = report.numbers["step"].value, report.numbers["hours"].value
    assert step is not None and hours is not None
    gib = f"{verdict.allowed / GIB:.2f} GiB"
    return (
        verdict.accelerator,
        verdict.sentence.split(" for ")[0],
        f"{most / GIB:.2f} GiB",
        gib,
        *map(shown_seconds, (step, hours * 3600)),
    )


def _without_name(verdict: Verdict) -> str:
    return verdict.sentence.removesuffix(f" for {verdict.accelerator}")


def _place(problem: Problem) -> str:
    return _CALLED.get(problem.step, "run")


def _where(problem: Problem) -> str:
    return f" [{problem.where}]" if problem.where else ""


def _memory_line(step: CompiledStep, allowed: int) -> str:
    memory = step.memory
    new = memory.outputs - memory.shared
    parts = {
        "arguments": memory.arguments,
        "outputs": new,
        "temporaries": memory.temporaries,
        "code": memory.code,
        "kept beside": step.beside,
    }
    named = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return f"  {_CALLED[step.name]:<9} takes {_size(step.needed)} of {_size(allowed)} a device: {named}"


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.2f} MiB"


def _number_line(name: str, number: Number) -> str:
    label = name.replace("_", " ")
    if number.value is None:
        return f"  {label:<13} unknown: {number.note}"
    value = shown_seconds(number.value) if number.unit == "s" else f"{_scaled(number.value)} {number.unit}"
    value = shown_seconds(number.value * 3600) if number.unit == "h" else value
    return f"  {label:<13} {value} ({number.kind}): {number.note}"


def _scaled(value: float) -> str:
    for scale, letter in _SCALES:
        if value >= 10 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.4g}"
