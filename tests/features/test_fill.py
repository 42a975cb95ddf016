"""Every image is computed once, whoever else computes and however often it is stopped."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_features
from tiny_features import CountingEngine, all_ids, features_of, images_of, noise_source, open_cache

from trainer.data.source import ArraySource
from trainer.errors import UserError
from trainer.features import fill as fill_module
from trainer.features.cache import FeatureCache
from trainer.features.fill import fill, missing_places


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of a few images."""
    monkeypatch.setattr(fill_module, "SHARD_ROWS", 8)


def quietly(done: int, total: int) -> None:
    """Shows no progress."""


def assert_complete(cache: FeatureCache, source: ArraySource) -> None:
    """The cache has the right features of all images."""
    places = cache.find(all_ids(source))
    assert not places.missing.any()
    for place, expected in enumerate(features_of(source.pixels)):
        features = cache.load(int(places.shards[place])).features[places.rows[place]]
        np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("start", [0.0, 0.5, 0.999])
def test_all_are_computed_once_and_a_second_time_none(start: float, tmp_path: Path) -> None:
    source, engine, cache = noise_source(30), CountingEngine(), open_cache(tmp_path)
    shown: list[tuple[int, int]] = []
    fill(cache, all_ids(source), images_of(source), engine, lambda *counts: shown.append(counts), start)
    assert engine.computed == 30
    assert_complete(open_cache(tmp_path), source)
    assert shown == sorted(shown) and shown[-1] == (30, 30)
    again = CountingEngine()
    fill(open_cache(tmp_path), all_ids(source), images_of(source), again, quietly)
    assert again.computed == 0


def test_a_changed_image_alone_is_computed_again(tmp_path: Path) -> None:
    source = noise_source(30)
    fill(open_cache(tmp_path), all_ids(source), images_of(source), CountingEngine(), quietly)
    source.pixels[17] += 1
    engine = CountingEngine()
    fill(open_cache(tmp_path), all_ids(source), images_of(source), engine, quietly)
    assert engine.computed == 1
    assert_complete(open_cache(tmp_path), source)


def test_equal_images_are_computed_once(tmp_path: Path) -> None:
    source, engine = noise_source(10), CountingEngine()
    source.pixels[7] = source.pixels[3]
    cache = open_cache(tmp_path)
    assert missing_places(cache, all_ids(source)).tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    fill(cache, all_ids(source), images_of(source), engine, quietly)
    assert engine.computed == 9
    assert_complete(cache, source)


def test_an_interrupted_fill_goes_on_where_it_was(tmp_path: Path) -> None:
    source = noise_source(30)
    stopped = CountingEngine(batch=2, fail_after=21, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fill(open_cache(tmp_path), all_ids(source), images_of(source), stopped, quietly)
    kept = 30 - len(missing_places(open_cache(tmp_path), all_ids(source)))
    assert kept >= stopped.computed - 2 * stopped.batch  # Of the last shard, too, which was not yet full.
    rest = CountingEngine()
    fill(open_cache(tmp_path), all_ids(source), images_of(source), rest, quietly)
    assert rest.computed == 30 - kept
    assert_complete(open_cache(tmp_path), source)


def test_a_damaged_shard_is_computed_again(tmp_path: Path) -> None:
    source, reports = noise_source(30), list[str]()
    fill(open_cache(tmp_path), all_ids(source), images_of(source), CountingEngine(), quietly)
    damaged = next(tmp_path.rglob("*.features"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    engine = CountingEngine()
    fill(open_cache(tmp_path, reports), all_ids(source), images_of(source), engine, quietly)
    assert 0 < engine.computed <= 8 and len(reports) == 1
    assert_complete(open_cache(tmp_path), source)


def test_two_that_fill_at_once_share_the_work(tmp_path: Path) -> None:
    source = noise_source(400)
    engines = [CountingEngine(), CountingEngine()]
    threads = [
        threading.Thread(
            target=fill, args=(open_cache(tmp_path), all_ids(source), images_of(source), engine, quietly, start)
        )
        for engine, start in zip(engines, (0.0, 0.5))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    computed = [engine.computed for engine in engines]
    assert_complete(open_cache(tmp_path), source)
    # What the pipeline has prepared ahead when the other comes by is computed twice; alone each would compute 400.
    assert min(computed) > 0 and sum(computed) < 700, computed


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_features, "features_of", lambda pixels: np.full((len(pixels), 3), np.nan, np.float32))
    source = noise_source(10)
    with pytest.raises(UserError, match="gives features that are not finite numbers"):
        fill(open_cache(tmp_path), all_ids(source), images_of(source), CountingEngine(), quietly)
    assert len(missing_places(open_cache(tmp_path), all_ids(source))) == 10


def test_the_error_that_ended_it_is_the_news_even_if_the_rest_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FeatureCache, ids: np.ndarray, features: np.ndarray) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(FeatureCache, "write", full)
    source = noise_source(30)
    with pytest.raises(UserError, match="the disk is full"):
        fill(open_cache(tmp_path), all_ids(source), images_of(source), CountingEngine(), quietly)
    with pytest.raises(KeyboardInterrupt):
        stopped = CountingEngine(batch=2, fail_after=5, error=KeyboardInterrupt())
        fill(open_cache(tmp_path), all_ids(source), images_of(source), stopped, quietly)
