"""RandAugment (Cubuk et al., 2020, arXiv:1909.13719): two random operations on each training image.

The operations are the paper's 14. Each takes a level from -1 to 1, whose size is the strength of the run and whose
sign is random. Level 1 stands for the largest magnitude of the authors' implementation
(github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py, read on 2026-11-21), with two differences. Here
a larger strength is a larger change: there, the levels of posterize and solarize count backwards, and those of color,
contrast, brightness and sharpness change nothing in the middle. And what lies between pixels is interpolated, where
there the nearest one is taken.

All of it belongs into the input pipeline, on the CPU: TPUs have no operation that turns an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

FULL_STRENGTH = 10.0
"""The strength that stands for the largest magnitudes."""

OPERATIONS_PER_IMAGE = 2
"""How many are drawn for each image, independently: N in the paper, which has it at 2 for ImageNet."""

LARGEST_ROTATION = 30.0
"""Degrees."""

LARGEST_SHEAR = 0.3
"""Pixels to the side for each pixel down, or the other way round."""

LARGEST_SHIFT = 100 / 224
"""Part of the image's side: 100 pixels of the 224 that the authors' ResNet-50 is given."""

LARGEST_BLEND = 0.9
"""How far color, contrast, brightness and sharpness go towards an image without any, or as far beyond the image."""

MOST_BITS_CLEARED = 4
"""What posterize clears of the 8 bits."""

BARE = 128
"""The level of red, green and blue where a geometric operation leaves nothing."""

# Share of the pixel itself and of each of its eight neighbours in what sharpness takes for the smooth image. These are
# those of the SMOOTH filter of the Python Imaging Library, which the authors' implementation follows.
_SMOOTH_CENTER, _SMOOTH_NEIGHBOUR = 5 / 13, 1 / 13

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From uint8 pixels [S, S, 3] and a float32 scalar level in [-1, 1] to uint8 [S, S, 3]."""


def randaugment(pixels: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Applies two random operations to one image, one after the other.

    Args:
      pixels: uint8 [S, S, 3], S known when it is traced.
      seed: int32 [2]; the same seed gives the same changes.
      strength: from 0 to `FULL_STRENGTH`. Autocontrast and equalize have no magnitude and ignore it.

    Returns:
      uint8 [S, S, 3].
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    kinds = tf.random.stateless_uniform([OPERATIONS_PER_IMAGE], seeds[0], 0, len(OPERATIONS), tf.int32)
    signs = tf.random.stateless_uniform([OPERATIONS_PER_IMAGE], seeds[1], 0, 2, tf.int32) * 2 - 1
    levels = tf.cast(signs, tf.float32) * (strength / FULL_STRENGTH)
    shape = pixels.shape
    for kind, level in zip(tf.unstack(kinds), tf.unstack(levels)):
        pixels = tf.switch_case(kind, [partial(operation, pixels, level) for operation in OPERATIONS.values()])
        pixels.set_shape(shape)
    return pixels


def identity(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Changes nothing."""
    return tf.identity(pixels)


def autocontrast(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest level becomes 0 and its brightest 255; an even one stays."""
    colors = tf.cast(pixels, tf.float32)
    darkest, brightest = tf.reduce_min(colors, axis=[0, 1]), tf.reduce_max(colors, axis=[0, 1])
    is_even = brightest <= darkest
    scale = tf.where(is_even, 1.0, 255.0 / (brightest - darkest))
    return _to_levels((colors - tf.where(is_even, 0.0, darkest)) * scale)


def equalize(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Spreads the levels of each channel so that all are about equally frequent.

    As in the Python Imaging Library, a level becomes the number of darker pixels in units of a 255th of those that are
    not of the brightest level present; a channel that is too even for such a unit stays as it is.
    """
    # The three channels as levels 0 to 255, 256 to 511 and 512 to 767 of one.
    places = tf.cast(pixels, tf.int32) + tf.constant([0, 256, 512])
    counts = tf.math.bincount(tf.reshape(places, [-1]), minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    levels = tf.range(256)
    brightest = tf.reduce_max(tf.where(counts > 0, levels, 0), axis=1, keepdims=True)
    unit = tf.reduce_sum(tf.where(levels < brightest, counts, 0), axis=1, keepdims=True) // 255
    darker = tf.cumsum(counts, axis=1, exclusive=True)
    spread = tf.minimum((darker + unit // 2) // tf.maximum(unit, 1), 255)
    table = tf.where(unit > 0, spread, levels)
    return tf.gather(tf.cast(tf.reshape(table, [-1]), tf.uint8), places)


def posterize(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Clears the lowest bits, `MOST_BITS_CLEARED` of them times the level, rounded."""
    cleared = tf.cast(tf.round(MOST_BITS_CLEARED * tf.abs(level)), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(pixels, cleared), cleared)


def solarize(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Turns bright levels into their negative: at level 0 none, at 1 all of them, from 256 times the rest upwards."""
    threshold = 256.0 * (1.0 - tf.abs(level))
    is_bright = tf.cast(pixels, tf.float32) >= threshold
    # The negative flips all bits: three times as fast as `tf.where` on bytes.
    return tf.bitwise.bitwise_xor(pixels, tf.cast(is_bright, tf.uint8) * 255)


def color(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Makes colours paler, down to a tenth, or stronger, up to 1.9 times."""
    return _blend(tf.image.rgb_to_grayscale(tf.cast(pixels, tf.float32)), pixels, level)


def contrast(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Brings the levels closer to the image's mean brightness, down to a tenth, or takes them 1.9 times as far."""
    # Summed up as whole numbers: a sum of floats would depend on how many threads share it.
    sums = tf.reduce_sum(tf.cast(pixels, tf.int64), axis=[0, 1], keepdims=True)
    means = tf.cast(sums / (pixels.shape[0] * pixels.shape[1]), tf.float32)
    return _blend(tf.image.rgb_to_grayscale(means), pixels, level)


def brightness(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Multiplies the levels by 0.1 to 1.9."""
    return _blend(tf.constant(0.0), pixels, level)


def sharpness(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Mixes in a smoothed image, up to nine tenths, or moves as far away from it; the border of one pixel stays."""
    colors = tf.cast(pixels, tf.float32)
    across = colors[:, :-2] + colors[:, 1:-1] + colors[:, 2:]
    around = across[:-2] + across[1:-1] + across[2:]
    inner = colors[1:-1, 1:-1]
    smooth = around * _SMOOTH_NEIGHBOUR + inner * (_SMOOTH_CENTER - _SMOOTH_NEIGHBOUR)
    # What blending adds to the pixels; on the border it is nothing.
    change = LARGEST_BLEND * level * (inner - smooth)
    return _to_levels(colors + tf.pad(change, [[1, 1], [1, 1], [0, 0]]))


def rotate(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Turns the image about its centre, counterclockwise for a positive level."""
    angle = math.radians(LARGEST_ROTATION) * level
    cosine, sine = tf.cos(angle), tf.sin(angle)
    center = (pixels.shape[0] - 1) / 2
    return _transform(
        pixels,
        [cosine, -sine, center * (1 - cosine + sine), sine, cosine, center * (1 - cosine - sine)],
    )


def shear_x(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves each row to the left by its number of rows from the top, times the shear; to the right if negative."""
    return _transform(pixels, [1.0, LARGEST_SHEAR * level, 0.0, 0.0, 1.0, 0.0])


def shear_y(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves each column up by its number of columns from the left, times the shear; down if negative."""
    return _transform(pixels, [1.0, 0.0, 0.0, LARGEST_SHEAR * level, 1.0, 0.0])


def translate_x(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves the image to the left; to the right if negative."""
    return _transform(pixels, [1.0, 0.0, LARGEST_SHIFT * pixels.shape[1] * level, 0.0, 1.0, 0.0])


def translate_y(pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves the image up; down if negative."""
    return _transform(pixels, [1.0, 0.0, 0.0, 0.0, 1.0, LARGEST_SHIFT * pixels.shape[0] * level])


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
"""What `randaugment` draws from. The order is part of what a seed means: it never changes."""


def _to_levels(values: tf.Tensor) -> tf.Tensor:
    """Rounds to the nearest of the levels 0 to 255."""
    return tf.saturate_cast(tf.round(values), tf.uint8)


def _blend(without: tf.Tensor, pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """From `without` (the image without any color, contrast or brightness; float32) to the image and beyond."""
    factor = 1.0 + LARGEST_BLEND * level
    return _to_levels(without + factor * (tf.cast(pixels, tf.float32) - without))


def _transform(pixels: tf.Tensor, coefficients: list[tf.Tensor | float]) -> tf.Tensor:
    """An affine transformation, bilinear.

    Args:
      pixels: uint8 [S, S, 3].
      coefficients: a, b, c, d, e, f: the pixel at column x and row y of the result is the one at a x + b y + c and
        d x + e y + f of the image, and `BARE` where that lies outside.
    """
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pixels, tf.float32)[tf.newaxis],  # On uint8 the operation would round down.
        transforms=tf.stack([tf.convert_to_tensor(each, tf.float32) for each in (*coefficients, 0.0, 0.0)])[tf.newaxis],
        output_shape=pixels.shape[:2],
        fill_value=float(BARE),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return _to_levels(transformed[0])
