"""Picks the extractor for the devices of a run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.cluster import Cluster
from trainer.features.extractors import (
    ACCELERATOR_BATCH,
    CPU_BATCH,
    LEAST_COSINE,
    TEXT_BATCH,
    ConstantsExtractor,
    Elements,
    Extractor,
    Pixels,
    StrategyExtractor,
    TextExtractor,
    cosines,
    traced,
)
from trainer.features.tflite import NotConvertibleError, TfliteExtractor, converted
from trainer.model.backbone import HubBackbone
from trainer.model.hub import HubModule
from trainer.processors import processors
from trainer.storage import RunDirectory


class Engine:
    """Makes the fastest extractor that gives the features of the module, when the first examples are there.

    Attributes:
      batch: how many examples an extractor will take at once.
    """

    def __init__(
        self,
        cluster: Cluster,
        backbone: HubBackbone,
        load: Callable[[], HubModule],
        folder: RunDirectory,
        report: Callable[[str], None],
    ) -> None:
        """Notes what is to be had.

        Args:
          cluster: the run's devices.
          backbone: the run's own, built in the scope of its strategy.
          load: loads the module once more, in the scope that it is called in.
          folder: where the converted module is kept.
          report: is told why the fastest engine cannot be used.
        """
        self._cluster = cluster
        self._backbone = backbone
        self._load = load
        self._folder = folder
        self._report = report
        self._extractor: Extractor | None = None
        replicas = cluster.replicas if cluster.device_type == "TPU" else 1
        self.batch = CPU_BATCH if cluster.device_type == "CPU" else ACCELERATOR_BATCH * replicas
        self._takes_texts = backbone.image_size is None
        if self._takes_texts:
            self.batch = TEXT_BATCH

    @property
    def name(self) -> str:
        """What computes, for a person; known once there is an extractor."""
        return self._extractor.name if self._extractor else "nothing yet"

    def extractor(self, probe: Elements) -> Extractor:
        """The same at every call.

        Args:
          probe: a batch, which engines are compared on.

        Raises:
          UserError: the module cannot be loaded again, or the folder not be written.
        """
        if self._extractor is None:
            self._extractor = self._choose(probe)
        return self._extractor

    def _choose(self, probe: Elements) -> Extractor:
        if self._takes_texts:
            return TextExtractor(self._plain_module())
        if self._cluster.device_type == "TPU":
            return StrategyExtractor(self._backbone, self._cluster)
        module = self._plain_module()
        if self._cluster.device_type == "GPU":
            gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
            return ConstantsExtractor(module, gpus, self.batch)
        try:
            return self._agreeing_tflite(module, probe)
        except NotConvertibleError as reason:
            self._report(f"TensorFlow computes the features, because TFLite does not take this module ({reason}).")
        except _DisagreementError as difference:
            self._report(f"TensorFlow computes the features, because TFLite's differ too much ({difference}).")
        return ConstantsExtractor(module, ["/cpu:0"], self.batch)

    def _plain_module(self) -> HubModule:
        """The module on CPU, with variables that a converter understands."""
        if self._cluster.has_plain_variables:
            return self._backbone.hub_module
        with tf.device("/cpu:0"):
            return self._load()

    def _agreeing_tflite(self, module: HubModule, probe: Pixels) -> TfliteExtractor:
        function = traced(module, CPU_BATCH)
        tflite = TfliteExtractor(converted(module, function, self._folder), processors())
        with tf.device("/cpu:0"):
            expected = function(tf.constant(probe)).numpy()
        least = float(np.min(cosines(tflite(probe), expected)))
        if not least > LEAST_COSINE:
            raise _DisagreementError(f"cosine similarity {least:.6f}; {LEAST_COSINE} is the least")
        return tflite


class _DisagreementError(Exception):
    """Two engines give different features; says how different."""
