"""All that preflight found out about one run on one accelerator, for a person and as JSON. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.preflight.roofline import shown_seconds
from trainer.preflight.verdict import (
    CALLED,
    DoesNot,
    EstimatedStep,
    Fits,
    Number,
    Problem,
    Step,
    Unchecked,
    Verdict,
    verdict_from_json,
    verdict_to_json,
)

GIB = 2**30
MIB = 2**20

LABEL_WIDTH = 16
"""Characters before what is said of something."""

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
      settled: whether asking again would tell the same: not where time ran out, or the compiler.
    """

    verdict: Verdict
    batch_size: int
    largest_batch: int | None = None
    remarks: tuple[Problem, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    settled: bool = True

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
            settled=values["settled"],
        )

    def lines(self) -> list[str]:
        """The report for a person, the verdict first."""
        verdict = self.verdict
        lines = [f"{verdict.accelerator}: {_without_name(verdict)}"]
        if isinstance(verdict, Unchecked):
            lines.append(_labelled("why", verdict.reason))
        if isinstance(verdict, DoesNot):
            lines += [_labelled(_place(problem), f"{problem.message}{_where(problem)}") for problem in verdict.problems]
        if isinstance(verdict, Fits):
            lines += [_memory_line(step, verdict.allowed) for step in verdict.steps]
        lines += [_labelled("note", f"{remark.message}{_where(remark)}") for remark in self.remarks]
        lines += [_number_line(name, self.numbers[name]) for name in _SHOWN if name in self.numbers]
        if isinstance(verdict, Fits):
            lines.append(_labelled("by", f"{verdict.compiler}; {_left_open(verdict)}"))
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
    step, hours = (report.numbers[name].value for name in ("step", "hours"))
    assert step is not None and hours is not None
    gib = f"{verdict.allowed / GIB:.2f} GiB"
    return (
        verdict.accelerator,
        verdict.sentence.split(" for ")[0],
        f"{most / GIB:.2f} GiB",
        gib,
        *map(shown_seconds, (step, hours * 3600)),
    )


def _left_open(verdict: Fits) -> str:
    """What a verdict does not say."""
    if any(isinstance(step, EstimatedStep) for step in verdict.steps):
        return "nobody has compared it with a GPU, whose convolutions take more where they find room"
    return "how it runs and what it computes, only the slice can show"


def _without_name(verdict: Verdict) -> str:
    return verdict.sentence.removesuffix(f" for {verdict.accelerator}")


def _place(problem: Problem) -> str:
    return CALLED.get(problem.step, "run")


def _where(problem: Problem) -> str:
    return f" [{problem.where}]" if problem.where else ""


def _memory_line(step: Step, allowed: int) -> str:
    if isinstance(step, EstimatedStep):
        return _labelled(CALLED[step.name], _estimate(step, allowed))
    memory = step.memory
    parts = {
        "arguments": memory.arguments,
        "outputs": memory.outputs - memory.shared,
        "temporaries": memory.temporaries,
        "code": memory.code,
        "kept beside": step.beside,
    }
    named = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return _labelled(CALLED[step.name], f"takes {_size(step.needed)} of {_size(allowed)} a device: {named}")


def _estimate(step: EstimatedStep, allowed: int) -> str:
    seen = f"run here with {step.tried} of {step.batch} examples" if step.tried < step.batch else "run here"
    return (
        f"takes {_size(step.least)} to {_size(step.needed)} of {_size(allowed)} a GPU: {_size(step.run)} operation by "
        f"operation, {step.error:.0%} more or less ({seen}), {_size(step.compiled)} by XLA, and {_size(step.beside)} "
        "kept beside"
    )


def _labelled(label: str, text: str) -> str:
    return f"  {label}".ljust(LABEL_WIDTH) + text


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.2f} MiB"


def _number_line(name: str, number: Number) -> str:
    label = {"hours": "whole run"}.get(name, name.replace("_", " "))
    if number.value is None:
        return _labelled(label, f"unknown: {number.note}")
    value = shown_seconds(number.value) if number.unit == "s" else f"{_scaled(number.value)} {number.unit}"
    value = shown_seconds(number.value * 3600) if number.unit == "h" else value
    return _labelled(label, f"{value} ({number.kind}): {number.note}")


def _scaled(value: float) -> str:
    for scale, letter in _SCALES:
        if value >= 10 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.4g}"
