"""An image is known by its content, and need not be read again to be known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import image_folders
import numpy as np
import pytest
import tensorflow as tf
import tiny_features
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.sources import open_source
from trainer.features.content_ids import IdMemory, content_ids
from trainer.storage import RunDirectory

LONG_AGO_NANOSECONDS = 10**18


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four images that were written long ago."""
    root = image_folders.write_classes(tmp_path / "photos", {"cat": 4, "dog": 4})
    for file in root.rglob("*.png"):
        set_time(file, LONG_AGO_NANOSECONDS)
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the images that are read from now on."""
    read: list[int] = []
    encoded_reader = FileSource.encoded_reader

    def counted(self: FileSource, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        read.extend(indices.tolist())
        return encoded_reader(self, indices)

    monkeypatch.setattr(FileSource, "encoded_reader", counted)
    return read


def set_time(file: Path, nanoseconds: int) -> None:
    os.utime(file, ns=(nanoseconds, nanoseconds))


def ids_of(photos: Path, memory: Path | None = None, reports: list[str] | None = None) -> dict[str, bytes]:
    """The id of each image, by its key."""
    source = open_source(Config.parse({"data": f"folder:{photos}"}))
    remembered = IdMemory(RunDirectory(str(memory)), str(photos)) if memory else None
    indices = np.arange(len(source.keys))
    ids: NDArray[np.uint8] = content_ids(source, indices, remembered, (reports if reports is not None else []).append)
    assert ids.dtype == np.uint8 and ids.shape == (len(source.keys), 16)
    return {key: row.tobytes() for key, row in zip(source.keys, ids)}


def test_arrays_are_known_by_their_pixels() -> None:
    source = tiny_features.noise_source(5)
    ids = tiny_features.all_ids(source)
    assert len(np.unique(ids, axis=0)) == 5
    source.pixels[3, 0, 0, 0] ^= 1
    assert (tiny_features.all_ids(source) != ids).any(axis=1).tolist() == [False, False, False, True, False]


def test_a_moved_image_is_the_same_and_a_changed_one_is_not(photos: Path) -> None:
    before = ids_of(photos)
    assert len(set(before.values())) == 8
    (photos / "cat" / "000.png").rename(photos / "dog" / "moved.png")
    image_folders.write_image(photos / "cat" / "001.png", shift=200)
    after = ids_of(photos)
    assert after["dog/moved.png"] == before["cat/000.png"]
    assert {key for key in after if key in before and after[key] != before[key]} == {"cat/001.png"}


def test_what_is_remembered_is_not_read_again(photos: Path, tmp_path: Path, reads: list[int]) -> None:
    memory = tmp_path / "memory"
    first = ids_of(photos, memory)
    assert sorted(reads) == list(range(8))
    reads.clear()
    assert ids_of(photos, memory) == first
    assert reads == []


def test_a_changed_file_of_the_same_size_is_read_again(photos: Path, tmp_path: Path, reads: list[int]) -> None:
    memory = tmp_path / "memory"
    before = ids_of(photos, memory)
    reads.clear()
    file = photos / "dog" / "002.png"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    set_time(file, LONG_AGO_NANOSECONDS + 10**9)
    after = ids_of(photos, memory)
    assert len(reads) == 1
    assert {key for key in after if after[key] != before[key]} == {"dog/002.png"}


def test_a_file_that_was_written_just_now_is_not_trusted(photos: Path, tmp_path: Path, reads: list[int]) -> None:
    memory = tmp_path / "memory"
    set_time(photos / "cat" / "003.png", time.time_ns())
    ids_of(photos, memory)
    reads.clear()
    ids_of(photos, memory)
    assert len(reads) == 1


def test_images_that_are_known_elsewhere_are_not_mixed_up(photos: Path, tmp_path: Path, reads: list[int]) -> None:
    memory = tmp_path / "memory"
    ids_of(photos, memory)
    other = image_folders.write_classes(tmp_path / "other", {"cat": 2, "dog": 2})
    for file in other.rglob("*.png"):
        image_folders.write_image(file, shift=77)
        set_time(file, LONG_AGO_NANOSECONDS)
    assert ids_of(other, memory) == ids_of(other)


def test_a_damaged_memory_counts_as_none(photos: Path, tmp_path: Path, reads: list[int]) -> None:
    memory = tmp_path / "memory"
    first = ids_of(photos, memory)
    (file,) = (memory / "ids").iterdir()
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(bytes(content))
    reads.clear()
    assert ids_of(photos, memory) == first
    assert len(reads) == 8


def test_a_memory_that_cannot_be_kept_is_said_and_stops_nothing(photos: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "ids").write_text("in the way")
    reports: list[str] = []
    assert ids_of(photos, memory, reports) == ids_of(photos)
    assert len(reports) == 1 and reports[0].startswith("The next run has to read all images again to know them: ")
