"""Features come in the very order in which the images would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_features
from numpy.typing import NDArray
from test_pipeline import SHARDINGS, assert_equal, global_batches
from tiny_features import CountingEngine, all_ids, features_of, images_of, noise_source, open_cache

from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.data.order import PADDING, Share
from trainer.data.pipeline import Augmentation, augmentation_of, evaluation_batches, training_batches
from trainer.data.source import ArraySource
from trainer.features.batches import (
    TrainingFeatures,
    evaluation_feature_batches,
    extractor_batches,
    training_feature_batches,
)
from trainer.features.fill import fill
from trainer.features.recipe import Recipe, View
from trainer.features.table import FeatureTable, Part

SOURCE = noise_source(23)
INDICES = np.array([2, 3, 5, 7, 11, 13, 17, 19, 20, 21, 22])
IMAGES = ImageInput(tiny_features.SIZE, "crop")
STEPS = (3, 9)
SEED = 5


def table_of(root: Path, indices: NDArray[np.int64], views: int = 1) -> FeatureTable:
    """The features of some images, `views` times, those of view v greater by v."""
    parts = []
    ids = all_ids(SOURCE)
    for view in range(views):
        cache = open_cache(root, recipe=Recipe(f"view {view}", tiny_features.SIZE, "crop"))
        cache.write(ids, features_of(SOURCE.pixels) + view)
        parts.append(Part(cache, ids[indices]))
    return FeatureTable(parts)


def images_to_features(batches: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    return [
        {"features": features_of(batch["image"]), **{name: batch[name] for name in batch if name != "image"}}
        for batch in batches
    ]


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_training_sees_the_features_of_the_images_that_it_would_see(sharding: str, tmp_path: Path) -> None:
    features, shares = TrainingFeatures(table_of(tmp_path, INDICES), 1), SHARDINGS[sharding]
    config = Config(seed=SEED)
    by_image = global_batches(shares, lambda share: training_batches(SOURCE, INDICES, config, IMAGES, share, *STEPS))
    by_features = global_batches(
        shares, lambda share: training_feature_batches(features, SOURCE, INDICES, SEED, share, *STEPS)
    )
    assert_equal(by_features, images_to_features(by_image))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_evaluation_does_too(sharding: str, tmp_path: Path) -> None:
    evaluated = np.arange(23)
    rows = INDICES.astype(np.int64)
    table, shares = table_of(tmp_path, evaluated), SHARDINGS[sharding]
    by_image = global_batches(shares, lambda share: evaluation_batches(SOURCE, INDICES, IMAGES, share))
    by_features = global_batches(shares, lambda share: evaluation_feature_batches(table, SOURCE, INDICES, rows, share))
    assert_equal(by_features, images_to_features(by_image))
    padding = by_features[-1]["index"] == PADDING
    assert padding.any() and not by_features[-1]["features"][padding].any()


def test_epochs_go_through_the_views_in_turn(tmp_path: Path) -> None:
    features = TrainingFeatures(table_of(tmp_path, INDICES, views=3), 3)
    share = Share(len(INDICES), 1, 0, 1)
    epochs = list(training_feature_batches(features, SOURCE, INDICES, SEED, share, 0, 5).as_numpy_iterator())
    for epoch, batch in enumerate(epochs):
        assert sorted(batch["index"]) == INDICES.tolist()
        np.testing.assert_allclose(batch["features"], features_of(SOURCE.pixels[batch["index"]]) + epoch % 3, rtol=1e-6)


def test_a_batch_that_straddles_epochs_takes_two_views(tmp_path: Path) -> None:
    features = TrainingFeatures(table_of(tmp_path, INDICES, views=2), 2)
    batches = training_feature_batches(features, SOURCE, INDICES, SEED, Share(8, 1, 0, 1), 1, 2)
    (batch,) = batches.as_numpy_iterator()
    views = (batch["features"] - features_of(SOURCE.pixels[batch["index"]])).mean(axis=1).round(3)
    assert views.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def drawn(
    places: list[int], source: ArraySource, view: View | None, augmentation: Augmentation | None, batch: int = 2
) -> dict[int, NDArray[np.uint8]]:
    """The pixels at some places, as an extractor gets them."""
    ids = all_ids(source)[INDICES]
    order = tf.data.Dataset.from_tensors(np.array(places))
    batches = extractor_batches(source, INDICES, ids, IMAGES, view, augmentation, order, batch)
    rows: dict[int, NDArray[np.uint8]] = {}
    for rows_of_batch in batches.as_numpy_iterator():
        assert rows_of_batch["example"].shape == (batch, tiny_features.SIZE, tiny_features.SIZE, 3)
        rows |= dict(zip(rows_of_batch["place"].tolist(), rows_of_batch["example"]))
    return rows


def test_pixels_are_those_of_the_place_and_padding_is_black() -> None:
    rows = drawn([10, 0, 4, PADDING], SOURCE, None, None)
    assert sorted(rows) == [PADDING, 0, 4, 10]
    for place in (0, 4, 10):
        np.testing.assert_array_equal(rows[place], SOURCE.pixels[INDICES[place]])
    assert not rows[PADDING].any()


def augmenting(seed: int = SEED) -> Augmentation:
    augmentation = augmentation_of(Config.parse({"augment": "flip,crop", "seed": seed, "data": "synthetic:2"}), IMAGES)
    assert augmentation is not None
    return augmentation


def test_a_view_of_an_image_depends_on_that_image_view_and_seed_alone() -> None:
    view = View(0, SEED, ("crop", "flip"), 0.0)
    one = drawn([0, 1, 2, 3, 4, 5, 6, 7], SOURCE, view, augmenting())
    for places in ([7, 6, 5, 4, 3, 2, 1, 0], [5, 2]):
        for place, pixels in drawn(places, SOURCE, view, augmenting()).items():
            np.testing.assert_array_equal(pixels, one[place])
    changed = noise_source(23)
    changed.pixels[INDICES[3]] += 1
    again = drawn([0, 1, 2, 3, 4, 5, 6, 7], changed, view, augmenting())
    assert [place for place in one if (again[place] != one[place]).any()] == [3]


def test_an_image_at_another_place_is_augmented_as_before() -> None:
    view = View(0, SEED, ("crop", "flip"), 0.0)
    moved = noise_source(23)
    moved.pixels[INDICES[[1, 6]]] = moved.pixels[INDICES[[6, 1]]]
    before, after = (drawn(list(range(8)), source, view, augmenting()) for source in (SOURCE, moved))
    np.testing.assert_array_equal(after[6], before[1])
    np.testing.assert_array_equal(after[1], before[6])
    assert (after[1] != before[1]).any()


@pytest.mark.parametrize("other", [View(1, SEED, ("crop", "flip"), 0.0), View(0, SEED + 1, ("crop", "flip"), 0.0)])
def test_another_view_or_seed_draws_other_numbers(other: View) -> None:
    one = drawn(list(range(8)), SOURCE, View(0, SEED, ("crop", "flip"), 0.0), augmenting())
    two = drawn(list(range(8)), SOURCE, other, augmenting())
    assert sum((one[place] != two[place]).any() for place in one) >= 6


def test_what_fill_keeps_is_found_in_the_batches(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    fill(cache, all_ids(SOURCE), images_of(SOURCE), CountingEngine(), lambda done, total: None)
    features = TrainingFeatures(FeatureTable([Part(cache, all_ids(SOURCE)[INDICES])]), 1)
    for batch in training_feature_batches(features, SOURCE, INDICES, 0, Share(8, 1, 0, 1), 0, 4).as_numpy_iterator():
        np.testing.assert_array_equal(batch["features"], features_of(SOURCE.pixels[batch["index"]]))
