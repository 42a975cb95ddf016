"""What a run takes at best: a bound from the work of its compiled steps and the peak rates of the slice. No TensorFlow.

A step can be no faster than its operations at the peak rate of the matrix units, and no faster than its arguments can
be read and its outputs be written at the peak rate of the memory. The compiler counts more bytes, those between the
operations inside; but part of these stay on the chip, so that they bound nothing. Real steps are slower, often by a
factor: this says what cannot be, and not what will be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.accelerators import Slice
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN, CompiledStep, Number


@dataclass(frozen=True)
class Work:
    """How much a run has to do.

    Attributes:
      global_batch: examples a training step or evaluation step.
      steps: of training, in all.
      evaluated: examples of all validations and the test together.
      extracted: examples whose features are computed, if they are.
      extraction_batch: examples of one extraction on the whole slice.
    """

    global_batch: int
    steps: int
    evaluated: int
    extracted: int
    extraction_batch: int


def step_seconds(step: CompiledStep, slice_: Slice) -> float:
    """Seconds that a step takes at least. The fastest published format is assumed, so that it holds for all."""
    device = slice_.device
    moved = step.memory.arguments + step.memory.outputs
    return max(step.flops / max(device.peak_flops.values()), moved / device.bytes_per_second)


def numbers(
    steps: Mapping[str, CompiledStep], slice_: Slice, work: Work, input_rate: Number, kind: str
) -> dict[str, Number]:
    """Time, input rate and price of a run at best.

    Args:
      steps: its compiled steps by name.
      slice_: what they run on.
      work: how often.
      input_rate: examples a second that the input pipeline gave here.
      kind: what an example is, such as "image".
    """
    seconds = {name: step_seconds(step, slice_) for name, step in steps.items()}
    passes = {
        TRAIN: work.steps,
        EVALUATE: math.ceil(work.evaluated / work.global_batch),
        EXTRACT: math.ceil(work.extracted / work.extraction_batch),
    }
    total = sum(passes[name] * each for name, each in seconds.items())
    reading = EXTRACT if EXTRACT in steps else TRAIN
    batch = work.extraction_batch if reading == EXTRACT else work.global_batch
    train = steps[TRAIN]
    counted = train.bytes_accessed / slice_.device.bytes_per_second
    return {
        "flops": Number.measured(train.flops, "FLOP", "a training step on one device, counted by the compiler"),
        "bytes": Number.measured(train.bytes_accessed, "bytes", "the same, to and from memory"),
        "step": Number.bound(
            seconds[TRAIN],
            "s",
            f"a training step takes at least that, and {shown_seconds(counted)} if all bytes that the compiler counts "
            "go through memory",
        ),
        "steps": Number.measured(float(work.steps), "steps", f"of {work.global_batch} {kind}s"),
        "input_needed": Number.bound(
            batch / seconds[reading], f"{kind}s/s", f"so many at most can {_DOING[reading]} use"
        ),
        "input_here": input_rate,
        "hours": Number.bound(total / 3600, "h", "training, evaluation and features at least take that"),
        "price": Number.unknown("US dollars", "python -m launch plan multiplies the hours by the price of the place"),
    }


_DOING = {TRAIN: "training", EXTRACT: "computing features"}


def shown_seconds(seconds: float) -> str:
    """A time that may be very short, as in "34.1 us", "2.5 ms", "12 s" and "3.2 h"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.3g} h"
