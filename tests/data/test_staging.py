"""Copies of gs:// data on local disk: whole and right, or not there at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from fakes.gcs import FakeStorage, Fault, serving
from image_folders import encoded, gradient

from trainer.config import Config
from trainer.data import staging
from trainer.data.file_source import FileSource
from trainer.data.sources import open_source
from trainer.data.staging import RemoteFiles, stage
from trainer.errors import UserError
from trainer.storage_bucket import Bucket

CONTENTS = {f"{name}/{number}.png": encoded(gradient(shift=9 * number)) for name in "ab" for number in range(4)}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStorage]:
    with serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        for name, content in CONTENTS.items():
            server.bucket("flowers").put(f"photos/{name}", content)
        yield server


@pytest.fixture
def bucket(storage: FakeStorage) -> Bucket:
    return Bucket("flowers", "--stage_to", patience=1.0)


def remote_files(storage: FakeStorage, names: list[str]) -> RemoteFiles:
    objects = storage.bucket("flowers")
    contents = [objects.contents[name] for name in names]
    return RemoteFiles(
        addresses=[f"gs://flowers/{name}" for name in names],
        sizes=np.array([len(content) for content in contents]),
        checksums=np.array([google_crc32c.value(content) for content in contents]),
        generations=np.array([objects.generations[name] for name in names], np.uint64),
    )


def all_files(storage: FakeStorage) -> RemoteFiles:
    return remote_files(storage, sorted(storage.bucket("flowers").contents))


def downloads(storage: FakeStorage) -> int:
    return sum("alt=media" in request for request in storage.requests)


def contents_in(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def opened(**fields: object) -> FileSource:
    source = open_source(Config(data="folder:gs://flowers/photos", **fields))  # type: ignore[arg-type]
    assert isinstance(source, FileSource)
    return source


def test_staged_images_are_the_same_images(storage: FakeStorage, tmp_path: Path) -> None:
    plain, copy = opened(), opened(stage_to=str(tmp_path / "new/copies"))
    assert list(copy.keys) == list(plain.keys) and copy.fingerprint() == plain.fingerprint()
    assert copy.name == plain.name and copy.root == plain.root and copy.place_of(0) == "gs://flowers/photos/a/0.png"
    assert [Path(path).read_bytes() for path in copy.paths] == [CONTENTS[key] for key in copy.keys]
    read = copy.encoded_reader(np.array([5, 2]))
    assert read(tf.constant(1, tf.int64)).numpy() == CONTENTS[copy.keys[2]]


def test_nothing_is_copied_twice(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    files = all_files(storage)
    names = stage(files, str(tmp_path), print, bucket)
    assert downloads(storage) == 8
    assert list(stage(files, str(tmp_path), print, bucket)) == list(names) and downloads(storage) == 8
    (tmp_path / names[3]).unlink()
    stage(files, str(tmp_path), print, bucket)
    assert downloads(storage) == 9 and len(contents_in(tmp_path)) == 8


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"\xff"])
def test_a_damaged_copy_is_fetched_again(storage: FakeStorage, bucket: Bucket, tmp_path: Path, damage: Any) -> None:
    files = all_files(storage)
    names = stage(files, str(tmp_path), print, bucket)
    path = tmp_path / names[2]
    path.write_bytes(damage(path.read_bytes()))
    stage(files, str(tmp_path), print, bucket)
    assert contents_in(tmp_path) == sorted(CONTENTS.values()) and downloads(storage) == 9


def test_an_object_that_was_replaced_gets_its_own_copy(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    before = stage(all_files(storage), str(tmp_path), print, bucket)
    other = CONTENTS["a/0.png"][:-1] + b"?"  # Same name, same size.
    storage.bucket("flowers").put("photos/a/0.png", other)
    after = stage(all_files(storage), str(tmp_path), print, bucket)
    assert after[0] != before[0] and after[1:].joined == before[1:].joined
    assert (tmp_path / after[0]).read_bytes() == other and (tmp_path / before[0]).read_bytes() == CONTENTS["a/0.png"]


def test_an_object_replaced_after_the_listing_is_not_taken(
    storage: FakeStorage, bucket: Bucket, tmp_path: Path
) -> None:
    files = all_files(storage)
    storage.bucket("flowers").put("photos/b/1.png", b"newer")
    with pytest.raises(UserError, match="gs://flowers/photos/b/1.png is gone, or was replaced since .*start again"):
        stage(files, str(tmp_path), print, bucket)


def test_what_arrives_damaged_is_fetched_again(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    storage.faults.append(Fault("alt=media", "damaged", times=2))
    stage(all_files(storage), str(tmp_path), print, bucket)
    assert downloads(storage) == 10 and contents_in(tmp_path) == sorted(CONTENTS.values())


def test_what_always_arrives_damaged_is_one_sentence(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    storage.faults.append(Fault(r"b%2F1.png\?.*alt=media", "damaged"))
    with pytest.raises(UserError, match="gs://flowers/photos/b/1.png arrived 3 times with another size or checksum"):
        stage(all_files(storage), str(tmp_path), print, bucket)
    assert set(contents_in(tmp_path)) <= set(CONTENTS.values()), "nothing damaged is left"


def test_an_interrupted_copy_goes_on(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    storage.faults.append(Fault(r"b%2F1.png\?.*alt=media", 503))
    with pytest.raises(UserError, match="b/1.png cannot be read .*try again"):
        stage(all_files(storage), str(tmp_path), print, bucket)
    copied = len(contents_in(tmp_path))
    storage.faults.clear()
    storage.requests.clear()
    stage(all_files(storage), str(tmp_path), print, bucket)
    assert copied >= 1 and downloads(storage) == 8 - copied


def test_hostile_names_stay_inside(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    hostile = [
        "../escape",
        "/etc/absolute",
        "a/../../b",
        "nul\0name",
        "CASE.png",
        "case.png",
        "x" * 1000,
        "é",
        "e\u0301",
    ]
    for number, name in enumerate(hostile):
        storage.bucket("flowers").put(name, b"%d" % number)
    names = stage(remote_files(storage, hostile), str(tmp_path / "inside"), print, bucket)
    assert [(tmp_path / "inside" / name).read_bytes() for name in names] == [b"%d" % n for n in range(len(hostile))]
    assert all(re.fullmatch("[0-9a-f]{2}/[0-9a-f]{36}", name) for name in names) and len(set(names)) == len(hostile)
    assert os.listdir(tmp_path) == ["inside"]


def test_too_little_room_is_said_before_anything_is_copied(
    storage: FakeStorage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    needed = sum(map(len, CONTENTS.values()))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=f"to be copied to {tmp_path}.* GB free: free some space or give another"):
        stage(all_files(storage), str(tmp_path), print, bucket)
    assert downloads(storage) == 0
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=needed))
    stage(all_files(storage), str(tmp_path), print, bucket)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=0))
    stage(all_files(storage), str(tmp_path), print, bucket)


def test_a_disk_that_fills_up_is_one_sentence(
    storage: FakeStorage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, generation: int, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    monkeypatch.setattr(bucket, "download", full)
    with pytest.raises(UserError, match=f"disk of {tmp_path} is full: free some space or give another --stage_to"):
        stage(all_files(storage), str(tmp_path), print, bucket)
    assert contents_in(tmp_path) == []


def test_a_file_in_the_way_is_one_sentence(storage: FakeStorage, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file where a folder is needed.*--stage_to"):
        stage(all_files(storage), str(tmp_path / "file"), print, bucket)
    assert (tmp_path / "file").read_text() == "mine"


def test_leftovers_of_killed_runs_go_and_those_of_live_ones_stay(
    storage: FakeStorage, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "partial").mkdir()
    for name in ("old", "young"):
        (tmp_path / "partial" / name).write_text("part")
    os.utime(tmp_path / "partial/old", (time.time() - 4000,) * 2)
    stage(all_files(storage), str(tmp_path), print, bucket)
    assert os.listdir(tmp_path / "partial") == ["young"]


def test_two_processes_may_copy_at_once(storage: FakeStorage, tmp_path: Path) -> None:
    program = (
        "import sys; from trainer.config import Config; from trainer.data.sources import open_source;"
        "source = open_source(Config(data='folder:gs://flowers/photos', stage_to=sys.argv[1]));"
        "print(source.fingerprint(), len({open(path, 'rb').read() for path in source.paths}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == {f"{opened().fingerprint()} {len(set(CONTENTS.values()))}\n"}
    assert contents_in(tmp_path) == sorted(CONTENTS.values())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data": "digits", "stage_to": "/x"}, "--stage_to=/x copies --data=folder:gs://…, and --data is digits"),
        ({"data": "folder:/y", "stage_to": "/x"}, "and --data is folder:/y"),
        ({"data": "folder:gs://b/y", "stage_to": "gs://b/x"}, "must be a folder of this machine"),
    ],
)
def test_staging_of_what_is_not_remote_or_to_what_is_not_local(fields: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Config.parse(fields)
