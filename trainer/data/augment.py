"""Random changes to training images; what happens to an image depends on its seed alone."""

from __future__ import annotations

import math
from collections.abc import Collection

import tensorflow as tf

from trainer.data.images import ImageInput, to_size
from trainer.data.randaugment import randaugment

SMALLEST_CROP = 1 / 3
"""Least part of the area that a crop keeps."""

CROP_ASPECT_RATIOS = (3 / 4, 4 / 3)
"""Least and largest width over height of a crop."""

COLOR_CHANGE = 0.2
"""Brightness, contrast and saturation are scaled by factors from 1 minus this to 1 plus this."""

# Share of red, green and blue in the brightness that the eye sees (ITU-R BT.601).
_GREY_WEIGHTS = (0.299, 0.587, 0.114)

# Folded into an image's seed, so that each operation draws numbers of its own, whichever others are switched on.
_CROP, _FLIP, _COLOR, _RANDAUGMENT = range(4)


def least_side(size: int, operations: Collection[str]) -> int:
    """The shorter side, in pixels, that a picture needs so that `augment` has no fewer pixels than it gives.

    Args:
      size: height and width that it gives.
      operations: as for `augment`; a crop keeps no more than a part of the shorter side.
    """
    if "crop" not in operations:
        return size
    smallest_part = math.sqrt(SMALLEST_CROP * CROP_ASPECT_RATIOS[0])
    return math.ceil(size / smallest_part)


def augment(
    pixels: tf.Tensor,
    image_input: ImageInput,
    seed: tf.Tensor,
    operations: Collection[str],
    randaugment_strength: float = 0.0,
) -> tf.Tensor:
    """Changes one image at random and resizes it; without operations and RandAugment it equals `image_input`.

    Args:
      pixels: uint8 [height, width, 3].
      image_input: how a picture becomes the model's input; a random crop takes the place of its own.
      seed: int32 [2]; the same seed gives the same changes.
      operations: any of "flip", "crop" and "color"; their order plays no part. The crop is cut out before resizing,
        so that it keeps its full resolution.
      randaugment_strength: of RandAugment, from 0 (none) to 10.

    Returns:
      uint8 [size, size, 3].
    """
    if "crop" in operations:
        pixels = to_size(_crop(pixels, tf.random.experimental.stateless_fold_in(seed, _CROP)), image_input.size)
    else:
        pixels = image_input(pixels)
    if "flip" in operations:
        flip_seed = tf.random.experimental.stateless_fold_in(seed, _FLIP)
        pixels = tf.image.stateless_random_flip_left_right(pixels, flip_seed)
    if randaugment_strength:
        # Before "color", which it would undo where it draws autocontrast or equalize.
        randaugment_seed = tf.random.experimental.stateless_fold_in(seed, _RANDAUGMENT)
        pixels = randaugment(pixels, randaugment_seed, randaugment_strength)
    if "color" in operations:
        pixels = _change_color(pixels, tf.random.experimental.stateless_fold_in(seed, _COLOR))
    return pixels


def _crop(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Cuts out a random rectangle; the whole image where none has an allowed shape and area."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(pixels),
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_ASPECT_RATIOS,
        area_range=(SMALLEST_CROP, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    cropped = tf.slice(pixels, begin, extent)
    cropped.set_shape([None, None, 3])
    return cropped


def _change_color(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Scales brightness, then the distance to the average colour (contrast), then that to grey (saturation).

    All three are linear, so one matrix and one offset do what would take six passes over the pixels.
    """
    factors = tf.random.stateless_uniform([3], seed, 1 - COLOR_CHANGE, 1 + COLOR_CHANGE)
    brightness, contrast, saturation = tf.unstack(factors)
    colors = tf.reshape(tf.cast(pixels, tf.float32), [-1, 3])
    average = tf.reduce_mean(colors, axis=0, keepdims=True)
    to_grey = tf.tile(tf.constant(_GREY_WEIGHTS, shape=[3, 1]), [1, 3])
    saturate = saturation * tf.eye(3) + (1 - saturation) * to_grey
    scaled = tf.matmul(colors, brightness * contrast * saturate)
    offset = tf.matmul(brightness * (1 - contrast) * average, saturate)
    return tf.reshape(tf.saturate_cast(tf.round(scaled + offset), tf.uint8), tf.shape(pixels))
