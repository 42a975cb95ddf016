"""Files as a module's inputs: pixels in the size and type that it wants."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.bad_images import why_undecodable
from trainer.data.images import ImageInput, decode, unit_range
from trainer.errors import UserError


def image_batch(encoded: bytes, spec: tf.TensorSpec, image_size: int, named: str) -> tf.Tensor:
    """A picture as a batch of one.

    What the module fixes of height and width, all of the picture is resized to, out of proportion, as in TensorFlow
    Hub's tutorials. What it leaves open is the picture's own.

    Args:
      encoded: the bytes of a file.
      spec: see `is_image_batch`.
      image_size: in pixels; longer sides of what is left open are reduced to it, in proportion. 0 for no limit.
      named: the file, for errors.

    Returns:
      `[1, height, width, channels]` in the type of `spec`: in [0, 1] if that is floating, else 0 to 255.

    Raises:
      UserError: the file cannot be decoded.
    """
    height, width, channels = (None, None, 3) if spec.shape.rank is None else tuple(spec.shape[1:])
    try:
        with tf.device("/cpu:0"):
            pixels = _pixels(tf.constant(encoded), height, width, image_size)
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{named} cannot be used: {why_undecodable(encoded)}.") from None
    batch = (tf.image.rgb_to_grayscale(pixels) if channels == 1 else pixels)[tf.newaxis]
    return tf.cast(unit_range(batch) if spec.dtype.is_floating else batch, spec.dtype)


def _pixels(encoded: tf.Tensor, height: int | None, width: int | None, image_size: int) -> tf.Tensor:
    if height and height == width:
        return ImageInput(height, "squash").from_encoded(encoded)
    pixels = decode(encoded)
    own_height, own_width = pixels.shape[:2]
    scale = min(1.0, image_size / max(own_height, own_width)) if image_size else 1.0
    size = [height or max(1, round(own_height * scale)), width or max(1, round(own_width * scale))]
    if size == [own_height, own_width]:
        return pixels
    return tf.saturate_cast(tf.round(tf.image.resize(pixels, size, antialias=True)), tf.uint8)
