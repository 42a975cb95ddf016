"""What can be said of a run on GPUs that are not there: an estimate of their memory, with its error.

TensorFlow runs our steps on GPUs operation by operation, so that no compiler lays their memory out beforehand, and the
compiler for NVIDIA's GPUs needs NVIDIA's libraries and a GPU. What the steps take is estimated on the CPU in two ways,
see `trainer.preflight.step_memory`. Where both, with the error to the worse side, stay below what TensorFlow has of
such a GPU, the run fits; where both, with the error to the better side, are above it, it does not; in between it could
not be checked. What a GPU holds whatever the batch is known: where that alone is too much, nothing need be estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from trainer.accelerators import Gpus
from trainer.cluster import Cluster, check_batch
from trainer.config import Config
from trainer.config_errors import batch_size_problem
from trainer.errors import UserError
from trainer.preflight.cache import REPORTS, Cache
from trainer.preflight.gpu_memory import MeasuringError, StepBytes
from trainer.preflight.report import Report
from trainer.preflight.report_key import report_key
from trainer.preflight.step_functions import all_variables, bytes_of, checkpoint_bytes, step_functions
from trainer.preflight.too_large import ON_FEATURES
from trainer.preflight.verdict import (
    CALLED,
    EXTRACT,
    TRAIN,
    DoesNot,
    EstimatedStep,
    Fits,
    Number,
    Problem,
    Unchecked,
    Verdict,
)
from trainer.preparation import Built, Prepared, build, prepare
from trainer.records.console import Console

ERROR = 0.25
"""By how much of what the steps were seen to take the estimate may be wrong. It is a margin and was not measured: on
CPUs the estimate comes to 1.00 to 1.13 of what a step takes (benchmarks/README.md), on GPUs nobody has compared it."""

ESTIMATED_BY = "TensorFlow's allocator and XLA, on this machine's CPU"

_GIB = 2**30

Measure = Callable[[Config], list[StepBytes]]
"""What the steps of a run take, with the batch of one GPU; raises MeasuringError."""


@dataclass(frozen=True)
class Held:
    """What a GPU holds all the time.

    Attributes:
      state: bytes of weights, optimizer state and their copy for a checkpoint.
      exchanged: bytes that gradients take while several GPUs add them up: TensorFlow packs them into one tensor, and
        the sum is another one.
      batches: bytes of a batch, by the names of the steps.
    """

    state: int
    exchanged: int
    batches: Mapping[str, int]

    def beside(self, step: str) -> int:
        """Bytes beside what a step takes, with its batch and one that waits."""
        return self.state + 2 * self.batches[step] + (self.exchanged if step == TRAIN else 0)


def check_gpus(config: Config, gpus: Gpus, measure: Measure, cache: Cache, console: Console) -> Report:
    """The report for a run on GPUs.

    Args:
      config: the run.
      gpus: share its global batch; each holds all of the state.
      measure: finds out what the steps take.
      cache: what was found out before.
      console: is told what takes long.

    Raises:
      UserError: data, module or batch cannot be used at all, or the run asks for TPUs.
    """
    prepared = prepare(*_on_one(config, gpus), console)
    key = report_key(config, prepared, {"gpus": gpus.name, "error": ERROR})
    known = cache.load(REPORTS, key) if key else None
    if known:
        return Report.from_json(known)
    built = build(prepared)
    held = _held(prepared, built, gpus)
    numbers = {"state": Number.bound(float(held.state), "bytes", "that a GPU holds whatever the batch")}
    before = _before_steps(config, gpus, held)
    report = Report(before, config.batch_size, numbers=numbers)
    if isinstance(before, DoesNot) or config.finds_batch_size:
        return report
    console.note(
        "running the steps here with a few examples, and compiling them: a minute, where a large module is trained"
    )
    try:
        found = measure(prepared.config)
    except MeasuringError as error:
        reason = f"What the steps take could not be estimated: {error}. {before.reason}"
        return replace(report, verdict=Unchecked(gpus.name, reason), settled=False)
    steps = [_estimated(step, held) for step in found]
    seconds = {"measure": sum(step.seconds for step in found)}
    report = replace(report, verdict=verdict_of(steps, prepared.config, gpus), seconds=seconds)
    if key:
        cache.save(REPORTS, key, report.to_json())
    return report


def verdict_of(steps: Sequence[EstimatedStep], config: Config, gpus: Gpus) -> Verdict:
    """The verdict on steps whose memory was estimated.

    Args:
      steps: all of a run.
      config: the run, with the batch of one GPU.
      gpus: that share the global batch.
    """
    usable = gpus.model.device.usable_bytes
    if all(step.needed <= usable for step in steps):
        return Fits(gpus.name, ESTIMATED_BY, tuple(steps), usable)
    largest = largest_batch(steps, config, gpus)
    too_large = tuple(
        Problem(step.name, "memory", f"It {_takes(step, usable)}. {_way_out(step, config, gpus, largest)}")
        for step in steps
        if step.least > usable
    )
    if too_large:
        return DoesNot(gpus.name, too_large)
    near = "; ".join(f"{CALLED[step.name]} {_takes(step, usable)}" for step in steps if step.needed > usable)
    fits = f"--batch_size={largest} fits by this estimate, and " if largest else ""
    return Unchecked(gpus.name, f"Too close to tell: {near}. {fits}--batch_size=auto finds out on the GPU.")


def largest_batch(steps: Sequence[EstimatedStep], config: Config, gpus: Gpus) -> int:
    """About the largest global batch that fits by an estimate, 0 where none does.

    It is a round number within an eighth of the largest; what is beside the steps is taken not to grow with it.
    """
    usable, unit = gpus.model.device.usable_bytes, config.smallest_replica_batch
    rows = (
        (usable - step.beside) * step.batch // max(1, step.needed - step.beside)
        for step in steps
        if step.name != EXTRACT
    )
    units = max(0, min(rows)) // unit
    digits = max(0, units.bit_length() - 4)
    return (units >> digits << digits) * unit * gpus.count


def _on_one(config: Config, gpus: Gpus) -> tuple[Config, Cluster]:
    """The run with the batch of one GPU, and the CPU in its place."""
    if config.strategy == "tpu":
        raise UserError(f"--strategy=tpu does not run on {gpus.name}: give --strategy=mirrored, or leave it out.")
    cluster = Cluster(tf.distribute.OneDeviceStrategy("/cpu:0"), "CPU", f"preflight for {gpus.name}")
    if config.finds_batch_size:
        # The batch plays no part in what is held whatever it is, and no model can be built without a number.
        return config.with_batch_size(config.smallest_replica_batch), cluster
    if config.batch_size % gpus.count:
        raise UserError(batch_size_problem(config.batch_size, gpus.count) + ".")
    one = config.with_batch_size(config.batch_size // gpus.count)
    check_batch(one, cluster)
    return one, cluster


def _held(prepared: Prepared, built: Built, gpus: Gpus) -> Held:
    functions = step_functions(prepared, built)
    return Held(
        state=bytes_of(all_variables(built)) + checkpoint_bytes(built),
        exchanged=2 * bytes_of(variable.value for variable in built.optimizer.variables) if gpus.count > 1 else 0,
        batches={
            name: sum(spec.shape.num_elements() * spec.dtype.size for spec in function.batch.values())
            for name, function in functions.items()
        },
    )


def _before_steps(config: Config, gpus: Gpus, held: Held) -> DoesNot | Unchecked:
    """What can be said before anything is known of the steps."""
    usable = gpus.model.device.usable_bytes
    takes = f"eights, optimizer state and their copy for a checkpoint take {_gib(held.state)} of {_gib(usable)}"
    if held.state > usable:
        message = f"W{takes}: take a larger GPU, a smaller --backbone, or keep it frozen."
        return DoesNot(gpus.name, (Problem("", "memory", message),))
    auto = "--batch_size=auto finds the largest batch on the GPU itself"
    return Unchecked(gpus.name, f"{auto}; w{takes}." if config.finds_batch_size else f"W{takes}; {auto}.")


def _estimated(step: StepBytes, held: Held) -> EstimatedStep:
    return EstimatedStep(
        name=step.name,
        batch=step.batch,
        tried=step.trials[-1][0],
        run=step.run,
        compiled=step.compiled,
        error=ERROR,
        beside=held.beside(step.name),
    )


def _takes(step: EstimatedStep, usable: int) -> str:
    least, most = _gib(step.least), _gib(step.needed)
    return f"takes {least} to {most} by estimate, and TensorFlow has {_gib(usable)} of such a GPU"


def _way_out(step: EstimatedStep, config: Config, gpus: Gpus, largest: int) -> str:
    if step.name == EXTRACT:
        return ON_FEATURES
    if not largest:
        return "No batch fits by this estimate: a smaller --image_size or another --backbone needs less."
    again = f" --accumulation_steps={2 * config.accumulation_steps} keeps the batch and needs less."
    return f"--batch_size={largest} fits by this estimate.{again if step.name == TRAIN else ''}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
