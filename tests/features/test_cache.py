"""Shards are added, never changed, and never believed without their checksum."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_features
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.features.cache import LAYOUT, FeatureCache
from trainer.features.shards import DamagedShardError, Shard, decode_shard
from trainer.storage import RunDirectory

IDS = tiny_features.all_ids(tiny_features.noise_source(12))
FEATURES = (np.arange(36) / 7).astype(np.float32).reshape(12, 3)


def shard_files(root: Path) -> list[Path]:
    return sorted((root / LAYOUT / tiny_features.RECIPE.key).glob("*.features"))


def found(cache: FeatureCache, ids: NDArray[np.uint8] = IDS) -> dict[int, list[float]]:
    """The features of those ids that the cache has, by their place."""
    places = cache.find(ids)
    return {
        place: cache.load(int(places.shards[place])).features[places.rows[place]].tolist()
        for place in np.flatnonzero(~places.missing).tolist()
    }


def expected(*places: int) -> dict[int, list[float]]:
    return {place: FEATURES[place].tolist() for place in places}


def test_what_was_written_is_found_by_its_id(tmp_path: Path) -> None:
    cache = tiny_features.open_cache(tmp_path)
    assert found(cache) == {}
    assert list(tmp_path.iterdir()) == []
    cache.write(IDS[[5, 2]], FEATURES[[5, 2]])
    cache.write(IDS[[9]], FEATURES[[9]])
    assert found(cache) == expected(2, 5, 9)
    assert found(tiny_features.open_cache(tmp_path)) == expected(2, 5, 9)
    recipe = json.loads((shard_files(tmp_path)[0].parent / "recipe.json").read_text())
    assert recipe["module"] == "m" and recipe["image_size"] == tiny_features.SIZE


def test_another_recipe_sees_nothing_of_it(tmp_path: Path) -> None:
    tiny_features.open_cache(tmp_path).write(IDS, FEATURES)
    other = tiny_features.Recipe(module="other", image_size=tiny_features.SIZE, resize="crop")
    assert found(tiny_features.open_cache(tmp_path, recipe=other)) == {}


def test_a_run_sees_what_another_adds(tmp_path: Path) -> None:
    one, other = tiny_features.open_cache(tmp_path), tiny_features.open_cache(tmp_path)
    one.write(IDS[:3], FEATURES[:3])
    assert found(other) == {}
    other.refresh()
    assert found(other) == expected(0, 1, 2)


def test_two_that_write_the_same_write_one_file(tmp_path: Path) -> None:
    for cache in (tiny_features.open_cache(tmp_path), tiny_features.open_cache(tmp_path)):
        cache.write(IDS, FEATURES)
        cache.write(IDS, FEATURES)
    assert len(shard_files(tmp_path)) == 1


def test_where_an_image_is_twice_the_order_of_writing_does_not_count(tmp_path: Path) -> None:
    shards = [FEATURES[:4], FEATURES[:4] + 1, FEATURES[:4] + 2]
    for name, order in (("a", shards), ("b", shards[::-1])):
        cache = tiny_features.open_cache(tmp_path / name)
        for features in order:
            cache.write(IDS[:4], features)
    a, b = found(tiny_features.open_cache(tmp_path / "a")), found(tiny_features.open_cache(tmp_path / "b"))
    assert a == b and len(a) == 4
    assert found(cache) == a  # The one that wrote it, too.


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: b"X" + content[1:],
    ],
    ids=["bit", "cut", "empty", "longer", "magic"],
)
def test_a_damaged_shard_is_said_taken_away_and_not_used(damage: object, tmp_path: Path) -> None:
    cache = tiny_features.open_cache(tmp_path)
    cache.write(IDS[:3], FEATURES[:3])
    (damaged,) = shard_files(tmp_path)
    cache.write(IDS[3:5], FEATURES[3:5])
    damaged.write_bytes(damage(damaged.read_bytes()))  # type: ignore[operator]
    reports: list[str] = []
    assert found(tiny_features.open_cache(tmp_path, reports)) == expected(3, 4)
    assert len(reports) == 1 and damaged.name in reports[0] and "its features are computed again" in reports[0]
    assert not damaged.exists() and len(shard_files(tmp_path)) == 1


def test_a_damaged_shard_that_cannot_be_deleted_is_not_used_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_features.open_cache(tmp_path).write(IDS[:3], FEATURES[:3])
    (damaged,) = shard_files(tmp_path)
    damaged.write_bytes(b"")

    def refuse(self: RunDirectory, name: str) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(RunDirectory, "delete_tree", refuse)
    reports: list[str] = []
    assert found(tiny_features.open_cache(tmp_path, reports)) == {}
    assert reports[1:] == ["The damaged shard stays where it is: read-only"]


def test_a_shard_that_is_damaged_while_it_is_used_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    cache = tiny_features.open_cache(tmp_path)
    cache.write(IDS, FEATURES)
    (file,) = shard_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="was damaged just now .* start the run again"):
        cache.load(0)


def test_what_is_no_shard_is_left_alone(tmp_path: Path) -> None:
    cache = tiny_features.open_cache(tmp_path)
    cache.write(IDS[:2], FEATURES[:2])
    folder = shard_files(tmp_path)[0].parent
    (folder / "notes.txt").write_text("mine")
    (folder / ".half.features").write_bytes(b"still being written")
    older = tmp_path / "v0" / tiny_features.RECIPE.key
    older.mkdir(parents=True)
    (older / "x.features").write_bytes(b"of another version")
    reports: list[str] = []
    assert found(tiny_features.open_cache(tmp_path, reports)) == expected(0, 1)
    assert reports == []
    assert (folder / "notes.txt").exists() and (folder / ".half.features").exists() and (older / "x.features").exists()


def test_a_shard_of_another_size_with_a_right_checksum_is_refused() -> None:
    name, content = Shard(IDS[:2], FEATURES[:2]).encode()
    assert decode_shard(name, content, 3).features.tolist() == FEATURES[:2].tolist()
    with pytest.raises(DamagedShardError, match="2 rows of 3"):
        decode_shard(name, content, 4)
