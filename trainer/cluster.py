"""Cluster: the strategy, its replicas, and my role among the workers.

`connect` turns `--strategy` into a `tf.distribute.Strategy` before anything is loaded, so that a missing device is
said in a second and not after a download. It must be called before any other use of TensorFlow's devices, because
`--virtual_devices` splits the CPU and several workers connect only once in a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import Config
from trainer.config_errors import batch_size_problem
from trainer.errors import UserError
from trainer.stop_request import keeping_handlers
from trainer.topology import Topology, bypass_proxy, split_address
from trainer.wording import counted
from trainer.worker_strategy import WorkerStrategy

_SIGNS_OF_A_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
"""What collective operations raise when a peer's process is gone (TensorFlow 2.20 and 2.21)."""


@dataclass(frozen=True)
class Cluster:
    """Where a run computes.

    Attributes:
      strategy: creates variables in its `scope()` and runs a function on every replica.
      device_type: "CPU", "GPU" or "TPU", what the replicas are.
      description: what was chosen, for a person, as in "mirrored: 2 virtual CPU replicas".
      hint: how to get more out of this machine, or "".
      topology: the workers and which of them this process is; None where there is one process.
    """

    strategy: tf.distribute.Strategy
    device_type: str
    description: str
    hint: str = ""
    topology: Topology | None = None

    def __post_init__(self) -> None:
        # All our batches are whole. TensorFlow would prepare for others where several hosts read: give shapes no static
        # size, and ask all workers at each step whether there is a next batch.
        self.strategy.extended.experimental_enable_get_next_as_optional = False

    @property
    def replicas(self) -> int:
        """How many replicas share a global batch."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def workers(self) -> int:
        """How many processes train together, each with its own replicas and its own input."""
        return len(self.topology.workers) if self.topology and self.topology.trains else 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.topology is None or self.topology.is_chief

    @property
    def worker_index(self) -> int:
        """Which of the workers this process is, from 0."""
        return self.topology.index if self.topology and self.topology.trains else 0

    @property
    def has_plain_variables(self) -> bool:
        """Whether the model's variables are on this process's CPU and are what they would be without a strategy.

        Such a model can be converted and saved as it is; another must be loaded once more for that.
        """
        return self.device_type == "CPU" and isinstance(self.strategy, tf.distribute.OneDeviceStrategy)

    def distribute(
        self, of_one_pipeline: Callable[[tf.distribute.InputContext], tf.data.Dataset]
    ) -> tf.distribute.DistributedDataset | tf.data.Dataset:
        """Batches for the replicas of this process.

        Args:
          of_one_pipeline: from a share of the replicas to their batches, one after the other.

        Returns:
          What an iterator gives a batch for each replica of. One CPU replica reads its pipeline itself: a distributed
          iterator would hand it each batch through a thread of its own, which costs some percent of a short step.
        """
        if self.device_type == "CPU" and self.replicas == self.workers:
            return of_one_pipeline(tf.distribute.InputContext(self.workers, self.worker_index, self.replicas))
        return self.strategy.distribute_datasets_from_function(of_one_pipeline)

    def replica_batch(self, global_batch: int) -> int:
        """Examples that one replica gets of a global batch.

        Raises:
          UserError: the replicas do not divide the batch.
        """
        if global_batch % self.replicas:
            raise UserError(batch_size_problem(global_batch, self.replicas) + ".")
        return global_batch // self.replicas

    def gather(self, values: NDArray) -> NDArray[np.float64]:
        """What each worker gave, in their order: float64 `[workers, ...]`. Every worker must call it, in step.

        Args:
          values: an array of the same shape on every worker; integers up to 2**53 come through exactly.
        """
        if self.workers == 1:
            return np.asarray(values, np.float64)[np.newaxis]
        flat = np.asarray(values, np.float64).reshape(-1)
        by_replica = self._gather(tf.constant(flat)).numpy().reshape(self.replicas, len(flat))
        return by_replica[:: self.replicas // self.workers].reshape(self.workers, *np.shape(values))

    @cached_property
    def _gather(self) -> tf.types.experimental.GenericFunction:
        return _compiled_gather(self.strategy)

    def lost_worker(self, error: Exception) -> bool:
        """Whether an error is how TensorFlow tells that another worker is gone."""
        return self.workers > 1 and isinstance(error, _SIGNS_OF_A_LOST_WORKER)

    def barrier(self) -> None:
        """Waits until every worker is here."""
        self.gather(np.zeros(1))


def connect(config: Config, topology: Topology | None = None) -> Cluster:
    """Gets hold of the devices that `--strategy` asks for.

    Args:
      config: its fields on where the run computes.
      topology: who the workers are, for `--strategy=multi_worker`.

    Raises:
      UserError: the devices are not there, or they do not divide `--batch_size`.
    """
    if config.strategy == "multi_worker" and topology and topology.trains:
        cluster = _workers(config, topology)
    elif config.strategy == "mirrored":
        cluster = _mirrored(config.virtual_devices)
    elif config.strategy == "tpu":
        cluster = _tpu(config)
    else:
        cluster = _best_device(topology)
        if topology:  # The evaluator computes alone: the workers' batch is none of its business.
            return cluster
    check_batch(config, cluster)
    return cluster


def check_batch(config: Config, cluster: Cluster) -> None:
    """Makes sure that the batch can be cut as the replicas, `--accumulation_steps` and the mixing of pairs need it.

    Raises:
      UserError: it cannot.
    """
    pieces, rows = config.accumulation_steps, cluster.replica_batch(config.batch_size)
    if rows % pieces:
        raise UserError(
            f"--accumulation_steps={pieces} does not divide the {rows} images that a replica gets of "
            f"--batch_size={config.batch_size}: choose two that go together."
        )
    if config.mixes_images and (rows // pieces) % 2:
        raise UserError(
            f"--mixup and --cutmix pair images, and {rows // pieces} at a time on a replica is odd: choose another "
            f"--batch_size than {config.batch_size} or other --accumulation_steps than {pieces}."
        )


def check_tpu_precision(config: Config) -> None:
    """Makes sure that TPUs compute in the format that is asked for.

    Raises:
      UserError: they do not, or only in an emulation.
    """
    if config.precision in ("float64", "mixed_float16"):
        raise UserError(
            f"--precision={config.precision}: TPUs compute in float32 or mixed_bfloat16; take one of these."
        )


def _best_device(topology: Topology | None) -> Cluster:
    kind = "evaluator" if topology else "default"
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        more = f"{len(gpus)} GPUs are here; --strategy=mirrored uses all of them." if len(gpus) > 1 else ""
        return Cluster(tf.distribute.OneDeviceStrategy("/gpu:0"), "GPU", f"{kind}: one GPU", more, topology)
    return Cluster(tf.distribute.OneDeviceStrategy("/cpu:0"), "CPU", f"{kind}: one CPU replica", "", topology)


def _mirrored(virtual_devices: int) -> Cluster:
    if virtual_devices:
        _split_cpu(virtual_devices)
        names = [device.name for device in _virtual_cpus(virtual_devices)]
        # The default reduces by collective operations, whose numbers clash when a process makes a second strategy.
        reduction = tf.distribute.ReductionToOneDevice()
        return Cluster(
            tf.distribute.MirroredStrategy(names, cross_device_ops=reduction),
            "CPU",
            f"mirrored: {counted(virtual_devices, 'virtual CPU replica')}",
        )
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if gpus:
        return Cluster(tf.distribute.MirroredStrategy(gpus), "GPU", f"mirrored: {counted(len(gpus), 'GPU')}")
    return Cluster(
        tf.distribute.MirroredStrategy(["/cpu:0"]),
        "CPU",
        "mirrored: no GPU here, so one CPU replica",
        "--virtual_devices=2 tries two replicas here; for GPUs, install the [gpu] extra on a machine with some.",
    )


def _workers(config: Config, topology: Topology) -> Cluster:
    # Nothing here may list logical devices before the workers are connected: that would start TensorFlow without them.
    gpus = [] if config.virtual_devices else tf.config.list_physical_devices("GPU")
    local = len(gpus) or config.virtual_devices or 1
    replicas = local * len(topology.workers)
    if config.batch_size % replicas:
        raise UserError(batch_size_problem(config.batch_size, replicas) + ".")
    if config.virtual_devices:
        _split_cpu(config.virtual_devices)
    bypass_proxy([split_address(address)[0] for address in topology.workers], os.environ)
    kind = "GPU" if gpus else "virtual CPU replica" if config.virtual_devices else "CPU replica"
    with keeping_handlers():
        strategy = WorkerStrategy(topology, "GPU" if gpus else "CPU", local)
    return Cluster(
        strategy,
        "GPU" if gpus else "CPU",
        f"multi_worker: {topology.name} of {counted(len(topology.workers), 'worker')}, {counted(local, kind)} each",
        topology=topology,
    )


def _tpu(config: Config) -> Cluster:
    check_tpu_precision(config)
    from trainer.tpu import connect_tpu

    strategy = connect_tpu(config.tpu)
    return Cluster(strategy, "TPU", f"tpu: {counted(strategy.num_replicas_in_sync, 'core')} of {config.tpu}")


def _split_cpu(count: int) -> None:
    """Makes `count` logical CPU devices, unless the process has already split its CPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _virtual_cpus(count: int) -> list[tf.config.LogicalDevice]:
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < count:
        raise UserError(f"--virtual_devices={count}, but this process has already split its CPU into {len(devices)}.")
    return list(devices[:count])


def _compiled_gather(strategy: tf.distribute.Strategy) -> tf.types.experimental.GenericFunction:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def gather(values: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(tf.identity, args=(values,)), axis=0)

    return gather
