from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from record_files import example, image_bytes, write_numbered, write_records

from trainer.config import Config
from trainer.data import record_files as opening
from trainer.data.bad_images import find_bad_images, naming_bad_images
from trainer.data.images import decode
from trainer.data.record_framing import frame, record_at, records_of
from trainer.data.record_index import RecordIndex
from trainer.data.record_source import RecordSource
from trainer.data.source import SkippedImage
from trainer.data.sources import open_source
from trainer.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hub-trainer" / "record-index"


def open_records(pattern: object, report: Callable[[str], None] = print, **fields: Any) -> RecordSource:
    source = open_source(Config(data=f"tfrecord:{pattern}", **fields), report)
    assert isinstance(source, RecordSource)
    return source


def read(source: RecordSource, indices: list[int]) -> list[bytes]:
    """The encoded images as a dataset reads them."""
    reader = source.encoded_reader(np.array(indices))
    dataset = tf.data.Dataset.range(len(indices)).map(reader, num_parallel_calls=2, deterministic=True)
    return [bytes(image) for image in dataset.as_numpy_iterator()]


def test_frames_are_those_of_tensorflow(tmp_path: Path) -> None:
    data = [b"", b"a", b"hello" * 1000]
    by_tensorflow = write_records(tmp_path / "x.tfrecord", data)
    assert b"".join(map(frame, data)) == by_tensorflow.read_bytes()
    size = by_tensorflow.stat().st_size
    found = list(records_of(str(by_tensorflow), size))
    assert found == [(0, 0, b""), (16, 1, b"a"), (33, 5000, b"hello" * 1000)]
    assert record_at(str(by_tensorflow), 16, 1) == b"a"
    assert record_at(str(by_tensorflow), 16, 2) is None and record_at(str(by_tensorflow), size - 3, 1) is None


def test_records_of_a_folder_are_read_in_any_order(tmp_path: Path) -> None:
    write_numbered(tmp_path / "b.tfrecord", 5)
    write_numbered(tmp_path / "a.tfrecord", 4, first=5)
    (tmp_path / "notes.txt").write_text("no records")
    (tmp_path / ".hidden.tfrecord").write_text("no records")
    source = open_records(tmp_path)
    assert list(source.keys) == [f"a.tfrecord/{n:09d}" for n in range(4)] + [f"b.tfrecord/{n:09d}" for n in range(5)]
    assert source.class_names == ("0", "1") and source.labels.tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0]
    numbers = [5, 6, 7, 8, 0, 1, 2, 3, 4]
    assert read(source, [8, 0, 3, 3]) == [image_bytes(numbers[index]) for index in (8, 0, 3, 3)]
    assert [source.encoded(index) for index in range(9)] == [image_bytes(number) for number in numbers]
    pixels = source.reader(np.array([4]))(tf.constant(0, tf.int64))
    assert (pixels.numpy() == decode(tf.constant(image_bytes(0))).numpy()).all()


def test_file_pattern_and_scheme_name_the_same_records(tmp_path: Path) -> None:
    write_numbered(tmp_path / "x-00000-of-00002.tfrecord", 4)
    write_numbered(tmp_path / "x-00001-of-00002.tfrecord", 4, first=4)
    tf.io.gfile.makedirs("ram://records/x")
    for path in tmp_path.glob("*.tfrecord"):
        tf.io.gfile.copy(str(path), f"ram://records/x/{path.name}", overwrite=True)
    whole = open_records(tmp_path)
    assert len(whole) == 8 and len(open_records(tmp_path / "x-*")) == 8
    assert list(open_records(tmp_path / "x-00001-of-00002.tfrecord").keys) == list(whole.keys)[4:]
    remote = open_records("ram://records/x")
    assert list(remote.keys) == list(whole.keys) and remote.fingerprint() == whole.fingerprint()
    assert read(remote, [7, 0]) == read(whole, [7, 0])


def test_labels_may_be_names_and_features_may_be_named(tmp_path: Path) -> None:
    kinds = ("tulip", "rose", "Zoë's")
    records = [
        example(image__encoded=image_bytes(n), image__class__text=kinds[n % 3].encode(), image__class__label=n % 3 + 1)
        for n in range(6)
    ]
    write_records(tmp_path / "x.tfrecord", records)
    source = open_records(tmp_path)
    assert source.class_names == ("Zoë's", "rose", "tulip") and source.labels.tolist() == [2, 1, 0, 2, 1, 0]
    numbered = open_records(tmp_path, label_feature="image/class/label")
    assert numbered.class_names == ("1", "2", "3") and numbered.labels.tolist() == [0, 1, 2, 0, 1, 2]
    chosen = open_records(tmp_path, classes=("tulip", "rose"))
    assert chosen.class_names == ("rose", "tulip") and chosen.labels.tolist() == [1, 0, 1, 0]
    assert read(chosen, [3]) == [image_bytes(4)]
    with pytest.raises(UserError, match=r"names rse, which records .* does not have; did you mean rose\?"):
        open_records(tmp_path, classes=("tulip", "rse"))


def test_keys_in_the_records_are_the_keys(tmp_path: Path) -> None:
    keys = ["b/ü.png", "a/x y.png"]
    records = [example(image=image_bytes(n), label=n, image__key=key.encode()) for n, key in enumerate(keys)]
    write_records(tmp_path / "x.tfrecord", records)
    source = open_records(tmp_path)
    assert list(source.keys) == sorted(keys) and source.labels.tolist() == [1, 0]
    write_records(tmp_path / "y.tfrecord", records[:1])
    with pytest.raises(UserError, match=r"x.tfrecord at byte 0 and .*y.tfrecord at byte 0 have the same key, b/ü.png"):
        open_records(tmp_path)


def good(**changes: Any) -> list[bytes]:
    """Records of which the last is changed."""
    last: dict[str, Any] = {"image": image_bytes(1), "label": 1}
    return [example(image=image_bytes(0), label=0), example(**(last | changes))]


BROKEN_HEADER = frame(b"x")[:8] + b"\0\0\0\0" + b"x" + frame(b"x")[13:]


def huge(length: int) -> bytes:
    """A header that promises so many bytes, with a checksum that fits."""
    import google_crc32c

    packed = struct.pack("<Q", length)
    crc = google_crc32c.value(packed)
    return packed + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) + b"some data"


@pytest.mark.parametrize(
    ("content", "fields", "sentence"),
    [
        (b"", {}, r"x.tfrecord is empty: copy it again"),
        (b"hello", {}, r"x.tfrecord is not a TFRecord file"),
        (b"<!DOCTYPE html><p>404 not found</p>", {}, r"x.tfrecord is not a TFRecord file"),
        (huge(2**62), {}, r"x.tfrecord ends in the middle of the record at byte 0"),
        (huge(2**64 - 1), {}, r"x.tfrecord ends in the middle of the record at byte 0"),
        (frame(good()[0]) + huge(2**40), {}, rf"ends in the middle of the record at byte {len(frame(good()[0]))}"),
        (frame(good()[0]) + b"\0\0\0", {}, rf"ends in the middle of the record at byte {len(frame(good()[0]))}"),
        (frame(good()[0])[:-1], {}, r"ends in the middle of the record at byte 0"),
        (frame(good()[0]) + BROKEN_HEADER, {}, rf"damaged at byte {len(frame(good()[0]))}, where a record"),
        (frame(b"\xff\xff no protocol buffer"), {}, r"x.tfrecord at byte 0 is not a tf.train.Example"),
        (frame(b""), {}, r"x.tfrecord at byte 0 has no features"),
        (good(), {"image_feature": "imag"}, r"has no feature imag but image, label; did you mean --image_f.*=image\?"),
        (good(), {"label_feature": "species"}, r"has no feature species but image, label: name one with --label"),
        (good(), {"label_feature": "image"}, r"--image_feature and --label_feature both name image"),
        ([good()[0], example(image=image_bytes(1), klass=1)], {}, r"byte \d\d+ has no feature label but image, klass"),
        (good(label=0.5), {}, r"Feature label of .* is float, and must be a whole number or bytes"),
        (good(label=[1, 2]), {}, r"Feature label of .* has 2 values, and must have one"),
        (good(label=[]), {}, r"Feature label of .* has 0 values"),
        (good(label=b"rose"), {}, r"Feature label of the records .* is a number in some and text in others"),
        (good(label=-1), {}, r"Feature label of a record .* is -1, which is no class"),
        ([example(image=image_bytes(0), label=b"a\nb")], {}, r'Feature label of .* is "a\\nb": it must not'),
        ([example(image=image_bytes(0), label=b"\xff")], {}, r"Feature label of .* is not valid UTF-8"),
        (good(image__key=b"a\0b"), {}, r"Feature image/key of .* has a NUL in it"),
        (good(image=7), {}, r"Feature image of .* is int64, and must be bytes"),
    ],
)  # fmt: skip
def test_hostile_files(content: bytes | list[bytes], fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_records(path, content)
    with pytest.raises(UserError, match=sentence):
        open_records(path, **fields)
    assert not (tmp_path / "cache").exists()


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    write_numbered(tmp_path / "x.tfrecord", 3, classes=1)
    with pytest.raises(UserError, match="have only one class, 0; a classifier needs at least two"):
        open_records(tmp_path)


def test_compressed_records(tmp_path: Path) -> None:
    for kind in ("GZIP", "ZLIB"):
        path = write_records(tmp_path / f"{kind}.tfrecord", good(), kind)
        with pytest.raises(UserError, match=rf"{kind}.tfrecord is compressed: decompress it"):
            open_records(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for pattern in (tmp_path / "none", tmp_path / "none*.tfrecord", tmp_path):
        with pytest.raises(UserError, match=f"There is no TFRecord file {str(pattern).replace('*', '.')}"):
            open_records(pattern)
    write_numbered(tmp_path / "x-00000-of-00003.tfrecord", 2)
    write_numbered(tmp_path / "x-00002-of-00003.tfrecord", 2)
    with pytest.raises(UserError, match="x-00001-of-00003.tfrecord is missing"):
        open_records(tmp_path)
    assert len(open_records(tmp_path / "x-*")) == 4


def damage(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_damaged_records_are_named_or_skipped(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.tfrecord", 6)
    second = len(frame(example(image=image_bytes(0), label=0)))
    damage(path, second + 40)
    with pytest.raises(UserError, match=rf"x.tfrecord at byte {second} cannot be used: its checksum is wrong"):
        open_records(path)
    source = open_records(path, on_bad_image="skip")
    assert [key[-1] for key in source.keys] == ["0", "2", "3", "4", "5"]  # The others keep their numbers.
    assert [bad.key for bad in source.skipped] == [f"x.tfrecord at byte {second}"]


def test_records_damaged_after_they_were_indexed_are_named(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "x.tfrecord", 4)
    source = open_records(path)
    place = int(source.index.offsets[2])
    damage(path, place + 60)
    with pytest.raises(tf.errors.DataLossError):
        read(source, [0, 1, 2, 3])
    assert read(source, [0, 1, 3]) == [image_bytes(n) for n in (0, 1, 3)]
    with (
        pytest.raises(UserError, match=rf"x.tfrecord at byte {place} \(image x.tfrecord/000000002\) cannot be used"),
        naming_bad_images(source, print),
    ):
        read(source, [2])
    assert [bad.key for bad in find_bad_images(source)] == ["x.tfrecord/000000002"]
    path.write_bytes(path.read_bytes()[: place + 5])
    with pytest.raises(tf.errors.OpError):
        read(source, [3])
    assert [bad.key for bad in find_bad_images(source)] == ["x.tfrecord/000000002", "x.tfrecord/000000003"]


def test_images_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    images = [image_bytes(0), image_bytes(1), b"", image_bytes(3)[:-20], image_bytes(4)]
    write_records(tmp_path / "x.tfrecord", [example(image=data, label=n % 2) for n, data in enumerate(images)])
    source = open_records(tmp_path, on_bad_image="skip")
    assert [key[-1] for key in source.keys] == ["0", "1", "4"] and source.labels.tolist() == [0, 1, 0]
    assert [image.reason for image in source.skipped] == ["empty file", "the PNG is truncated or damaged"]
    assert read(source, [2]) == [images[4]]
    with pytest.raises(UserError, match="Class 1 of records .* has no usable"):
        source.without([SkippedImage("x.tfrecord/000000001", "ugly")])


def test_an_index_is_made_once_and_holds_until_a_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "records" / "x.tfrecord", 4)
    first = open_records(path)
    scans: list[str] = []
    scan = opening.scan

    def counted(root: str, *rest: Any) -> RecordIndex:
        scans.append(root)
        return scan(root, *rest)

    monkeypatch.setattr(opening, "scan", counted)
    again = open_records(path)
    assert not scans and list(again.keys) == list(first.keys) and again.fingerprint() == first.fingerprint()
    assert read(again, [3, 1]) == read(first, [3, 1])
    [kept] = cache.iterdir()
    for content in (b"", kept.read_bytes()[:-100], b"PK\3\4 no"):  # Damaged: made again.
        kept.write_bytes(content)
        assert len(open_records(path)) == 4
    assert len(scans) == 3
    write_numbered(path, 6)
    assert len(open_records(path)) == 6 and len(scans) == 4
    assert list(cache.iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder must be")
    path = write_numbered(tmp_path / "x.tfrecord", 4)
    reports: list[str] = []
    assert len(open_records(path, reports.append)) == 4
    assert "is not kept for the next run" in reports[-1]


def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    index = open_records(write_numbered(tmp_path / "x.tfrecord", 4)).index
    assert RecordIndex.from_bytes(index.to_bytes("a"), "a") is not None
    assert RecordIndex.from_bytes(index.to_bytes("a"), "b") is None
    changes: list[tuple[str, object]] = [
        ("offsets", index.offsets + 10_000),
        ("offsets", index.offsets - 1),
        ("lengths", index.lengths + 2**62),
        ("lengths", index.lengths * 0 - 1),
        ("labels", index.labels + 1),
        ("labels", index.labels - 1),
        ("labels", index.labels[:3]),
        ("file_numbers", index.file_numbers + 1),
        ("keys", index.keys.take(np.array([0, 1, 1, 3]))),
        ("file_sizes", (5,)),
    ]
    for name, value in changes:
        arguments = {field: getattr(index, field) for field in index.__dataclass_fields__} | {name: value}
        assert RecordIndex.from_bytes(RecordIndex(**arguments).to_bytes("a"), "a") is None, name


def test_a_long_look_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.record_scan._SECONDS_BETWEEN_REPORTS", 0.0)
    reported = threading.Event()

    def slowly(path: str, size: int) -> Iterator[tuple[int, int, bytes | None]]:
        for record in records_of(path, size):
            yield record
            assert reported.wait(10)

    monkeypatch.setattr("trainer.data.record_scan.records_of", slowly)
    reports: list[str] = []

    def report(sentence: str) -> None:
        reports.append(sentence)
        reported.set()

    open_records(write_numbered(tmp_path / "x.tfrecord", 4), report)
    assert "records so far" in reports[0] and reports[0].endswith("1 of 1 files left.")


def test_where_records_are_plays_no_part_in_a_runs_identity(tmp_path: Path) -> None:
    here = write_numbered(tmp_path / "here" / "x.tfrecord", 4)
    there = tmp_path / "there" / "x.tfrecord"
    there.parent.mkdir()
    shutil.copy(here, there)
    configs = [Config(data=f"tfrecord:{path}") for path in (here, there)]
    assert configs[0].fingerprint() == configs[1].fingerprint() == Config(data="folder:/photos").fingerprint()
    assert open_records(here).fingerprint() == open_records(there).fingerprint()
    write_numbered(there, 4, classes=3)
    assert open_records(here).fingerprint() != open_records(there).fingerprint()
