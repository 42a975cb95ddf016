"""What can be said of a run on a GPU that is not there: little, and that for certain.

TensorFlow runs our steps on GPUs operation by operation, so that no compiler lays out their memory beforehand, and the
compiler for NVIDIA's GPUs needs NVIDIA's libraries and a GPU. XLA's layout for CPUs says nothing that could be relied
on: it has other convolutions with other temporaries. What a GPU must hold whatever the batch is known: the weights, the
optimizer's state, and the copy that a checkpoint is written from. Where that alone is too much, the run cannot fit.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.accelerators import Gpu
from trainer.cluster import Cluster
from trainer.config import Config
from trainer.errors import UserError
from trainer.preflight.report import Report
from trainer.preflight.steps import all_variables, bytes_of
from trainer.preflight.verdict import DoesNot, Number, Problem, Unchecked
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.training.state import TrainingState

_GIB = 2**30


def check_gpu(config: Config, gpu: Gpu, console: Console | None = None) -> Report:
    """The report for a GPU, which never says that a run fits.

    Args:
      config: the run.
      gpu: one of those that it runs on; each holds all of the state.
      console: is told how a long look through the images goes.

    Raises:
      UserError: data or module cannot be used at all, or the run asks for TPUs.
    """
    if config.strategy == "tpu":
        raise UserError(f"--strategy=tpu does not run on {gpu.name}: give --strategy=mirrored, or leave it out.")
    if config.finds_batch_size:
        # The batch plays no part in what is held whatever it is, and no model can be built without a number.
        config = config.with_batch_size(2)
    cluster = Cluster(tf.distribute.OneDeviceStrategy("/cpu:0"), "CPU", f"preflight for {gpu.name}")
    built = build(prepare(config, cluster, console or Console(quiet=True)))
    state = bytes_of(all_variables(built)) + bytes_of(TrainingState(built.model, built.optimizer).variables)
    has = gpu.device.hbm_bytes
    held = f"weights, optimizer state and their copy for a checkpoint take {_gib(state)} of {_gib(has)}"
    numbers = {
        "state": Number.bound(float(state), "bytes", "that a GPU holds whatever the batch"),
        "memory": Number.unknown("bytes", "what the steps take besides shows on the GPU alone"),
    }
    if state > has:
        message = f"{held[0].upper()}{held[1:]}: take a larger GPU, a smaller --backbone, or keep it frozen."
        return Report(DoesNot(gpu.name, (Problem("", "memory", message),)), config.batch_size, numbers=numbers)
    reason = (
        f"Without a GPU nobody can tell what the steps take; {held}. --batch_size=auto finds the largest batch there."
    )
    return Report(Unchecked(gpu.name, reason), config.batch_size, numbers=numbers)


def _gib(size: int) -> str:
    return f"{size / _GIB:.3f} GiB"
