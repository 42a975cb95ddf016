"""Listings that are kept between runs: used while they are right, and never trusted when something speaks against."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_folders import write_classes, write_image

from trainer.config import Config
from trainer.data import listing_local
from trainer.data.file_source import FileSource
from trainer.data.listing import Entry, ListingProgress
from trainer.data.listing_cache import ListingCache
from trainer.data.sources import open_source

LONG_AGO = 1_600_000_000


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two settled class folders that are large enough for the cache, which is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing_local, "CACHED_FROM", 3)
    root = write_classes(tmp_path / "photos", {"roses": 3, "tulips": 2})
    settle(root)
    return root


def settle(root: Path) -> None:
    """Makes files and folders look as if nothing had happened to them for long."""
    for path in (*root.rglob("*"), root):
        os.utime(path, (LONG_AGO, LONG_AGO))


def opened(root: Path, reports: list[str] | None = None, **fields: object) -> FileSource:
    source = open_source(Config(data=f"folder:{root}", **fields), (reports if reports is not None else []).append)  # type: ignore[arg-type]
    assert isinstance(source, FileSource)
    return source


def cache_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache/hub-trainer/listings").iterdir()
    return path


def test_a_kept_listing_gives_the_same_source(photos: Path) -> None:
    (photos / "roses/notes.txt").write_text("x")
    (photos / "roses/small").mkdir()
    settle(photos)
    first_reports: list[str] = []
    again_reports: list[str] = []
    first = opened(photos, first_reports, on_bad_image="skip")
    again = opened(photos, again_reports, on_bad_image="skip")
    assert not first.from_cache and again.from_cache
    assert list(again.keys) == list(first.keys) and list(again.paths) == list(first.paths)
    assert again.fingerprint() == first.fingerprint() and again.skipped == first.skipped and len(first.skipped) == 1
    assert first_reports == again_reports and len(first_reports) == 1
    assert first.versions is not None and again.versions is not None
    assert np.array_equal(again.versions, first.versions)


def test_small_sets_are_not_kept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_local, "CACHED_FROM", 6)
    opened(photos)
    assert not (tmp_path / "cache").exists() and not opened(photos).from_cache


def test_added_removed_and_renamed_files_are_seen(photos: Path) -> None:
    opened(photos)
    write_image(photos / "roses/added.png")
    assert "roses/added.png" in opened(photos).keys
    settle(photos)
    opened(photos)
    (photos / "roses/added.png").rename(photos / "roses/renamed.png")
    assert "roses/renamed.png" in opened(photos).keys
    (photos / "roses/renamed.png").unlink()
    assert len(opened(photos)) == 5


def test_names_count_even_where_a_disk_keeps_no_times(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_local, "SPOT_CHECKS", 0)
    opened(photos)
    (photos / "roses/000.png").rename(photos / "roses/other.png")
    settle(photos)
    assert "roses/other.png" in opened(photos).keys


def test_a_folder_that_changed_just_now_is_not_kept(photos: Path) -> None:
    write_image(photos / "roses/new.png")
    opened(photos)
    assert set(ListingCache(str(photos)).read()) == {"tulips"}
    settle(photos)
    assert len(opened(photos)) == 6
    assert set(ListingCache(str(photos)).read()) == {"roses", "tulips"}


def test_a_file_replaced_by_another_is_seen_by_its_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_local, "SPOT_CHECKS", 0)
    before = opened(photos)
    write_image(photos / "new.png", shift=99)
    os.replace(photos / "new.png", photos / "roses/001.png")
    assert opened(photos).fingerprint() != before.fingerprint()


def test_a_file_written_anew_in_place_is_seen_by_a_spot_check(photos: Path) -> None:
    before = opened(photos)
    (photos / "tulips/000.png").write_bytes((photos / "tulips/000.png").read_bytes() + b" ")
    reports: list[str] = []
    after = opened(photos, reports)
    assert after.fingerprint() != before.fingerprint() and not after.from_cache
    assert len(reports) == 1 and "changed since" in reports[0]
    assert opened(photos).from_cache


def test_what_spot_checks_miss_shows_in_the_versions(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_local, "SPOT_CHECKS", 0)
    before = opened(photos).versions
    (photos / "tulips/000.png").write_bytes(b"other")
    source = opened(photos)
    assert source.from_cache and before is not None and source.versions is not None
    assert np.flatnonzero(before != source.versions).tolist() == [3]


@pytest.mark.parametrize(("checks", "rounds"), [(1, 300), (10_000, 1)])
def test_spot_checks_reach_every_image(photos: Path, monkeypatch: pytest.MonkeyPatch, checks: int, rounds: int) -> None:
    opened(photos)
    monkeypatch.setattr(listing_local, "SPOT_CHECKS", checks)
    folders = {name: folder for name, (_, folder) in ListingCache(str(photos)).read().items()}
    drawn = [f"{name}/{folder.names[at]}" for _ in range(rounds) for name, folder, at in listing_local._drawn(folders)]
    assert set(drawn) == set(opened(photos).keys)


@pytest.mark.parametrize("place", [0, 30, 60, 200, -1])
def test_a_damaged_cache_is_not_trusted(photos: Path, tmp_path: Path, place: int) -> None:
    first = opened(photos)
    content = bytearray(cache_file(tmp_path).read_bytes())
    content[place] ^= 1
    cache_file(tmp_path).write_bytes(content)
    again = opened(photos)
    assert not again.from_cache and again.fingerprint() == first.fingerprint()
    assert opened(photos).from_cache


@pytest.mark.parametrize("kept", [0, 10, 100, 300])
def test_a_cut_cache_is_not_trusted(photos: Path, tmp_path: Path, kept: int) -> None:
    opened(photos)
    cache_file(tmp_path).write_bytes(cache_file(tmp_path).read_bytes()[:kept])
    assert not opened(photos).from_cache


def test_the_cache_of_another_root_is_not_taken(photos: Path, tmp_path: Path) -> None:
    opened(photos)
    other = write_classes(tmp_path / "other", {"roses": 1, "tulips": 1})
    os.replace(cache_file(tmp_path), ListingCache(str(other)).path)
    assert ListingCache(str(other)).read() == {}


def test_some_classes_do_not_drop_the_others_from_the_cache(photos: Path) -> None:
    write_classes(photos, {"asters": 2})
    settle(photos)
    opened(photos, classes="roses,tulips")
    opened(photos, classes="asters,tulips")
    assert opened(photos).from_cache and len(opened(photos)) == 7


def test_a_cache_that_cannot_be_written_is_one_line(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    reports: list[str] = []
    assert len(opened(photos, reports)) == 5
    assert len(reports) == 1 and "could not be kept" in reports[0]


def test_links_are_followed_to_what_they_point_to(photos: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "target.png")
    (photos / "roses/link.png").symlink_to(tmp_path / "target.png")
    settle(photos)
    before = opened(photos)
    write_image(tmp_path / "target.png", shift=77)
    assert opened(photos).fingerprint() != before.fingerprint()


def test_progress_is_told_every_few_seconds() -> None:
    now = [0.0]
    reports: list[str] = []
    progress = ListingProgress("/photos", reports.append, lambda: now[0])

    def entries() -> list[Entry]:
        now[0] += 3.0
        return [Entry("a.jpg", False)] * 1500

    for _ in range(4):
        assert len(list(progress.counted(entries()))) == 1500
    assert reports == ["Listing /photos: 2,500 files so far.", "Listing /photos: 5,500 files so far."]


def test_a_local_listing_needs_neither_tensorflow_nor_google(photos: Path) -> None:
    program = (
        "import sys; from trainer.config import Config; from trainer.data.sources import open_source;"
        "print(len(open_source(Config(data=f'folder:{sys.argv[1]}'))));"
        "print([name for name in ('tensorflow', 'google.cloud.storage', 'requests') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program, str(photos)], capture_output=True, text=True, timeout=60)
    assert process.stdout == "5\n[]\n", process.stderr
