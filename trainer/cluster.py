"""Cluster: the strategy, its replicas, and my role among the workers.

`connect` turns `--strategy` into a `tf.distribute.Strategy` before anything is loaded, so that a missing device is
said in a second and not after a download. It must be called before any other use of TensorFlow's devices, because
`--virtual_devices` splits the CPU and TensorFlow allows that only once.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from trainer.config import Config
from trainer.config_errors import batch_size_problem
from trainer.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """Where a run computes.

    Attributes:
      strategy: creates variables in its `scope()` and runs a function on every replica.
      device_type: "CPU" or "GPU", what the replicas are.
      description: what was chosen, for a person, as in "mirrored: 2 virtual CPU replicas".
      hint: how to get more out of this machine, or "".
    """

    strategy: tf.distribute.Strategy
    device_type: str
    description: str
    hint: str = ""

    @property
    def replicas(self) -> int:
        """How many replicas share a global batch."""
        return int(self.strategy.num_replicas_in_sync)

    def replica_batch(self, global_batch: int) -> int:
        """Examples that one replica gets of a global batch.

        Raises:
          UserError: the replicas do not divide the batch.
        """
        if global_batch % self.replicas:
            raise UserError(batch_size_problem(global_batch, self.replicas) + ".")
        return global_batch // self.replicas


def connect(config: Config) -> Cluster:
    """Gets hold of the devices that `--strategy` asks for.

    Raises:
      UserError: the devices are not there, or they do not divide `--batch_size`.
    """
    cluster = _mirrored(config.virtual_devices) if config.strategy == "mirrored" else _best_device()
    cluster.replica_batch(config.batch_size)
    return cluster


def _best_device() -> Cluster:
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        more = f"{len(gpus)} GPUs are here; --strategy=mirrored uses all of them." if len(gpus) > 1 else ""
        return Cluster(tf.distribute.OneDeviceStrategy("/gpu:0"), "GPU", "default: one GPU", more)
    return Cluster(tf.distribute.OneDeviceStrategy("/cpu:0"), "CPU", "default: one CPU replica")


def _mirrored(virtual_devices: int) -> Cluster:
    if virtual_devices:
        names = [device.name for device in _split_cpu(virtual_devices)]
        plural = "s" if virtual_devices > 1 else ""
        description = f"mirrored: {virtual_devices} virtual CPU replica{plural}"
        # The default reduces by collective operations, whose numbers clash when a process makes a second strategy.
        reduction = tf.distribute.ReductionToOneDevice()
        return Cluster(tf.distribute.MirroredStrategy(names, cross_device_ops=reduction), "CPU", description)
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if gpus:
        description = f"mirrored: {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
        return Cluster(tf.distribute.MirroredStrategy(gpus), "GPU", description)
    return Cluster(
        tf.distribute.MirroredStrategy(["/cpu:0"]),
        "CPU",
        "mirrored: no GPU here, so one CPU replica",
        "--virtual_devices=2 tries two replicas here; for GPUs, install the [gpu] extra on a machine with some.",
    )


def _split_cpu(count: int) -> list[tf.config.LogicalDevice]:
    """`count` logical CPU devices, made now or found where the process has already made them."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < count:
        raise UserError(f"--virtual_devices={count}, but this process has already split its CPU into {len(devices)}.")
    return list(devices[:count])
