"""MultiWorkerMirroredStrategy from a Topology, with as many replicas a worker as we say.

TensorFlow takes the GPUs of each worker or, without any, one CPU. Several CPU replicas a worker exist here alone, for
tests of what several GPUs a worker would do; for that, the one method that picks the devices is overridden.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

from trainer.topology import Topology


class WorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """All workers of a Topology, each with the same number of local replicas; replica ids follow the workers' order.

    Creating it starts TensorFlow's server on this worker's port and waits for the other workers.
    """

    def __init__(self, topology: Topology, device_type: str, local_replicas: int) -> None:
        """Connects to the other workers.

        Args:
          topology: all workers, and which of them this is.
          device_type: "GPU" or "CPU".
          local_replicas: devices of that type to use, on each worker; TensorFlow must have them.
        """
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(topology.cluster),
            task_type=topology.task_type,
            task_id=topology.task_index,
            rpc_layer="grpc",
        )
        # Not the parent's constructor, which leaves no say in the extended object that does the work.
        tf.distribute.Strategy.__init__(self, _LocalDevices(self, resolver, device_type, local_replicas))


class _LocalDevices(CollectiveAllReduceExtended):
    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        resolver: tf.distribute.cluster_resolver.ClusterResolver,
        device_type: str,
        count: int,
    ) -> None:
        self._chosen = (device_type, count)  # Before the parent's constructor, which asks for them.
        super().__init__(
            strategy,
            cluster_resolver=resolver,
            communication_options=tf.distribute.experimental.CommunicationOptions(),
        )

    def _initialize_local_devices(
        self, cluster_resolver: tf.distribute.cluster_resolver.ClusterResolver, worker_device: str
    ) -> tuple[tuple[str, ...], str]:
        device_type, count = self._chosen
        return tuple(f"{worker_device}/device:{device_type}:{index}" for index in range(count)), device_type
