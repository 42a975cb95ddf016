"""Rows of features come out the same, whether they lie in memory or on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_features
from numpy.typing import NDArray

from trainer.features.table import FeatureTable, Part

IDS = tiny_features.all_ids(tiny_features.noise_source(12))
FEATURES = (np.arange(36) / 7).astype(np.float32).reshape(12, 3)

IN_MEMORY = 10**6
ON_DISK = 12


def parts(root: Path) -> list[Part]:
    """All images in three shards, then some of them again from a cache of another recipe, with other features."""
    one = tiny_features.open_cache(root)
    for places in ([3, 1, 7], [0, 2, 4, 5, 6], [11, 10, 9, 8]):
        one.write(IDS[places], FEATURES[places])
    other = tiny_features.open_cache(root, recipe=tiny_features.Recipe("other", tiny_features.SIZE, "crop"))
    other.write(IDS, FEATURES + 100)
    return [Part(one, IDS), Part(other, IDS[[5, 5, 0]])]


EXPECTED = np.concatenate([FEATURES, FEATURES[[5, 5, 0]] + 100])


def read(table: FeatureTable, rows: list[int]) -> NDArray[np.float32]:
    """What a dataset gets."""
    dataset = tf.data.Dataset.from_tensors(np.array(rows)).map(table.reader())
    assert dataset.element_spec == tf.TensorSpec([len(rows), tiny_features.FEATURES], tf.float32)
    (features,) = dataset.as_numpy_iterator()
    return np.asarray(features)


@pytest.mark.parametrize("memory_limit", [IN_MEMORY, ON_DISK])
def test_rows_are_those_of_the_parts_in_their_order(memory_limit: int, tmp_path: Path) -> None:
    table = FeatureTable(parts(tmp_path), memory_limit)
    assert (table.rows, table.feature_size) == (15, 3)
    np.testing.assert_array_equal(read(table, list(range(15))), EXPECTED)
    order = [14, 3, 3, 12, 0, 8]
    np.testing.assert_array_equal(read(table, order), EXPECTED[order])


def test_on_disk_nothing_is_held_in_memory(tmp_path: Path) -> None:
    table = FeatureTable(parts(tmp_path), ON_DISK)
    files = sorted(tmp_path.rglob("*.features"))
    assert len(files) == 4
    for file in files:
        file.rename(file.with_suffix(".gone"))
    with pytest.raises(tf.errors.OpError, match="No such file"):
        read(table, [0])


def test_a_file_that_is_cut_short_is_no_row_of_zeros(tmp_path: Path) -> None:
    table = FeatureTable(parts(tmp_path), ON_DISK)
    for file in tmp_path.rglob("*.features"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(tf.errors.OpError, match="was cut short while the run was using it"):
        read(table, list(range(15)))


@pytest.mark.parametrize("memory_limit", [IN_MEMORY, ON_DISK])
def test_a_cache_without_all_images_is_a_bug(memory_limit: int, tmp_path: Path) -> None:
    cache = tiny_features.open_cache(tmp_path)
    cache.write(IDS[:11], FEATURES[:11])
    with pytest.raises(RuntimeError, match="lacks 1 images"):
        FeatureTable([Part(cache, IDS)], memory_limit)
