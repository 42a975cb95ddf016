"""What preflight says of one run on one accelerator: fits, does not, or could not be checked. No TensorFlow.

`Fits` cannot be made without what the compiler said of every step, so that no lack of knowledge comes out as one.
It says "compiles and fits", never "runs": that nobody can know without the accelerator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainer.errors import EXIT_DONE, EXIT_USER

EXIT_UNCHECKED = 3
"""Preflight could not find out; see the reason that it prints."""

TRAIN, EVALUATE, EXTRACT = "train", "evaluate", "extract"
"""The programs of a run: a training step, an evaluation step, and the features of some images (frozen modules)."""

CALLED = {TRAIN: "training", EVALUATE: "evaluation", EXTRACT: "features"}
"""The steps for a person."""

Kind = Literal["measured", "bound", "unknown"]
"""How a number was had: measured (here, or counted by the compiler); a bound that reality does not beat; not at all."""


@dataclass(frozen=True)
class Number:
    """A number and how it was had.

    Attributes:
      value: None where it is unknown.
      unit: such as "bytes" or "images/s".
      kind: see `Kind`; "unknown" exactly where there is no value.
      note: of what it is, or why it is unknown.
    """

    value: float | None
    unit: str
    kind: Kind
    note: str = ""

    def __post_init__(self) -> None:
        """Makes sure that what is unknown has no value, and nothing else lacks one."""
        if (self.value is None) != (self.kind == "unknown"):
            raise ValueError(f"{self.kind} with the value {self.value}")

    @classmethod
    def measured(cls, value: float, unit: str, note: str = "") -> Number:
        """One that was measured or counted."""
        return cls(value, unit, "measured", note)

    @classmethod
    def bound(cls, value: float, unit: str, note: str = "") -> Number:
        """One that reality does not beat."""
        return cls(value, unit, "bound", note)

    @classmethod
    def unknown(cls, unit: str, note: str) -> Number:
        """One that was not to be had; the note says why."""
        return cls(None, unit, "unknown", note)


@dataclass(frozen=True)
class Memory:
    """What a compiled step takes of a device's memory, in bytes, as the compiler laid it out.

    Attributes:
      arguments: weights, optimizer state and the batch.
      outputs: what the step gives, new weights included.
      shared: outputs that take the place of arguments.
      temporaries: what lives during the step, such as activations.
      code: the compiled program.
    """

    arguments: int
    outputs: int
    shared: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.arguments + self.outputs - self.shared + self.temporaries + self.code


@dataclass(frozen=True)
class CompiledStep:
    """A step that the accelerator's own compiler took.

    Attributes:
      name: TRAIN, EVALUATE or EXTRACT.
      memory: of one device.
      beside: bytes that the run keeps on the device meanwhile, and that the step does not touch.
      flops: floating-point operations of one device in a step.
      bytes_accessed: to and from its memory.
      seconds: that the compiler took.
    """

    name: str
    memory: Memory
    beside: int
    flops: float
    bytes_accessed: float
    seconds: float

    @property
    def needed(self) -> int:
        """Bytes of the device's memory while the step runs."""
        return self.memory.total + self.beside


@dataclass(frozen=True)
class EstimatedStep:
    """A step whose memory was estimated, on other devices than those that it is for.

    Attributes:
      name: TRAIN, EVALUATE or EXTRACT.
      batch: examples on a device.
      tried: of how many at most it was run here.
      run: bytes that it takes beside the rest, operation by operation, extended from what was run.
      compiled: the same by XLA.
      error: share by which `run` may be wrong.
      beside: bytes that are there all the time: weights, optimizer state, its copy for a checkpoint, two batches, and
        what several devices exchange.
    """

    name: str
    batch: int
    tried: int
    run: int
    compiled: int
    error: float
    beside: int

    @property
    def least(self) -> int:
        """Bytes of a device's memory that it takes if all errs on one side."""
        return self.beside + min(self.compiled, int(self.run * (1 - self.error)))

    @property
    def needed(self) -> int:
        """Bytes that it takes if all errs on the other side."""
        return self.beside + max(self.compiled, math.ceil(self.run * (1 + self.error)))


Step = CompiledStep | EstimatedStep


@dataclass(frozen=True)
class Problem:
    """Something that speaks against a run.

    Attributes:
      step: the program it was found in; "" where it is about all.
      rule: such as "host", see `trainer.preflight.readiness`; or "memory", or "compiler".
      message: a sentence on what it is and what to change.
      where: the line of code that made it, such as "trainer/training/step.py:120", or the operation; "" unknown.
    """

    step: str
    rule: str
    message: str
    where: str = ""


@dataclass(frozen=True)
class Fits:
    """No step takes more memory than there is: the accelerator's own compiler says so, or an estimate with its error.

    Attributes:
      accelerator: such as "v5litepod-8".
      compiler: what compiled, such as "libtpu 0.0.51".
      steps: what it made of them.
      allowed: bytes of a device's memory that may be used.
    """

    accelerator: str
    compiler: str
    steps: tuple[Step, ...]
    allowed: int
    word = "fits"
    exit_code = EXIT_DONE

    def __post_init__(self) -> None:
        """Refuses to be made without the evidence."""
        missing = {TRAIN, EVALUATE} - {step.name for step in self.steps}
        if missing:
            raise ValueError(f"nobody compiled {', '.join(sorted(missing))}")
        if not self.compiler:
            raise ValueError("no compiler is named")
        if any(step.needed > self.allowed for step in self.steps):
            raise ValueError("a step needs more memory than there is")

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        compiled = all(isinstance(step, CompiledStep) for step in self.steps)
        return f"{'compiles and fits' if compiled else 'fits by estimate'} for {self.accelerator}"


@dataclass(frozen=True)
class DoesNot:
    """A step does not compile for the accelerator, or does not fit.

    Attributes:
      accelerator: such as "v5litepod-8".
      problems: why, and what to change; at least one.
    """

    accelerator: str
    problems: tuple[Problem, ...]
    word = "does not"
    exit_code = EXIT_USER

    def __post_init__(self) -> None:
        """Refuses to be made without a reason."""
        if not self.problems:
            raise ValueError("no reason")

    @property
    def sentence(self) -> str:
        """The verdict for a person; the problems say the rest."""
        does = "fit" if all(problem.rule == "memory" for problem in self.problems) else "compile"
        return f"does not {does} for {self.accelerator}"


@dataclass(frozen=True)
class Unchecked:
    """Nobody knows.

    Attributes:
      accelerator: such as "v5litepod-8".
      reason: a sentence on why, and on what would help.
    """

    accelerator: str
    reason: str
    word = "could not be checked"
    exit_code = EXIT_UNCHECKED

    def __post_init__(self) -> None:
        """Refuses to be made without a reason."""
        if not self.reason:
            raise ValueError("no reason")

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        return f"could not be checked for {self.accelerator}"


Verdict = Fits | DoesNot | Unchecked


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a JSON object: "verdict" is one of three words, the rest are its attributes."""
    return {"verdict": verdict.word, "exit_code": verdict.exit_code, "sentence": verdict.sentence, **asdict(verdict)}


def verdict_from_json(values: Mapping[str, Any]) -> Verdict:
    """What `verdict_to_json` wrote.

    Raises:
      ValueError: it is none, or lacks the evidence for what it says.
    """
    try:
        word, accelerator = values["verdict"], values["accelerator"]
        if word == Fits.word:
            return Fits(accelerator, values["compiler"], tuple(map(_step, values["steps"])), values["allowed"])
        if word == DoesNot.word:
            return DoesNot(accelerator, tuple(Problem(**problem) for problem in values["problems"]))
        if word == Unchecked.word:
            return Unchecked(accelerator, values["reason"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no verdict: {error}") from None
    raise ValueError(f"no verdict: {json.dumps(word)}")


def combined_exit_code(verdicts: list[Verdict]) -> int:
    """The exit code of several: 0 only where all fit, 2 where one does not, 3 where one could not be checked."""
    codes = {verdict.exit_code for verdict in verdicts}
    if EXIT_USER in codes:
        return EXIT_USER
    return EXIT_DONE if codes == {EXIT_DONE} else EXIT_UNCHECKED


def _step(values: Mapping[str, Any]) -> Step:
    if "memory" not in values:
        return EstimatedStep(**values)
    return CompiledStep(**{**values, "memory": Memory(**values["memory"])})
