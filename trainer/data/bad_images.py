"""Finds the images that cannot be used, and names the one behind an error of the input pipeline.

The pipeline itself says only that something could not be decoded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING

import tensorflow as tf

from trainer.data.folders import NOT_AN_IMAGE, bad_images_error
from trainer.data.image_headers import claimed_pixels
from trainer.data.images import decode
from trainer.data.source import EncodedSource, SkippedImage, Source
from trainer.every_few_seconds import EveryFewSeconds
from trainer.storage import is_remote, reading_or_writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Images that are handed to the threads at once: bounds what waits in memory.
_SCAN_BLOCK = 512

# What a file begins with, and what it is then called.
_SUPPORTED = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF"}
_UNSUPPORTED = {b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}

_READING_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.DataLossError,
    tf.errors.OutOfRangeError,
)
"""What an image that cannot be decoded, is gone, damaged or cut off, or may not be read makes a pipeline raise."""


@contextmanager
def naming_bad_images(source: Source, report: Callable[[str], None]) -> Iterator[None]:
    """Looks through the images when reading them fails inside, and says which of them cannot be decoded.

    Args:
      source: whose images are read inside.
      report: called with sentences on the progress of a long look.

    Raises:
      UserError: some images are bad, and it names them; or the bucket that they are in does not answer or refuses.
      tf.errors.OpError: as it came, where no image is.
    """
    root = source.root if isinstance(source, EncodedSource) else ""
    with reading_or_writing(root, "--data") if is_remote(root) else nullcontext():
        try:
            yield
        except _READING_ERRORS:
            if not isinstance(source, EncodedSource):
                raise
            bad = find_bad_images(source, report=report)
            if not bad:
                raise
            first = source.place_of(bisect_left(source.keys, bad[0].key))
            raise bad_images_error(first, bad) from None


def find_bad_images(
    source: EncodedSource,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> list[SkippedImage]:
    """Reads and decodes images in parallel and says which cannot be, and why.

    Args:
      source: whose images to look at.
      indices: which of its images; None looks at all.
      report: called now and then with a sentence on the progress, and with one at the end if that was needed.

    Returns:
      The bad ones in the order of `indices`; one whose file has vanished or may not be read is among them.

    Raises:
      tf.errors.OpError: the storage fails in a way that says nothing about the image, such as a lost connection.
    """
    wanted = range(len(source)) if indices is None else [int(index) for index in indices]
    # Traced once: a thread then pays for one call, not for the dispatch of every operation. Only the height comes
    # back, so that pixels are freed at once.
    trial = tf.function(lambda encoded: tf.shape(decode(encoded, source.max_image_pixels))[0]).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    bad: list[SkippedImage] = []
    done, reports = 0, EveryFewSeconds()
    remaining = iter(wanted)
    with ThreadPoolExecutor(thread_name_prefix="find_bad_images") as threads:
        while block := list(islice(remaining, _SCAN_BLOCK)):
            reasons = threads.map(lambda index: _why_bad(source, index, trial), block)
            bad += [SkippedImage(source.keys[index], reason) for index, reason in zip(block, reasons) if reason]
            done += len(block)
            if reports.due() or (reports.was_due and done == len(wanted)):
                report(f"Looked through {done} of {len(wanted)} images; {len(bad)} cannot be decoded.")
    return bad


def why_undecodable(encoded: bytes) -> str:
    """What is wrong with the bytes of an image that could not be decoded, as a short phrase."""
    if not encoded:
        return "empty file"
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


def _why_bad(source: EncodedSource, index: int, trial: Callable[[tf.Tensor], tf.Tensor]) -> str:
    """Why an image cannot be decoded, as a short phrase; "" if it can."""
    try:
        encoded = source.encoded(index)
    except tf.errors.NotFoundError:
        return "the file does not exist any more"
    except tf.errors.PermissionDeniedError:
        return "no permission to read the file"
    except (
        tf.errors.FailedPreconditionError,
        tf.errors.DataLossError,
        tf.errors.OutOfRangeError,
        tf.errors.UnknownError,
    ) as error:
        return f"the file cannot be read ({error.message})"
    try:
        with tf.device("CPU:0"):
            trial(tf.constant(encoded))
    except tf.errors.InvalidArgumentError:
        return _why_too_large(encoded, source.max_image_pixels) or why_undecodable(encoded)
    return ""


def _why_too_large(encoded: bytes, max_pixels: int) -> str:
    """What is wrong with an image that claims too many pixels; "" if that is not what is wrong."""
    try:
        with tf.device("CPU:0"):
            pixels = int(claimed_pixels(tf.constant(encoded)))
    except tf.errors.InvalidArgumentError:  # A JPEG with a damaged header.
        return ""
    return f"it claims {pixels} pixels, and --max_image_pixels={max_pixels} allows no more" * (pixels > max_pixels)
