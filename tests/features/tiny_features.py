"""A small world for the tests beside it: images in memory, a cache, and an engine that counts what it computes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.images import ImageInput
from trainer.data.source import ArraySource
from trainer.features.batches import extractor_batches
from trainer.features.cache import FeatureCache
from trainer.features.content_ids import content_ids
from trainer.features.engine import Engine
from trainer.features.extractors import Extractor, Features, Pixels
from trainer.features.fill import ExampleBatches
from trainer.features.recipe import Recipe

SIZE = 4
"""Height and width of the images in pixels."""

FEATURES = 3
"""Length of the feature vectors that `CountingEngine` gives."""

RECIPE = Recipe(module="m", image_size=SIZE, resize="crop")


def noise_source(images: int, seed: int = 0) -> ArraySource:
    """Images that all differ."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, SIZE, SIZE, 3), np.uint8)
    return ArraySource(
        name="noise",
        class_names=("a", "b"),
        labels=np.arange(images, dtype=np.int32) % 2,
        keys=[f"{index:04d}" for index in range(images)],
        native_size=SIZE,
        pixels=pixels,
    )


def all_ids(source: ArraySource) -> NDArray[np.uint8]:
    """The ids of all images, uint8 `[n, 16]`."""
    return content_ids(source, np.arange(len(source.labels)), None)


def open_cache(root: Path, reports: list[str] | None = None, recipe: Recipe = RECIPE) -> FeatureCache:
    """The cache of a recipe; what it reports is appended."""
    return FeatureCache(str(root), recipe, FEATURES, (reports if reports is not None else []).append)


def features_of(pixels: Pixels) -> Features:
    """What `CountingEngine` computes: the mean of each channel, float32 `[n, 3]`."""
    return pixels.astype(np.float32).mean(axis=(1, 2))


def images_of(source: ArraySource) -> ExampleBatches:
    """All images of a source, as `fill` wants them."""
    indices = np.arange(len(source.labels))
    ids = all_ids(source)

    def images(order: tf.data.Dataset, batch: int) -> tf.data.Dataset:
        return extractor_batches(source, indices, ids, ImageInput(SIZE, "crop"), None, None, order, batch)

    return images


class CountingEngine(Engine):
    """Counts the images that it sees, black padding apart, and can be told to fail.

    Attributes:
      computed: how many images were computed.
      fail_after: raises `error` instead of computing once so many were.
    """

    def __init__(self, batch: int = 4, fail_after: int = 10**9, error: BaseException | None = None) -> None:
        self.batch = batch
        self.computed = 0
        self.fail_after = fail_after
        self._error = error or RuntimeError("told to fail")
        self._counting = threading.Lock()

    def extractor(self, probe: Pixels) -> Extractor:
        return _Counting(self)

    def compute(self, pixels: Pixels) -> Features:
        assert len(pixels) == self.batch
        with self._counting:
            if self.computed >= self.fail_after:
                raise self._error
            self.computed += int(pixels.any(axis=(1, 2, 3)).sum())
        return features_of(pixels)


class _Counting:
    name = "counting"
    calls_at_once = 1

    def __init__(self, engine: CountingEngine) -> None:
        self.batch = engine.batch
        self._engine = engine

    def __call__(self, pixels: Pixels) -> Features:
        return self._engine.compute(pixels)
