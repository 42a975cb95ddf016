"""From pixels or texts to features, the fastest way that the devices at hand offer.

    TFLite       CPUs: the module converted, run by XNNPACK; only if its features agree with TensorFlow's
    constants    GPUs, and CPUs where that fails: the module with its variables frozen to constants
    as loaded    texts, on the CPU whatever the run's devices: only there are tables and strings
    strategy     TPUs: the module itself, compiled for all cores

All take and give the same, and what they say of an example does not depend on what else is in its batch.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.data.images import unit_range
from trainer.data.texts import build_model_input
from trainer.model.backbone import Backbone
from trainer.model.hub import HubModule

CPU_BATCH = 8
"""Images at once on a CPU: the intermediate results of MobileNetV2 at 224 pixels then stay near its caches. On two
cores, 8 was as fast as 4 and faster than 32 (2026-11)."""

ACCELERATOR_BATCH = 256
"""Images at once on each GPU or TPU core: enough for their matrix units, and under 1 GiB for the common modules."""

TEXT_BATCH = 256
"""Texts at once: looking words up is little work, so a call must have many of them."""

LEAST_COSINE = 0.9999
"""How like TensorFlow's the features of another engine must be, on every image of a probe."""

Elements = NDArray[Any]
"""A batch as the input pipeline gives it: uint8 `[batch, S, S, 3]`, or texts as bytes `[batch]`."""

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]


class Extractor(Protocol):
    """Computes feature vectors.

    Attributes:
      name: for a person.
      batch: how many examples each call takes.
      calls_at_once: how many threads may call it, and keep the devices busy.
    """

    name: str
    batch: int
    calls_at_once: int

    def __call__(self, elements: Elements, /) -> Features:
        """A batch to float32 `[batch, feature_size]`."""


class TextExtractor:
    """A text module as it was loaded: as constants its vocabulary may be larger than a graph can be (2 GiB)."""

    name = "TensorFlow"
    batch = TEXT_BATCH
    calls_at_once = 1

    def __init__(self, module: HubModule) -> None:
        """Traces the module, which was loaded on the CPU, outside of any strategy."""
        self._run = traced(module, TEXT_BATCH)

    def __call__(self, elements: Elements) -> Features:
        """See `Extractor`."""
        with tf.device("/cpu:0"):
            features: Features = self._run(tf.constant(elements, tf.string)).numpy()
        return features


class ConstantsExtractor:
    """The module with its variables frozen to constants, on CPU or on all GPUs of this process in turn."""

    name = "TensorFlow"

    def __init__(self, module: HubModule, devices: Sequence[str], batch: int) -> None:
        """Traces the module.

        Args:
          module: loaded outside of any strategy.
          devices: names of local devices, such as "/cpu:0".
          batch: images a call.
        """
        self.batch = batch
        self.calls_at_once = len(devices)
        self._run = _frozen(traced(module, batch), module)
        self._devices = itertools.cycle(devices)
        self._choosing = threading.Lock()

    def __call__(self, pixels: Pixels) -> Features:
        """See `Extractor`."""
        with self._choosing:
            device = next(self._devices)
        with tf.device(device):
            features: Features = self._run(tf.constant(pixels)).numpy()
        return features


class ExtractionStep:
    """What each replica of a TPU does with its images. Call it through `strategy.run`."""

    def __init__(self, backbone: Backbone) -> None:
        """Binds the step to a backbone, built in the strategy's scope."""
        self._backbone = backbone

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """Uint8 `[ACCELERATOR_BATCH, S, S, 3]` to features, float `[ACCELERATOR_BATCH, feature_size]`."""
        return self._backbone(unit_range(pixels), training=False)


class StrategyExtractor:
    """The run's own backbone on all replicas of its strategy: what a TPU needs."""

    calls_at_once = 1

    def __init__(self, backbone: Backbone, cluster: Cluster) -> None:
        """Compiles the backbone.

        Args:
          backbone: built in the strategy's scope.
          cluster: of one process.
        """
        self.name = f"{cluster.replicas} {cluster.device_type} replicas"
        self.batch = ACCELERATOR_BATCH * cluster.replicas
        self._strategy = strategy = cluster.strategy
        step = tf.autograph.experimental.do_not_convert(ExtractionStep(backbone))

        @tf.function
        def run(pixels: tf.distribute.DistributedValues) -> tf.Tensor:
            features = strategy.run(step, args=(pixels,))
            return strategy.gather(features, axis=0)

        self._run = run

    def __call__(self, pixels: Pixels) -> Features:
        """See `Extractor`."""

        def share(context: tf.distribute.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group * ACCELERATOR_BATCH
            return tf.constant(pixels[first : first + ACCELERATOR_BATCH])

        by_replica = self._strategy.experimental_distribute_values_from_function(share)
        return np.asarray(self._run(by_replica), np.float32)


def traced(module: HubModule, batch: int) -> tf.types.experimental.ConcreteFunction:
    """The module in inference: uint8 `[batch, S, S, 3]`, or string `[batch]`, to float32 `[batch, feature_size]`."""
    taken = build_model_input(module.image_size)

    @tf.function(input_signature=[tf.TensorSpec([batch, *taken.element.shape], taken.element.dtype)])
    def extract(elements: tf.Tensor) -> tf.Tensor:
        return module.apply(taken.for_module(elements), False)

    return extract.get_concrete_function()


def extract_all(extractor: Extractor, batches: Iterable[Elements], take: Callable[[Features], None]) -> None:
    """Runs batches through an extractor, as many at once as it can use, and hands on the results in their order.

    Args:
      extractor: what computes.
      batches: of examples.
      take: called with float32 `[batch, feature_size]`, batch by batch.
    """
    waiting: list = []
    with ThreadPoolExecutor(extractor.calls_at_once, "extract") as threads:
        for elements in batches:
            waiting.append(threads.submit(extractor, elements))
            if len(waiting) > extractor.calls_at_once:
                take(waiting.pop(0).result())
        for result in waiting:
            take(result.result())


def cosines(one: Features, other: Features) -> NDArray[np.float64]:
    """The cosine of the angle between each two vectors, float64 `[n]`; 1 where both are zero, NaN without numbers."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))


def _frozen(function: tf.types.experimental.ConcreteFunction, module: HubModule) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function without variables: their values become part of the graph, which can then be simplified."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if module.kind == "tf1":
        return function
    frozen = convert_variables_to_constants_v2(function)
    return lambda pixels: frozen(pixels)[0]
