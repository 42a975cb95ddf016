"""Images in an object store are read many at once; here it is one in memory, whose answers take a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf
from image_folders import encoded, gradient
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches, training_batches
from trainer.data.source import EncodedSource

EXAMPLES = 48
REMOTE_SECONDS, LOCAL_SECONDS = 0.1, 0.01
"""What a read takes: long enough to see how many there are at once."""

LEAST_AT_ONCE = 12
"""Far more than a machine that runs the tests has cores to spare for one map, far fewer than is asked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SlowSource(EncodedSource):
    """Counts how many are being read at once."""

    reading: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=lambda: [0])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def encoded(self, index: int) -> bytes:
        return encoded(gradient(shift=index))

    def encoded_reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        def answer(place: tf.Tensor) -> bytes:
            index = int(indices[int(place)])
            with self.lock:
                self.reading.append(index)
                self.most[0] = max(self.most[0], len(self.reading))
            time.sleep(REMOTE_SECONDS if self.root.startswith("gs://") else LOCAL_SECONDS)
            with self.lock:
                self.reading.remove(index)
            return self.encoded(index)

        return lambda place: tf.ensure_shape(tf.py_function(answer, [place], tf.string), [])

    def place_of(self, index: int) -> str:
        return self.keys[index]

    def _taking(self, kept: NDArray[np.int64]) -> EncodedSource:
        raise NotImplementedError

    def _content(self) -> bytes:
        return b""


def slow_source(root: str) -> SlowSource:
    labels = np.arange(EXAMPLES, dtype=np.int32) % 2
    keys = [f"{index:03d}" for index in range(EXAMPLES)]
    return SlowSource(name="slow", class_names=("a", "b"), labels=labels, keys=keys, root=root)


@pytest.mark.parametrize("augmentation", ["", "crop"])
def test_remote_images_are_read_many_at_once_and_come_out_as_local_ones(augmentation: str) -> None:
    image_input, share = ImageInput(8, "crop"), Share(16, 2, 0, 2)
    config = Config(augment=augmentation)  # type: ignore[arg-type]
    indices = np.arange(1, EXAMPLES)

    def batches(source: SlowSource) -> list[dict[str, np.ndarray]]:
        training = training_batches(source, indices, config, image_input, share, 2, 6)
        evaluation = evaluation_batches(source, indices, image_input, share)
        return [*training.as_numpy_iterator(), *evaluation.as_numpy_iterator()]

    remote, local = slow_source("gs://bucket/photos"), slow_source("/photos")
    found, expected = batches(remote), batches(local)
    assert remote.most[0] >= LEAST_AT_ONCE > local.most[0]
    assert len(found) == len(expected) == 14 and (found[-1]["index"] == -1).any()
    for one, other in zip(found, expected):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
