from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_folders import write_classes, write_image

from trainer.config import Config
from trainer.data import convert as converting
from trainer.data.convert import convert
from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.data.record_framing import records_of
from trainer.data.record_source import RecordSource
from trainer.data.source import Source
from trainer.data.sources import open_source
from trainer.data.splits import split_examples
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes whose names and files are not plain."""
    folder = write_classes(tmp_path / "photos", {"roses": 9, "a b": 8})
    write_image(folder / "Zoë's/ü 1.jpg", shift=3)
    write_image(folder / "Zoë's/x\ny.png", shift=4)
    write_image(folder / "Zoë's/z.png", shift=5)
    return folder


def opened(data: str) -> Source:
    return open_source(Config(data=data), print)


def assert_same_run(folder: Source, records: Source, size: int, steps: int) -> None:
    """Compares all that training takes from a source, for a few augmented batches."""
    assert list(folder.keys) == list(records.keys) and folder.class_names == records.class_names
    assert (folder.labels == records.labels).all() and folder.fingerprint() == records.fingerprint()
    config = Config(augment=("flip", "crop"), batch_size=8, splits=(60, 20, 20))
    both = []
    for source in (folder, records):
        train = split_examples(source.keys, source.labels, source.class_names, config.splits).train
        share = Share(config.batch_size, 1, 0, 1)
        both.append(training_batches(source, train, config, ImageInput(size, "crop"), share, 0, steps))
    count = 0
    for of_folder, of_records in zip(*both):
        assert of_folder.keys() == of_records.keys()
        for name in of_folder:
            np.testing.assert_array_equal(of_folder[name].numpy(), of_records[name].numpy())
        count += 1
    assert count == steps


def test_a_run_on_the_records_is_the_run_on_the_folder(photos: Path, tmp_path: Path) -> None:
    convert(str(photos), str(tmp_path / "records"), shards=3, workers=2)
    files = sorted(path.name for path in (tmp_path / "records").iterdir())
    assert files == [*(f"images-{n:05d}-of-00003.tfrecord" for n in range(3)), "index.npz"]
    folder, records = opened(f"folder:{photos}"), opened(f"tfrecord:{tmp_path / 'records'}")
    assert_same_run(folder, records, size=8, steps=5)
    assert not (tmp_path / "cache" / "hub-trainer" / "record-index").exists()  # The index beside them was enough.
    (tmp_path / "records" / "index.npz").unlink()
    assert_same_run(folder, opened(f"tfrecord:{tmp_path / 'records'}"), size=8, steps=1)


def test_real_photos(flower_photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for folder in sorted(path for path in flower_photos.iterdir() if path.is_dir()):
        (few / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:8]:
            (few / folder.name / photo.name).symlink_to(photo)
    convert(str(few), str(tmp_path / "records"))
    assert_same_run(opened(f"folder:{few}"), opened(f"tfrecord:{tmp_path / 'records'}"), size=64, steps=6)


def test_the_same_images_give_the_same_bytes_in_mixed_order(photos: Path, tmp_path: Path) -> None:
    contents = []
    for name, workers in (("one", 1), ("two", 4)):
        convert(str(photos), str(tmp_path / name), shards=2, workers=workers)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    records = opened(f"tfrecord:{tmp_path / 'one'}")
    assert isinstance(records, RecordSource)
    by_place = np.lexsort((records.index.offsets, records.index.file_numbers))
    assert (np.diff(records.labels[by_place]) != 0).sum() > 4  # Class after class would change twice.


def test_records_go_to_a_bucket_too(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # RunDirectory takes gs:// only; TensorFlow's file system in memory stands in.
    monkeypatch.setattr("trainer.storage._resolved", lambda path, flag: path)
    convert(str(photos), "ram://converted/records", shards=2)
    assert_same_run(opened(f"folder:{photos}"), opened("tfrecord:ram://converted/records"), size=8, steps=2)
    with pytest.raises(UserError, match="ram://converted/records is there already"):
        convert(str(photos), "ram://converted/records")


def test_an_index_that_does_not_fit_is_not_used(photos: Path, tmp_path: Path) -> None:
    records = tmp_path / "records"
    convert(str(photos), str(records), shards=2)
    whole = opened(f"tfrecord:{records}")
    for content in (b"", b"PK\3\4", (records / "index.npz").read_bytes()[:-50]):
        (records / "index.npz").write_bytes(content)
        reports: list[str] = []
        source = open_source(Config(data=f"tfrecord:{records}"), reports.append)
        assert source.fingerprint() == whole.fingerprint() and "does not go with the files" in reports[0]


def test_an_index_of_other_files_is_not_used(photos: Path, tmp_path: Path) -> None:
    records = tmp_path / "records"
    convert(str(photos), str(records), shards=2)
    reports: list[str] = []
    part = open_source(Config(data=f"tfrecord:{records}/images-00001-*"), reports.append)
    assert len(part) == 10 and not reports  # Half of them on purpose.
    (photos / "roses/000.png").unlink()
    convert(str(photos), str(tmp_path / "newer"), shards=2)
    for shard in (tmp_path / "newer").glob("*.tfrecord"):
        (records / shard.name).write_bytes(shard.read_bytes())
    source = open_source(Config(data=f"tfrecord:{records}"), reports.append)
    assert len(source) == 19 and "does not go with the files" in reports[0]


def run(*arguments: str) -> int:
    return converting.main(arguments)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "import_tensorflow_quietly", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{}/photos"], "The following arguments are required: DST"),
        (["{}/photos", "{}/new", "--shards=x"], "Argument --shards: invalid int value: 'x'"),
        (["{}/photos", "{}/new", "--shards=-1"], "--shards=-1: must be from 0 to 99999."),
        (["{}/photos", "{}/new", "--shard_count=1"], "Unrecognized arguments: --shard_count=1"),
        (["{}/none", "{}/new"], "There is no folder {}/none"),
        (["{}/photos", "{}/photos/records"], "{}/photos/records lies in {}/photos"),
        (["{}/photos", "{}/photos"], "{}/photos lies in {}/photos"),
        (["{}/photos", "{}/linked/records"], "lies in {}/photos"),
        (["{}/photos", "{}/full"], "{}/full is there already: give a DST that does not exist, or remove it first."),
        (["{}/photos", "{}/full/notes.txt"], "{}/full/notes.txt is there already"),
        (["{}/photos", "{}/full/notes.txt/new"], "{}/full/notes.txt is a file where a folder is needed"),
        (["{}/photos", "s3://bucket/x"], "DST=s3://bucket/x: must be a local folder or gs://BUCKET/FOLDER."),
    ],
)
def test_bad_arguments(
    arguments: list[str], sentence: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("keep me")
    (tmp_path / "linked").symlink_to(photos)
    before = sorted(tmp_path.rglob("*"))
    assert run(*(argument.replace("{}", str(tmp_path)) for argument in arguments)) == EXIT_USER
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence.replace('{}', str(tmp_path))}") or sentence.startswith("lies"), error
    assert error.count("\n") == 1 and sentence.replace("{}", str(tmp_path)) in error
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


@pytest.mark.usefixtures("in_this_process")
def test_bad_images_fail_or_are_left_out(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = (photos / "roses/003.png").read_bytes()
    (photos / "roses/003.png").write_bytes(good[:-20])
    (photos / "roses/notes.txt").write_text("buy more")
    assert run(str(photos), str(tmp_path / "records")) == EXIT_USER
    (photos / "roses/notes.txt").unlink()
    assert run(str(photos), str(tmp_path / "records")) == EXIT_USER
    sentences = capsys.readouterr().err.splitlines()
    assert "roses/notes.txt cannot be used: not a JPEG" in sentences[0]
    assert "roses/003.png cannot be used: the PNG is truncated or damaged" in sentences[1]
    assert not list(tmp_path.glob("*records*")) and not list(tmp_path.glob(".*"))
    assert run(str(photos), str(tmp_path / "records"), "--on_bad_image=skip") == EXIT_DONE
    assert "Left out roses/003.png: the PNG is truncated or damaged." in capsys.readouterr().out
    assert len(opened(f"tfrecord:{tmp_path / 'records'}")) == 19


def test_what_was_written_is_read_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(path: str, size: int) -> Iterator[tuple[int, int, bytes | None]]:
        for number, (offset, length, data) in enumerate(records_of(path, size)):
            yield offset, length, b"?" * length if number == 2 else data

    monkeypatch.setattr("trainer.data.record_writer.records_of", damaged)
    with pytest.raises(UserError, match="does not hold what was written into it"):
        convert(str(photos), str(tmp_path / "records"))
    assert {path.name for path in tmp_path.iterdir()} <= {"photos", "cache"}


@pytest.mark.usefixtures("in_this_process")
def test_an_interruption_leaves_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()

    def endless(data: bytes) -> bytes:
        if not waiting.is_set():
            waiting.set()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return b"x" * 100

    monkeypatch.setattr("trainer.data.record_writer.frame", endless)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job ignores it.
    try:
        began = time.monotonic()
        assert run(str(photos), str(tmp_path / "records")) == EXIT_PREEMPTED
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGINT, before)
    assert {path.name for path in tmp_path.iterdir()} <= {"photos", "cache"}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """In namespaces of its own the process may mount a disk of its own, of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            noise = np.random.default_rng(number).integers(0, 256, (80, 80, 3), np.uint8)
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(tf.io.encode_png(noise).numpy())
    convert_there = f"{sys.executable} -m trainer.data.convert {tmp_path}/photos {disk}/records"
    mount = f"mount -t tmpfs -o size=200k none {disk}"
    command = f"{mount} || exit 99; {convert_there}; code=$?; ls -A {disk} >&2; exit $code"
    ended = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if ended.returncode in (1, 99, 127) and "error: " not in ended.stderr:
        pytest.skip(f"this user may not mount: {ended.stderr}")
    assert ended.returncode == EXIT_USER, ended.stderr
    assert ended.stderr.splitlines() == [
        f"error: The disk of {disk} is full: free some space or give another DST; what was saved before is untouched."
    ]


def test_help_says_what_there_is() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "trainer.data.convert", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0 and "--on_bad_image" in ended.stdout and "SRC" in ended.stdout


def test_only_tfds_imports_tensorflow_datasets(photos: Path, tmp_path: Path) -> None:
    convert(str(photos), str(tmp_path / "records"))
    program = f"""
import json, sys
from trainer.startup import import_tensorflow_quietly
import_tensorflow_quietly()
from trainer.config import Config
from trainer.data.sources import open_source
for data in ("digits", "folder:{photos}", "tfrecord:{tmp_path}/records"):
    open_source(Config(data=data))
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("tensorflow_datasets", "matplotlib")]))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert json.loads(ended.stdout.splitlines()[-1]) == [], ended.stderr
