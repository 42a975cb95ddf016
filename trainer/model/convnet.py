"""The backbone that needs no download: a small convolutional network, trained from scratch.

Nothing in it depends on the other images of a batch (layer norm, no batch norm), so it gives the same result however
a batch is shared by replicas. It is smooth throughout (GELU, average pooling): at the kinks of ReLU and max pooling,
which images of flat background hit exactly, rounding differences would grow a thousandfold within twenty steps.
The feature vector keeps a coarse grid of places rather than one average over the image: new classes are then told
apart better with a frozen network.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import UserError
from trainer.model.backbone import NAME, Backbone

MIN_IMAGE_SIZE = 8
DEFAULT_IMAGE_SIZE = 64
"""Height and width for images that have no size of their own, in pixels: detail enough for simple photos, and still
fast without an accelerator."""

_FIRST_CHANNELS = 32
_CHANNELS = 64
_GRID = 4
"""Height and width, at most, of the map that becomes the feature vector."""

_STRIDED_FROM = 64
"""Images of at least this many pixels are halved by the first layer, which would take most of the time otherwise."""


class ConvNet(Backbone):
    """3x3 convolutions, each with layer norm and GELU, halving the image until it is a grid of 4x4 (or 3x3) places.

    Build it inside `strategy.scope()`. `feature_size` is 1024 (or 576). All of it is trainable.
    """

    def __init__(self, image_size: int, seed: int, dtype: str | keras.DTypePolicy | None = None) -> None:
        """Makes all variables.

        Args:
          image_size: height and width of the images, in pixels, at least 8.
          seed: what the initial weights derive from.
          dtype: a Keras dtype policy, such as "float32", "mixed_bfloat16" or "float64"; None for Keras' default.

        Raises:
          UserError: the images are too small.
        """
        if image_size < MIN_IMAGE_SIZE:
            raise UserError(f"--image_size={image_size}: the built-in network needs at least {MIN_IMAGE_SIZE} pixels.")
        super().__init__(name=NAME, dtype=dtype)
        self.kind = "convnet"
        self.image_size = image_size
        self._pooled: list[bool] = []
        stride = 2 if image_size >= _STRIDED_FROM else 1
        size = -(-image_size // stride)
        self._add_convolution(_FIRST_CHANNELS, seed, stride=stride)
        while size > _GRID:
            self._add_convolution(_CHANNELS, seed, pooled=True)
            size = -(-size // 2)
        self._add_convolution(_CHANNELS, seed)
        self.feature_size = size * size * _CHANNELS
        self.build((None, image_size, image_size, 3))

    def _add_convolution(self, channels: int, seed: int, *, stride: int = 1, pooled: bool = False) -> None:
        number = len(self._pooled)
        self._pooled.append(pooled)
        initializer = keras.initializers.HeNormal(seed=_layer_seed(seed, number))
        convolution = keras.layers.Conv2D(
            channels, 3, stride, "same", kernel_initializer=initializer, dtype=self.dtype_policy, name=f"conv_{number}"
        )
        # Attributes and no lists: a run saves variables by path, but whoever gives the network to `tf.train.Checkpoint`
        # would find none of the layers that Keras keeps in lists.
        setattr(self, f"conv_{number}", convolution)
        setattr(self, f"norm_{number}", keras.layers.LayerNormalization(dtype=self.dtype_policy, name=f"norm_{number}"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the variables of all layers; see `__init__`, which calls it."""
        channels = input_shape[-1]
        for number in range(len(self._pooled)):
            convolution, norm = getattr(self, f"conv_{number}"), getattr(self, f"norm_{number}")
            convolution.build((None, None, None, channels))
            channels = convolution.filters
            norm.build((None, None, None, channels))

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """See `Backbone.call`; `training` makes no difference."""
        activation = inputs
        for number, pooled in enumerate(self._pooled):
            activation = getattr(self, f"norm_{number}")(getattr(self, f"conv_{number}")(activation))
            activation = tf.nn.gelu(activation)
            if pooled:
                activation = tf.nn.avg_pool2d(activation, 2, 2, "SAME")
        # Static where the batch is: a TPU compiles for one shape.
        features = tf.reshape(activation, [-1 if inputs.shape[0] is None else inputs.shape[0], self.feature_size])
        return tf.cast(features, self.variable_dtype)


def _layer_seed(seed: int, layer: int) -> int:
    """An independent seed for each layer of each run."""
    return int(np.random.SeedSequence([seed, layer]).generate_state(1)[0])
