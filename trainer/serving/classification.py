"""Files through a classifier in batches: the next ones are read and decoded while a model computes.

A batch is decoded and computed by one call, and two calls go on at once, so that neither the processor cores nor an
accelerator wait for the other half of the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.data.bad_images import why_undecodable
from trainer.data.image_headers import claimed_pixels
from trainer.data.images import decode
from trainer.serving.image_files import ImageFile, read_image
from trainer.wording import first_line

BATCH_SIZE = 32
"""Images in a call. With two of them MobileNetV2 is as fast on a processor as with more, and photos as a camera makes
them, 5 MB each, take 160 MB a batch."""

_CALLS_AT_ONCE = 2
_BATCHES_AHEAD = 3
"""Batches that are being computed, wait for it, or wait to be taken."""

Classify = Callable[[Sequence[bytes]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Classified:
    """What a model says of a file.

    Attributes:
      path: of the file.
      encoded: its bytes.
      probabilities: float32 `[classes]`.
    """

    path: str
    encoded: bytes
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be classified, and why, as a short phrase."""

    path: str
    reason: str


def classified(
    files: Iterable[ImageFile], classify: Classify, batch_size: int = BATCH_SIZE
) -> Iterator[list[Classified | Unreadable]]:
    """Classifies files, batch by batch, in their order.

    A batch that holds damaged images is halved until they are alone: the others are still asked about once.

    Args:
      files: taken as they are needed, a few batches ahead.
      classify: see `ImageClassifier.classify`.
      batch_size: of the calls; the last one is smaller.

    Raises:
      UserError: a bucket does not answer or refuses.
    """
    remaining = iter(files)
    batches = iter(lambda: list(islice(remaining, batch_size)), [])
    waiting: deque[Future[list[Classified | Unreadable]]] = deque()
    threads = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="classify")
    try:
        for batch in batches:
            waiting.append(threads.submit(_classify_batch, batch, classify))
            if len(waiting) == _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _classify_batch(files: Sequence[ImageFile], classify: Classify) -> list[Classified | Unreadable]:
    read = [(file, file.problem or read_image(file.path)) for file in files]
    encoded = [content for _, content in read if isinstance(content, bytes)]
    answers = iter(_ask(encoded, classify))
    results: list[Classified | Unreadable] = []
    for file, content in read:
        answer = next(answers) if isinstance(content, bytes) else content
        if isinstance(answer, str):
            results.append(Unreadable(file.path, answer))
        else:
            assert isinstance(content, bytes)
            results.append(Classified(file.path, content, answer))
    return results


def _ask(encoded: Sequence[bytes], classify: Classify) -> list[NDArray[np.float32] | str]:
    """For each image its probabilities or, if it cannot be decoded, why."""
    if not encoded:
        return []
    try:
        return list(classify(encoded))
    except tf.errors.InvalidArgumentError as error:
        if len(encoded) == 1:
            return [_reason(encoded[0], error)]
        middle = len(encoded) // 2
        return _ask(encoded[:middle], classify) + _ask(encoded[middle:], classify)


def _reason(encoded: bytes, error: tf.errors.InvalidArgumentError) -> str:
    with tf.device("/cpu:0"):
        try:
            pixels = int(claimed_pixels(tf.constant(encoded)))
            if pixels > MAX_IMAGE_PIXELS:
                return f"it claims {pixels} pixels, and no more than {MAX_IMAGE_PIXELS} are decoded"
            decode(tf.constant(encoded))
        except tf.errors.InvalidArgumentError:
            return why_undecodable(encoded)
    return first_line(error)  # It can be decoded, so it is the model that does not take it.
