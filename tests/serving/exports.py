"""Models to classify with: exports as runs leave them, without the run, and a classifier made of a real module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.cluster import connect
from trainer.config import Config
from trainer.export import saved_model
from trainer.preparation import build, prepare
from trainer.records.console import Console


def untrained_export(photos: Path, folder: Path, backbone: str = "convnet", image_size: int = 0) -> Path:
    """The export of a classifier of these class folders, with a head as it is before training."""
    config = Config(data=f"folder:{photos}", backbone=backbone, image_size=image_size, batch_size=8)
    prepared = prepare(config, connect(config), Console(quiet=True))
    saved_model._save_classifier(build(prepared).model, prepared.source.class_names, str(folder))
    return folder


def imagenet_module(feature_vector: Path, head: Path, folder: Path) -> Path:
    """A Hub module that gives the logits of ImageNet's 1001 classes.

    Args:
      feature_vector: folder of MobileNetV2 1.0.
      head: its last layer: "kernel_uint8" with "scale" and "zero_point", and "bias".
      folder: where to save it.
    """
    with np.load(head) as arrays:
        kernel = (arrays["kernel_uint8"] - arrays["zero_point"].astype(np.float32)) * arrays["scale"]
        bias = arrays["bias"]

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = tf.saved_model.load(str(feature_vector))
            self.kernel, self.bias = tf.Variable(kernel, trainable=False), tf.Variable(bias, trainable=False)

        @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32, name="images")])
        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            return self.features(images, training=False) @ self.kernel + self.bias

    tf.saved_model.save(Module(), str(folder))
    return folder
