"""TensorFlow's own TPUStrategy on a slice that is not there.

The strategy asks its resolver which TPU cores exist and believes the answer. On a stand-in for a resolver it creates
variables and traces functions exactly as it would on the slice; TensorFlow's soft placement puts the variables on the
CPU. What it traces can be looked at and lowered, but not run: that is what the TPU would be for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

_DEVICE = "/job:localhost/replica:0/task:0/device:TPU:"


def pretend_slice(replicas: int) -> tf.distribute.TPUStrategy:
    """A TPUStrategy for as many TPU cores of one host, none of which needs to exist.

    It changes nothing that other code in the process could see, so that any number of slices, real strategies and
    tests may live beside each other. Variables and datasets made with it are real, and on the CPU.

    Args:
      replicas: how many cores, at least 1; one replica each.

    Raises:
      RuntimeError: TensorFlow's soft placement, which is on unless somebody switched it off, is off.
    """
    if replicas < 1:
        raise ValueError(f"a slice of {replicas} cores")
    if not tf.config.get_soft_device_placement():
        raise RuntimeError("a pretended TPU needs tf.config.set_soft_device_placement(True), TensorFlow's default")
    strategy = tf.distribute.TPUStrategy(_StandInResolver(replicas))
    # A packed variable would be one handle for the copies on all cores, which only cores that exist can hold.
    strategy._enable_packed_variable_in_eager_mode = False
    return strategy


class _Device(NamedTuple):
    """What the strategy reads of a device."""

    name: str
    device_type: str


class _StandInResolver(tf.distribute.cluster_resolver.ClusterResolver):
    """Answers what the strategy asks of a TPUClusterResolver, from memory."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self.task_type = None
        self.task_id = None

    def get_tpu_system_metadata(self) -> tf.tpu.experimental.TPUSystemMetadata:
        return tf.tpu.experimental.TPUSystemMetadata(
            num_cores=self._cores,
            num_hosts=1,
            num_of_cores_per_host=self._cores,
            topology=None,
            devices=tuple(_Device(f"{_DEVICE}{core}", "TPU") for core in range(self._cores)),
        )

    def cluster_spec(self) -> tf.train.ClusterSpec:
        return tf.train.ClusterSpec({})

    def master(self, task_type: Any = None, task_id: Any = None, rpc_layer: Any = None) -> str:
        return ""
