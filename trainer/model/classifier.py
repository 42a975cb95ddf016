"""The model that is trained: a backbone, dropout that does not depend on the replicas, and a dense head."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.model.backbone import Backbone

_HEAD_SEED = 1
_DROPOUT_SEED = 2


class BatchRows(NamedTuple):
    """Which rows of which global batch a replica holds; dropout draws its mask for just those.

    Attributes:
      step: integer scalar tensor, the training step, from 0.
      first_row: integer scalar tensor, the row of the global batch that is the replica's first.
      global_batch: rows of the global batch.
    """

    step: tf.Tensor
    first_row: tf.Tensor
    global_batch: int


def dropout(features: tf.Tensor, rate: float, seed: int, rows: BatchRows) -> tf.Tensor:
    """Drops a share of the features and scales the others up, the same ones however the batch is shared.

    Every replica draws the mask of the whole global batch, a pure function of (seed, step), and takes its rows: this
    costs some random numbers, and one replica of 8 then trains exactly like two of 4.

    Args:
      features: float `[replica batch, d]`.
      rate: share that is dropped, in [0, 1).
      seed: of the run.
      rows: where `features` stand in the global batch.

    Returns:
      Float `[replica batch, d]`.
    """
    key = tf.stack([tf.constant(seed * 4 + _DROPOUT_SEED, tf.int64), tf.cast(rows.step, tf.int64)])
    batch, width = features.shape
    noise = tf.random.stateless_uniform([rows.global_batch, width], key)
    mine = tf.slice(noise, [tf.cast(rows.first_row, tf.int32), 0], [batch, width])
    scale = tf.cast(1.0 / (1.0 - rate), features.dtype)
    return tf.where(mine >= rate, features * scale, tf.zeros_like(features))


class Classifier(keras.Model):
    """Images to logits: backbone, dropout in training, hidden layers, dense head. Create it in `strategy.scope()`."""

    def __init__(self, backbone: Backbone, classes: int, config: Config) -> None:
        """Builds all variables.

        Args:
          backbone: gives the feature vectors; owns its variables.
          classes: how many logits.
          config: `dropout`, `hidden_units`, `max_image_pixels`, `precision`, `resize` and `seed` are used.
        """
        super().__init__(name="classifier")
        self.backbone = backbone
        self.image_input = ImageInput(backbone.image_size, config.resize, config.max_image_pixels)
        self.dropout_rate = config.dropout
        self.seed = config.seed
        self.logits_dtype = "float64" if config.precision == "float64" else "float32"
        self.hidden = [
            _dense(units, f"hidden_{place}", config, _hidden_seed(config.seed, place), activation="relu")
            for place, units in enumerate(config.hidden_units)
        ]
        self.head = _dense(classes, "head", config, config.seed * 4 + _HEAD_SEED)
        width = backbone.feature_size
        for layer in [*self.hidden, self.head]:
            layer.build((None, width))
            width = layer.units
        self.built = True

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        """Inference: float32 pixels `[batch, S, S, 3]` in [0, 1] to logits `[batch, classes]`, see `logits`."""
        return self.logits(self.backbone(pixels, training=False))

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """The head alone: features `[batch, feature_size]` to logits `[batch, classes]`.

        They are float32 whatever the precision, float64 alone keeps its own.
        """
        for layer in self.hidden:
            features = layer(features)
        return tf.cast(self.head(features), self.logits_dtype)

    def training_logits(self, features: tf.Tensor, rows: BatchRows) -> tf.Tensor:
        """As `logits`, with dropout.

        Args:
          features: float `[replica batch, feature_size]`, of the backbone in training mode.
          rows: where they stand in the global batch.

        Returns:
          Logits `[replica batch, classes]`.
        """
        if self.dropout_rate:
            features = dropout(features, self.dropout_rate, self.seed, rows)
        return self.logits(features)


def _dense(units: int, name: str, config: Config, seed: int, activation: str | None = None) -> keras.layers.Dense:
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=initializer, dtype=config.precision, name=name
    )


def _hidden_seed(seed: int, place: int) -> int:
    """Another one for each hidden layer: layers of one shape must not start with the same weights."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
