"""Computes what the cache lacks. Stop it anywhere: what was written stays, and the next run computes the rest.

Several runs and workers may fill one cache at the same time. Each begins at another block of the missing images and
looks, before every block, at what the others have written, so that together they compute hardly an image twice.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.order import PADDING
from trainer.errors import UserError
from trainer.features.cache import FeatureCache
from trainer.features.engine import Engine
from trainer.features.extractors import Elements, Features, extract_all
from trainer.features.shards import ID_BYTES, comparable

SHARD_ROWS = 1024
"""Images a shard, at least: some seconds of a CPU's work, which is what a killed run loses."""

_SHARDS = 256
"""Of a large set, at most about so many shards are written: a run opens and checks them all."""

ExampleBatches = Callable[[tf.data.Dataset, int], tf.data.Dataset]
"""From an order of places (int64 `[k]` each, `PADDING` for none) and a batch size to the examples in that order:
batches of {"example": uint8 `[batch, S, S, 3]` or string `[batch]`, "place": int64 `[batch]`}."""

Progress = Callable[[int, int], None]
"""Is told how many features of how many are there."""


def missing_places(cache: FeatureCache, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places, in `ids`, of the images that the cache lacks; one place of those that are the same image; ascending."""
    places = np.flatnonzero(cache.find(ids).missing)
    _, first = np.unique(comparable(ids[places]), return_index=True)
    return places[np.sort(first)]


def fill(
    cache: FeatureCache,
    ids: NDArray[np.uint8],
    examples: ExampleBatches,
    engine: Engine,
    progress: Progress,
    start: float = 0.0,
) -> int:
    """Computes and writes the features of all images that the cache lacks.

    Args:
      cache: what to fill.
      ids: uint8 `[n, 16]`, of the images that are wanted.
      examples: gives the pixels or texts.
      engine: computes the features.
      progress: called after every batch.
      start: where among the missing images to begin, from 0 to below 1: runs that fill at the same time should differ.

    Returns:
      How many images it lacked.

    Raises:
      UserError: the cache cannot be written, or the module gives numbers that are not finite.
      tf.errors.OpError: an image cannot be read or decoded.
    """
    missing = missing_places(cache, ids)
    if not len(missing):
        return 0
    rows = max(SHARD_ROWS, engine.batch, len(missing) // _SHARDS)
    writer = _ShardWriter(cache, ids, rows, len(ids) - len(missing), progress)
    blocks = [missing[first : first + rows] for first in range(0, len(missing), rows)]
    turn = int(start * len(blocks))

    def places() -> Iterator[NDArray[np.int64]]:
        for block in blocks[turn:] + blocks[:turn]:
            todo = block[writer.lacks(block)]
            if len(todo):
                yield np.append(todo, np.full(-len(todo) % engine.batch, PADDING, np.int64))

    signature = tf.TensorSpec([None], tf.int64)
    order = tf.data.Dataset.from_generator(places, output_signature=signature)
    batches = examples(order, engine.batch).as_numpy_iterator()
    waiting: list[NDArray[np.int64]] = []

    def taken() -> Iterator[Elements]:
        for batch in batches:
            waiting.append(batch["place"])
            yield batch["example"]

    seen = taken()
    probe = next(seen, None)
    if probe is None:  # Others have computed all of it in the meantime.
        return len(missing)
    try:
        every = itertools.chain([probe], seen)
        extract_all(engine.extractor(probe), every, lambda features: writer.take(waiting.pop(0), features))
    except BaseException:
        with contextlib.suppress(UserError):  # Such as a full disk, which may be what ended it.
            writer.flush()
        raise
    writer.flush()
    return len(missing)


class _ShardWriter:
    """Gathers features into shards. The thread that prepares images asks it, too, what is still to be done."""

    def __init__(
        self, cache: FeatureCache, ids: NDArray[np.uint8], rows: int, present: int, progress: Progress
    ) -> None:
        self._cache = cache
        self._rows = rows
        self._ids = ids
        self._done = present
        self._progress = progress
        self._lock = threading.Lock()
        self._by_others = comparable(np.zeros((0, ID_BYTES), np.uint8))
        self._places: list[NDArray[np.int64]] = []
        self._features: list[Features] = []

    def lacks(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Bool `[n]`: which of these images, that were missing at first, no other run has written since."""
        with self._lock:
            self._by_others = np.concatenate([self._by_others, comparable(self._cache.refresh())])
            written = np.isin(comparable(self._ids[places]), self._by_others)
            self._done += int(written.sum())
        return ~written

    def take(self, places: NDArray[np.int64], features: Features) -> None:
        """Takes a batch, padding included."""
        real = places != PADDING
        if not np.isfinite(features[real]).all():
            raise UserError("--backbone gives features that are not finite numbers: take another module.")
        self._places.append(places[real])
        self._features.append(features[real])
        with self._lock:
            self._done += int(real.sum())
        self._progress(self._done, len(self._ids))
        if sum(map(len, self._places)) >= self._rows:
            self.flush()

    def flush(self) -> None:
        """Writes what has gathered."""
        if not self._places:
            return
        ids = self._ids[np.concatenate(self._places)]
        features = np.concatenate(self._features)
        with self._lock:
            self._cache.write(ids, features)
        self._places, self._features = [], []
