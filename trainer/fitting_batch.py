"""The batch that fits into memory: found before training (`--batch_size=auto`), or named when another did not."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import re
import traceback
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer.cluster import Cluster, check_batch
from trainer.errors import UserError
from trainer.preparation import Built, Prepared, build
from trainer.records.console import Console
from trainer.step_trial import StepTrial
from trainer.storage import RunDirectory
from trainer.training.batch_size import BatchSearch, HostMemory, largest_batch
from trainer.training.resume import config_of_run
from trainer.wording import counted, first_line

MOST_ON_CPU = 256
"""Images of a batch that is found on CPUs, whose memory other programs need too."""

MOST = 2**20
"""Images of any batch; see `--batch_size`."""

SHARE_OF_HOST_MEMORY = 0.5
"""How much of the free memory a step on CPUs may take; workers, which may be on one machine, share that."""

_FIRST = 32
_FIRST_ON_CPU = 8
"""Batches to begin with. A process that asks its machine for too much is killed; a device only says no."""

_SMALLER_MODEL = "a smaller --image_size or another --backbone needs less"


def with_batch_size_of_run(prepared: Prepared, run: RunDirectory, console: Console) -> Prepared:
    """Where `--batch_size=auto`, the same with the batch that the run in this directory began with, if there is one.

    Every worker must call it.

    Raises:
      UserError: its config.json is damaged, or these replicas cannot share that batch.
    """
    config, cluster = prepared.config, prepared.cluster
    if not config.finds_batch_size:
        return prepared
    there = config_of_run(run)
    # As the chief sees it.
    batch_size = int(cluster.gather(np.array([there.batch_size if there else 0]))[0, 0])
    if not batch_size:
        return prepared
    config = config.with_batch_size(batch_size)
    check_batch(config, cluster)
    console.entry("batch", f"auto: {counted(batch_size, 'image')}, as this run began")
    return dataclasses.replace(prepared, config=config)


def with_fitting_batch_size(prepared: Prepared, console: Console) -> Prepared:
    """Where `--batch_size=auto` is still open, the same with the largest batch that fits. Every worker must call it.

    Model and steps are built for the search, and given up again. Of several workers each tries its part alone: what
    runs out of memory in a step of all would leave the others waiting.

    Raises:
      UserError: not even the smallest fits.
    """
    config = prepared.config
    if not config.finds_batch_size:
        return prepared
    console.note("--batch_size=auto: trying which batches fit into memory.")
    batch_size, findings = _found(prepared)
    gc.collect()  # The run builds a model of its own, and needs the room.
    if not batch_size:
        raise UserError(f"--batch_size=auto: {findings}: {_SMALLER_MODEL}.")
    console.entry("batch", f"auto: {counted(batch_size, 'image')}; {findings}")
    return dataclasses.replace(prepared, config=config.with_batch_size(batch_size))


def _found(prepared: Prepared) -> tuple[int, str]:
    """The largest batch that fits, 0 where none does; and what was tried, see `_findings`."""
    cluster, smallest, on_cpu = prepared.cluster, _smallest_batch(prepared), _is_on_cpu(prepared)
    # Looked at before there is a model: what that takes counts.
    memory = HostMemory(SHARE_OF_HOST_MEMORY / cluster.workers) if on_cpu else None
    place, sharing = _place_of_trial(cluster)
    alone = dataclasses.replace(prepared, cluster=place, config=prepared.config.with_batch_size(smallest))
    trial = StepTrial(alone, build(alone))
    search = BatchSearch(lambda batch: trial(batch // sharing), memory=memory, gather=cluster.gather)
    most = min(len(prepared.train), MOST_ON_CPU if on_cpu else MOST)
    found = largest_batch(search, multiple_of=smallest, most=most, first=_FIRST_ON_CPU if on_cpu else _FIRST)
    return found, _findings(search)


@contextlib.contextmanager
def naming_fitting_batch(prepared: Prepared, built: Built) -> Iterator[None]:
    """Says which batch to try when a step inside has not enough memory, if need be by trying.

    Raises:
      UserError: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        # Batches and results that its calls still hold would take the room of those that are tried.
        traceback.clear_frames(error.__traceback__)
        raise UserError(
            f"There is not enough memory for --batch_size={prepared.config.batch_size} ({_allocation(error)}): "
            f"{_advice(prepared, built)}."
        ) from error


@contextlib.contextmanager
def naming_full_memory() -> Iterator[None]:
    """Says what needs less memory when something inside, whatever the batch, has not enough.

    Raises:
      UserError: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"There is not enough memory ({_allocation(error)}): {_SMALLER_MODEL}.") from error


def _advice(prepared: Prepared, built: Built) -> str:
    """What to do after a batch that did not fit, as the end of a sentence."""
    smallest, failed = _smallest_batch(prepared), prepared.config.batch_size
    if failed <= smallest:
        return _SMALLER_MODEL
    pieces = f"--accumulation_steps={2 * prepared.config.accumulation_steps} keeps the batch and needs less for a step"
    half = max(smallest, failed // 2 // smallest * smallest)
    if prepared.cluster.workers > 1:
        return f"half of it, --batch_size={half}, may fit, and {pieces}"
    on_cpu = _is_on_cpu(prepared)
    search = BatchSearch(StepTrial(prepared, built), memory=HostMemory(SHARE_OF_HOST_MEMORY) if on_cpu else None)
    found = largest_batch(search, multiple_of=smallest, most=failed - 1, first=_FIRST_ON_CPU if on_cpu else failed - 1)
    if found:
        return f"the largest to try is --batch_size={found} ({_findings(search)}), and {pieces}"
    if search.untried:
        return f"half of it, --batch_size={half}, may fit, and {pieces}"
    return f"{_findings(search)}, so {_SMALLER_MODEL}"


def _smallest_batch(prepared: Prepared) -> int:
    """Of which all batches must be multiples: see `trainer.cluster.check_batch`."""
    return prepared.cluster.replicas * prepared.config.smallest_replica_batch


def _is_on_cpu(prepared: Prepared) -> bool:
    """Whether steps take their memory from where all programs do."""
    return prepared.cluster.device_type == "CPU"


def _place_of_trial(cluster: Cluster) -> tuple[Cluster, int]:
    """Where this process tries a batch, and among how many such places the global one is shared."""
    if cluster.workers == 1:
        return cluster, 1
    device = cluster.device_type
    place = Cluster(tf.distribute.OneDeviceStrategy(f"/{device.lower()}:0"), device, "one replica, for a trial")
    # Replicas on CPUs share their machine's memory.
    return place, cluster.workers if device == "CPU" else cluster.replicas


def _findings(search: BatchSearch) -> str:
    """What was tried, as in "8, 16 and 32 fit, 64 does not"."""
    parts = []
    if search.fitting:
        parts.append(f"{_enumerated(search.fitting)} {'fits' if len(search.fitting) == 1 else 'fit'}")
    if search.too_large:
        verb = "does not" if len(search.too_large) == 1 else "do not"
        parts.append(f"{_enumerated(search.too_large)} {verb}{'' if search.fitting else ' fit'}")
    if search.untried:
        batch, reason = search.untried
        parts.append(f"{batch} was not tried: {reason}")
    return ", ".join(parts)


def _enumerated(numbers: list[int]) -> str:
    *rest, last = (str(number) for number in sorted(numbers))
    return f"{', '.join(rest)} and {last}" if rest else last


def _allocation(error: tf.errors.ResourceExhaustedError) -> str:
    allocation = re.search(r"OOM when .+", str(error))
    return allocation[0] if allocation else first_line(error)
