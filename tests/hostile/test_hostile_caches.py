"""Files of the program's own caches, damaged: what was in them is made anew, and no result is another."""

from __future__ import annotations

import os
import random
from pathlib import Path

import hostile_caches
import numpy as np
import pytest
import tiny_features
from image_folders import write_classes
from record_files import write_numbered

from trainer.config import Config
from trainer.data import listing_local
from trainer.data.file_source import FileSource
from trainer.data.sources import open_source
from trainer.features.fill import missing_places

_LONG_AGO = 1_700_000_000


@pytest.mark.parametrize("damage", hostile_caches.DAMAGES)
def test_a_damaged_shard_of_features_is_taken_away_and_not_believed(damage: str, tmp_path: Path) -> None:
    ids = np.frombuffer(random.Random(0).randbytes(6 * 16), np.uint8).reshape(6, 16)
    features = np.arange(18, dtype=np.float32).reshape(6, 3)
    tiny_features.open_cache(tmp_path).write(ids, features)
    (shard,) = tmp_path.rglob("*.features")
    shard.write_bytes(hostile_caches.damaged(shard.read_bytes(), damage))
    reports: list[str] = []
    cache = tiny_features.open_cache(tmp_path, reports)
    assert list(missing_places(cache, ids)) == list(range(6))
    assert len(reports) == 1 and shard.name in reports[0] and not shard.exists()
    cache.write(ids, features)
    again = tiny_features.open_cache(tmp_path)
    found = again.find(ids)
    assert (again.load(0).features[found.rows] == features).all()


@pytest.mark.parametrize("damage", hostile_caches.DAMAGES)
def test_a_damaged_listing_is_made_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing_local, "CACHED_FROM", 3)
    root = write_classes(tmp_path / "photos", {"roses": 3, "tulips": 2})
    for path in (*root.rglob("*"), root):
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    config = Config(data=f"folder:{root}")
    first = open_source(config)
    (kept,) = (tmp_path / "cache/hub-trainer/listings").iterdir()
    kept.write_bytes(hostile_caches.damaged(kept.read_bytes(), damage))
    again = open_source(config)
    assert isinstance(again, FileSource) and not again.from_cache
    assert list(again.keys) == list(first.keys) and again.fingerprint() == first.fingerprint()
    third = open_source(config)
    assert isinstance(third, FileSource) and third.from_cache


@pytest.mark.parametrize("damage", hostile_caches.DAMAGES)
def test_a_damaged_index_of_records_is_made_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_numbered(tmp_path / "x.tfrecord", 6)
    config = Config(data=f"tfrecord:{tmp_path}/x.tfrecord")
    first = open_source(config)
    (kept,) = (tmp_path / "cache/hub-trainer/record-index").iterdir()
    kept.write_bytes(hostile_caches.damaged(kept.read_bytes(), damage))
    again = open_source(config)
    assert list(again.keys) == list(first.keys) and again.fingerprint() == first.fingerprint()
    assert [again.encoded(n) for n in range(6)] == [first.encoded(n) for n in range(6)]
