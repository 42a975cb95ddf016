"""From encoded bytes to pixels: one way for training, for the scan for bad files, and for the exported model.

TensorFlow operations only, because `decode` and `ImageInput` are traced into the SavedModel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import tensorflow as tf

from trainer.data.folders import NOT_AN_IMAGE, SkippedImage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainer.data.file_source import FileSource

_SECONDS_BETWEEN_REPORTS = 5.0

# Images that are handed to the threads at once: bounds what waits in memory.
_SCAN_BLOCK = 512

# What a file begins with, and what it is then called.
_SUPPORTED = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF"}
_UNSUPPORTED = {b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG, BMP or GIF (its first frame).

    Every kind ends as 8-bit RGB: grey, palette and CMYK images are converted, 16-bit ones lose their low byte, an
    alpha channel is dropped. The orientation that a camera notes beside the pixels (EXIF) is not applied.

    Args:
      encoded: string scalar, the bytes of the file; what is in them decides, not a file's extension.

    Returns:
      uint8 [height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: when it runs, if the bytes are damaged or no such image.
    """
    pixels = tf.cond(
        _is_palette_bmp(encoded),
        lambda: _decode_palette_bmp(encoded),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    pixels.set_shape([None, None, 3])
    return pixels


@dataclass(frozen=True)
class ImageInput:
    """How a picture becomes a model's input: a part of the model, the same in training and in serving.

    Attributes:
      size: height and width, in pixels.
      resize: "crop" keeps the square in the picture's middle, "squash" all of it, out of proportion.
    """

    size: int
    resize: str

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 [height, width, 3] -> uint8 [size, size, 3]; a batch of pictures of one size likewise."""
        return to_size(middle_square(pixels) if self.resize == "crop" else pixels, self.size)


def middle_square(pixels: tf.Tensor) -> tf.Tensor:
    """The largest square in the middle: [..., height, width, 3] -> [..., n, n, 3], n the shorter side."""
    height, width = tf.shape(pixels)[-3], tf.shape(pixels)[-2]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side, :]


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


def find_bad_images(
    source: FileSource,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> list[SkippedImage]:
    """Reads and decodes images in parallel and says which cannot be, and why.

    Args:
      source: whose files to look at.
      indices: which of its images; None looks at all.
      report: called now and then with a sentence on the progress, and with one at the end if that was needed.

    Returns:
      The bad ones in the order of `indices`; a file that has vanished or may not be read is one of them.

    Raises:
      tf.errors.OpError: the storage fails in a way that says nothing about the file, such as a lost connection.
    """
    wanted = range(len(source)) if indices is None else [int(index) for index in indices]
    # Traced once: a thread then pays for one call, not for the dispatch of every operation. Only the height comes
    # back, so that pixels are freed at once.
    trial = tf.function(lambda encoded: tf.shape(decode(encoded))[0]).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    bad: list[SkippedImage] = []
    done, reported, last_report = 0, False, time.monotonic()
    remaining = iter(wanted)
    with ThreadPoolExecutor(thread_name_prefix="find_bad_images") as threads:
        while block := list(islice(remaining, _SCAN_BLOCK)):
            reasons = threads.map(lambda index: _why_bad(source.paths[index], trial), block)
            bad += [SkippedImage(source.keys[index], reason) for index, reason in zip(block, reasons) if reason]
            done += len(block)
            if time.monotonic() - last_report > _SECONDS_BETWEEN_REPORTS or (reported and done == len(wanted)):
                report(f"Looked through {done} of {len(wanted)} images; {len(bad)} cannot be decoded.")
                reported, last_report = True, time.monotonic()
    return bad


def _why_bad(path: str, trial: Callable[[tf.Tensor], tf.Tensor]) -> str:
    """Why the file cannot be decoded, as a short phrase; "" if it can."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            encoded = file.read()
    except tf.errors.NotFoundError:
        return "the file does not exist any more"
    except tf.errors.PermissionDeniedError:
        return "no permission to read the file"
    except (tf.errors.FailedPreconditionError, tf.errors.DataLossError, tf.errors.UnknownError) as error:
        return f"the file cannot be read ({error.message})"
    if not encoded:
        return "empty file"
    try:
        with tf.device("CPU:0"):
            trial(tf.constant(encoded))
    except tf.errors.InvalidArgumentError:
        return _why_undecodable(encoded)
    return ""


def _why_undecodable(encoded: bytes) -> str:
    for beginning, kind in _SUPPORTED.items():
        if encoded.startswith(beginning):
            return f"the {kind} is truncated or damaged"
    if encoded.startswith(b"BM"):
        return "the BMP is damaged, compressed, or has fewer than 8 bits a pixel"
    for beginning, kind in _UNSUPPORTED.items():
        if encoded.startswith(beginning):
            return f"{kind} is not supported, convert it to JPEG or PNG"
    if encoded[4:8] == b"ftyp":
        return "HEIC and AVIF are not supported, convert it to JPEG or PNG"
    if encoded.lstrip().startswith(b"<"):
        return "a web page or other markup, not an image"
    return NOT_AN_IMAGE


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
