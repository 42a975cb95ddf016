"""What a step takes of a device's memory beside what is there all the time, found out on this machine's CPU.

Two ways, which agree on the order of magnitude and seldom on more:

  compiled  XLA compiles the step for the CPU, with its full batch, and says what it would take. Operations that follow
            each other become one, so that less of what lies between them is stored; copies in other layouts are added.
  run       TensorFlow runs the step operation by operation, as it does on a GPU, and its allocator says what it took.
            With oneDNN that is the allocator of GPUs ("BFC"), which rounds sizes up in the same way; blocks of up to
            256 KiB are left out. Large batches are not run: what two smaller ones took goes on in a straight line.

Neither knows a GPU's own kernels: cuDNN's convolutions may take a workspace, where they find room for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from trainer.host_memory import free_memory
from trainer.preflight.step_functions import StepFunction

SMALL_BATCH = 8
"""Examples of the first batch that is run: with fewer, what does not grow with the batch would count too much."""

_MOST_RESERVED = 2**33
_CPU = "CPU:0"
_DUMPED = "preflight_step"
_RUNS = 2


@dataclass(frozen=True)
class Trial:
    """A batch that was run.

    Attributes:
      batch: examples.
      bytes: the most that was in use at once, beside what was there before, such as weights and the batch.
    """

    batch: int
    bytes: int


def xla_flags(folder: str) -> str:
    """What XLA_FLAGS must be when TensorFlow first compiles, for `compiled_bytes` to find XLA's words in a folder."""
    return f"--xla_dump_to={folder} --xla_dump_hlo_module_re=.*{_DUMPED}.*"


def compiled_bytes(name: str, function: StepFunction, strategy: tf.distribute.Strategy, folder: Path) -> int:
    """Bytes that a step takes by XLA, beside its weights and its batch.

    Args:
      name: of the step, which no other in this process has.
      function: the step.
      strategy: of one device.
      folder: that of `xla_flags`.

    Raises:
      tf.errors.OpError, ValueError, NotImplementedError: XLA cannot compile it.
    """
    call = _of_tensors(function, strategy)
    call.__name__ = f"{_DUMPED}_{name}"
    step = tf.function(call, jit_compile=True, autograph=False)
    step.experimental_get_compiler_ir(*_specs(function))(stage="optimized_hlo_serialized", platform_name="CPU")
    (report,) = folder.glob(f"*{_DUMPED}_{name}_*buffer-assignment.txt")
    return assigned_bytes(report.read_text(encoding="utf-8"))


def assigned_bytes(buffer_assignment: str) -> int:
    """Bytes that a program takes beside its parameters.

    Args:
      buffer_assignment: the text that XLA writes, whose lines name "allocation N: size BYTES, …" (TensorFlow 2.20 and
        2.21).

    Raises:
      ValueError: it is another text.
    """
    total = re.search(r"^Total bytes used: (\d+)", buffer_assignment, re.MULTILINE)
    if not total:
        raise ValueError("XLA does not say what the step takes")
    parameters = re.findall(r"^allocation \d+: size (\d+), parameter", buffer_assignment, re.MULTILINE)
    return int(total[1]) - sum(map(int, parameters))


def run_trials(function: StepFunction, strategy: tf.distribute.Strategy, unit: int, trial_bytes: int) -> list[Trial]:
    """Runs a step with one batch or two, none larger than its own; what they took, the smaller first.

    Args:
      function: the step.
      strategy: of one device.
      unit: of which all batches are multiples.
      trial_bytes: a second batch is as large as takes about that, as far as the first one tells.

    Raises:
      tf.errors.OpError: TensorFlow cannot run it on a CPU.
      ValueError: this TensorFlow's allocator does not count.
    """
    _reserve()
    own = rows_of(function)
    small = min(own, unit * math.ceil(SMALL_BATCH / unit))
    trials = [_trial(function, strategy, small)]
    large = min(own, small * max(1, trial_bytes // max(1, trials[0].bytes)))
    if large > small:
        trials.append(_trial(function, strategy, large // unit * unit))
    return trials


def rows_of(function: StepFunction) -> int:
    """Examples of its batch."""
    return int(next(iter(function.batch.values())).shape[0])


def _trial(function: StepFunction, strategy: tf.distribute.Strategy, rows: int) -> Trial:
    step = tf.function(_of_tensors(function, strategy), autograph=False)
    batch = [tf.zeros(spec.shape, spec.dtype) for spec in _specs(function, rows)]
    before = tf.config.experimental.get_memory_info(_CPU)["current"]
    tf.config.experimental.reset_memory_stats(_CPU)
    for _ in range(_RUNS):
        for value in tf.nest.flatten(step(*batch)):
            value.numpy()
    return Trial(rows, tf.config.experimental.get_memory_info(_CPU)["peak"] - before)


def _reserve() -> None:
    """Has the allocator take one large region, as on a GPU, where it then has its way. None of it is touched here."""
    region = min(_MOST_RESERVED, free_memory() // 2)
    tf.raw_ops.Empty(shape=[region], dtype=tf.uint8, init=False)


def _of_tensors(function: StepFunction, strategy: tf.distribute.Strategy) -> Callable[..., Any]:
    """The step on one device, for the tensors of its batch in the order of their names."""
    names = sorted(function.batch)

    def step(*tensors: tf.Tensor) -> Any:
        return strategy.run(function.call, args=(dict(zip(names, tensors)),))

    return step


def _specs(function: StepFunction, rows: int | None = None) -> list[tf.TensorSpec]:
    """Of the batch, in the order of names; with another number of examples if one is given."""
    specs = [function.batch[name] for name in sorted(function.batch)]
    return [tf.TensorSpec([rows or spec.shape[0], *spec.shape[1:]], spec.dtype) for spec in specs]
