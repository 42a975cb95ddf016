"""The features of a run's images, row by row, for the input pipeline: in memory where they are few, else from disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.features.cache import FeatureCache, Places
from trainer.features.shards import first_feature

MEMORY_LIMIT = 64 * 2**20
"""Bytes of features that are held in memory: 13 000 images at 1280 features. More are read from disk row by row."""

_FLOAT_BYTES = 4


class Part(NamedTuple):
    """Consecutive rows of a table: images by their ids, uint8 `[n, 16]`, in a cache that has them all."""

    cache: FeatureCache
    ids: NDArray[np.uint8]


class FeatureTable:
    """Rows of features.

    Attributes:
      rows: how many.
      feature_size: length of each.
    """

    def __init__(self, parts: Sequence[Part], memory_limit: int = MEMORY_LIMIT) -> None:
        """Opens or loads the rows of the parts, one part's behind the other's.

        Args:
          parts: at least one.
          memory_limit: bytes of features that may be held in memory.

        Raises:
          UserError: a cache may not be read any more.
        """
        self.rows = sum(len(part.ids) for part in parts)
        self.feature_size = parts[0].cache.feature_size
        small = self.rows * self.feature_size * _FLOAT_BYTES <= memory_limit
        self._vectors: _InMemory | _OnDisk = _InMemory(parts) if small else _OnDisk(parts)

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function, to be traced into a dataset, from rows (int64 `[b]`) to features (float32 `[b, size]`)."""
        return self._vectors.reader()


class _InMemory:
    def __init__(self, parts: Sequence[Part]) -> None:
        features = np.concatenate([_loaded(part) for part in parts])
        with tf.device("CPU:0"):
            self._features = tf.constant(features)

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda rows: tf.gather(self._features, rows)


class _OnDisk:
    """Each row is read where it lies: neither memory nor the count of open files grows with the images.

    Shards on `gs://` are copied to a temporary folder first, since a run reads each of their rows once an epoch.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._copies = tempfile.TemporaryDirectory(prefix="hub-trainer-features-")
        self._paths: list[str] = []
        self._size = parts[0].cache.feature_size
        paths, offsets = [], []
        for part in parts:
            places = part.cache.find(part.ids)
            numbers, inverse = np.unique(_checked(places), return_inverse=True)
            opened = [self._open(part.cache, number) for number in numbers.tolist()]
            paths.append(np.array([path for path, _ in opened], np.int32)[inverse])
            starts = np.array([start for _, start in opened], np.int64)[inverse]
            offsets.append(starts + places.rows.astype(np.int64) * self._size * _FLOAT_BYTES)
        self._path_of_row = np.concatenate(paths)
        self._offset_of_row = np.concatenate(offsets)

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def read(rows: tf.Tensor) -> tf.Tensor:
            features = tf.numpy_function(self._read, [rows], tf.float32, stateful=False)
            features.set_shape([rows.shape[0], self._size])
            return features

        return read

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        features = np.empty((len(rows), self._size), np.float32)
        for vector, row in zip(features, rows.tolist()):
            path = self._paths[self._path_of_row[row]]
            file = os.open(path, os.O_RDONLY)
            try:
                if os.preadv(file, [vector.data], int(self._offset_of_row[row])) != vector.nbytes:
                    raise OSError(f"{path} was cut short while the run was using it")
            finally:
                os.close(file)
        return features

    def _open(self, cache: FeatureCache, number: int) -> tuple[int, int]:
        """Checks a shard; gives the number of its path, and where in it the features begin, in bytes."""
        rows = len(cache.load(number).ids)
        path = cache.folder.join(cache.shard_name(number))
        if cache.folder.is_remote:
            copy = os.path.join(self._copies.name, str(len(self._paths)))
            tf.io.gfile.copy(path, copy)
            path = copy
        self._paths.append(path)
        return len(self._paths) - 1, first_feature(rows)


def _loaded(part: Part) -> NDArray[np.float32]:
    """The features of a part, `[n, size]`, shard by shard."""
    places = part.cache.find(part.ids)
    features = np.empty((len(part.ids), part.cache.feature_size), np.float32)
    for number in np.unique(_checked(places)).tolist():
        mine = places.shards == number
        features[mine] = part.cache.load(number).features[places.rows[mine]]
    return features


def _checked(places: Places) -> NDArray[np.int32]:
    """The shards of places that must all be there."""
    if places.missing.any():
        raise RuntimeError(f"the feature cache lacks {int(places.missing.sum())} images that were just computed")
    return places.shards
