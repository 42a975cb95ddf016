"""From encoded bytes to pixels: one way for training, for the scan for bad files, and for the exported model.

TensorFlow operations only, because `decode` and `ImageInput` are traced into the SavedModel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.data.image_headers import claimed_pixels, claimed_pixels_of_others, jpeg_pixels

PREPROCESSING_VERSION = 2
"""To be raised by whoever changes which pixels the functions here make of the same bytes: features are kept by it."""

_JPEG_RATIOS = (1, 2, 4, 8)
"""By how much libjpeg can make a picture smaller while it decodes it."""


def decode(encoded: tf.Tensor, max_pixels: int = MAX_IMAGE_PIXELS) -> tf.Tensor:
    """Decodes one JPEG, PNG, BMP or GIF (its first frame), unless its header claims too many pixels.

    Every kind ends as 8-bit RGB: grey, palette and CMYK images are converted, 16-bit ones lose their low byte, an
    alpha channel is dropped. The orientation that a camera notes beside the pixels (EXIF) is not applied.

    Args:
      encoded: string scalar, the bytes of the file; what is in them decides, not a file's extension.
      max_pixels: height times width, over all frames, that are decoded; see `claimed_pixels`.

    Returns:
      uint8 [height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: when it runs, if the bytes are damaged, no such image, or claim too many pixels;
        then nothing was allocated.
    """
    return _decode_unchecked(_if_not_too_large(encoded, claimed_pixels(encoded), max_pixels))


def _decode_unchecked(encoded: tf.Tensor) -> tf.Tensor:
    """As `decode`, however large."""
    pixels = tf.cond(
        _is_palette_bmp(encoded),
        lambda: _decode_palette_bmp(encoded),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    pixels.set_shape([None, None, 3])
    return pixels


def decode_at_least(encoded: tf.Tensor, side: int, max_pixels: int = MAX_IMAGE_PIXELS) -> tf.Tensor:
    """As `decode`, but a large JPEG comes out at a half, a quarter or an eighth of its size.

    It is the smallest of these that leaves height and width at `side` pixels or more. Which one depends on height,
    width and `side` alone, and at full size the pixels are those of `decode`, bit for bit. Reduced ones stand for an
    average of those they cover: after a resize to 96 pixels the levels of photos differed by 6 of 255 in the mean from
    those of a bilinear resize of the whole picture, which leaves most of its pixels out (TensorFlow 2.21, 2026-11).
    So training, evaluation and the exported model all go through here.

    JPEGs are never cropped while they are decoded. `tf.image.decode_and_crop_jpeg` reads through all of the file
    anyway, and with the reduced scale took 6 percent longer than a slice of the whole (TensorFlow 2.21, 2026-11); it
    also accepts files that are cut off below the crop.

    Args:
      encoded: string scalar, the bytes of a file.
      side: in pixels, what the shorter side must keep where it has it.
      max_pixels: as `decode` has it; those of the file count, not of what comes out.

    Returns:
      uint8 [height, width, 3]; height and width are the file's divided by the ratio, rounded up.

    Raises:
      tf.errors.InvalidArgumentError: when it runs, as `decode` does.
    """
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _decode_jpeg_at_least(encoded, side, max_pixels),
        lambda: _decode_unchecked(_if_not_too_large(encoded, claimed_pixels_of_others(encoded), max_pixels)),
    )
    pixels.set_shape([None, None, 3])
    return pixels


@dataclass(frozen=True)
class ImageInput:
    """How a picture becomes a model's input: a part of the model, the same in training and in serving.

    Attributes:
      size: height and width, in pixels.
      resize: "crop" keeps the square in the picture's middle, "squash" all of it, out of proportion.
      max_pixels: files that claim more are refused, in serving too: whoever may send an image to a server could
        otherwise fill its memory with a few kilobytes.
    """

    size: int
    resize: str
    max_pixels: int = MAX_IMAGE_PIXELS

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 [height, width, 3] -> uint8 [size, size, 3]; a batch of pictures of one size likewise."""
        return to_size(middle_square(pixels) if self.resize == "crop" else pixels, self.size)

    def from_encoded(self, encoded: tf.Tensor) -> tf.Tensor:
        """The bytes of one file, a string scalar, to uint8 [size, size, 3]: what the model is trained on and serves.

        A JPEG is decoded at the smallest scale that suffices, see `decode_at_least`, which raises what this does.
        """
        return self(decode_at_least(encoded, self.size, self.max_pixels))

    def from_encoded_batch(self, encoded: tf.Tensor) -> tf.Tensor:
        """The bytes of b files, strings [b], to uint8 [b, size, size, 3]: `from_encoded` of each."""
        spec = tf.TensorSpec([self.size, self.size, 3], tf.uint8)
        return tf.map_fn(self.from_encoded, encoded, fn_output_signature=spec)


def middle_square(pixels: tf.Tensor) -> tf.Tensor:
    """The largest square in the middle: [..., height, width, 3] -> [..., n, n, 3], n the shorter side."""
    # On vectors: with a small photo even the number of operations counts.
    extent = tf.shape(pixels)[-3:-1]
    side = tf.reduce_min(extent)
    before = [0] * (pixels.shape.rank - 3)
    begin = tf.concat([before, (extent - side) // 2, [0]], axis=0)
    square = tf.slice(pixels, begin, tf.concat([tf.shape(pixels)[:-3], [side, side, 3]], axis=0))
    square.set_shape([*pixels.shape[:-3], None, None, 3])
    return square


def to_size(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes to a square, bilinear and without regard to the aspect ratio.

    Args:
      pixels: uint8 [height, width, 3], or a batch [b, height, width, 3].
      size: height and width of the result, in pixels.

    Returns:
      uint8 [size, size, 3], or [b, size, size, 3]; rounded to the nearest level.
    """
    return tf.cast(tf.round(tf.image.resize(pixels, [size, size])), tf.uint8)


def unit_range(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 of any shape -> float32 in [0, 1]: what Hub modules expect. Cheap enough to run on the device."""
    # A product: graphs turn a division by a constant into one, and eager code, which does not, would differ by a bit.
    return tf.cast(pixels, tf.float32) * (1 / 255)


def _if_not_too_large(encoded: tf.Tensor, pixels: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """`encoded`, for whoever decodes it, once it is clear that `pixels`, int64, are not too many or unknown."""
    allowed = tf.logical_and(pixels >= 0, pixels <= max_pixels)
    message = f"the image claims more than the {max_pixels} pixels that are allowed, or does not tell its size"
    with tf.control_dependencies([tf.raw_ops.Assert(condition=allowed, data=[message])]):
        return tf.identity(encoded)


def _decode_jpeg_at_least(encoded: tf.Tensor, side: int, max_pixels: int) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)
    encoded = _if_not_too_large(encoded, jpeg_pixels(shape), max_pixels)
    shorter = tf.reduce_min(shape[:2])
    # Rounded up after the division by r, as libjpeg does, the shorter side has `side` pixels from here on.
    suffices_from = [ratio * (side - 1) + 1 for ratio in _JPEG_RATIOS[1:]]
    place = tf.reduce_sum(tf.cast(shorter >= suffices_from, tf.int32))

    def decode_reduced(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)

    return tf.switch_case(place, [decode_reduced(ratio) for ratio in _JPEG_RATIOS])


def _bmp_header(encoded: tf.Tensor) -> tf.Tensor:
    """The first 30 bytes, padded, because `substr` fails on a string that ends before what is asked for."""
    return tf.strings.join([tf.strings.substr(encoded, 0, 30), "\0" * 30])


def _is_palette_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file is a BMP of 8 bits a pixel, whose pixels are places in a palette."""
    header = _bmp_header(encoded)
    bits_per_pixel = tf.strings.substr(header, 28, 2)
    return tf.logical_and(tf.strings.substr(header, 0, 2) == b"BM", bits_per_pixel == b"\x08\0")


def _decode_palette_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Looks the colours up, where `tf.io.decode_image` takes the places in the palette for levels of grey."""
    header = _bmp_header(encoded)
    pixels_begin, info_size = (
        tf.io.decode_raw(tf.strings.substr(header, offset, 4), tf.int32)[0] for offset in (10, 14)
    )
    # A slice of numbers stops at the end of a damaged file, where one of a string would fail.
    entries = tf.io.decode_raw(encoded, tf.uint8)[14 + info_size : pixels_begin]
    blue_green_red = tf.reshape(entries, [-1, 4])[:, 2::-1]
    places = tf.io.decode_bmp(encoded)  # [height, width, 1]
    return tf.gather(blue_green_red, tf.cast(places[:, :, 0], tf.int32))
