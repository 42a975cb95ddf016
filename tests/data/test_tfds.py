from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from image_folders import gradient
from processes import assert_gone

from trainer.config import Config
from trainer.data import tfds_preparation
from trainer.data.record_source import RecordSource
from trainer.data.sources import open_source
from trainer.errors import UserError

tfds: Any = pytest.importorskip("tensorflow_datasets")

BIRDS = ["wren", "robin", "heron"]

KINDS = {
    "good": {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=BIRDS)},
    "numbers": {"photo": tfds.features.Image(shape=(12, 18, 1)), "kind": tfds.features.ClassLabel(num_classes=3)},
    "no_label": {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.int64)},
    "no_image": {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=BIRDS)},
    "two_labels": {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=BIRDS),
        "other": tfds.features.ClassLabel(names=BIRDS),
    },
    "floats": {
        "image": tfds.features.Image(shape=(None, None, 1), dtype=np.float32),
        "label": tfds.features.ClassLabel(names=BIRDS),
    },
}


class Garden(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """A few made-up pictures, as any data set of images has them; its configurations are what may be wrong with one."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in KINDS]

    def _info(self) -> Any:
        keys = ("image", "label") if self.builder_config.name == "good" else None
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(KINDS[self.builder_config.name]), supervised_keys=keys
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
        return {"train": self._generate_examples(0, 9), "test": self._generate_examples(9, 15)}

    def _generate_examples(self, first: int, last: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number in range(first, last):
            values: dict[str, Any] = {}
            for name, feature in KINDS[self.builder_config.name].items():
                if isinstance(feature, tfds.features.Image):
                    pixels = gradient(shift=number)[:, :, : feature.shape[2]]
                    values[name] = pixels.astype(feature.np_dtype)
                elif isinstance(feature, tfds.features.Text):
                    values[name] = "a bird"
                else:
                    values[name] = -1 if number == 14 else number % 2 * 2
            yield number, values


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every configuration of the data set garden, prepared, each split in two files."""
    folder = tmp_path_factory.mktemp("prepared")
    two_files = tfds.download.DownloadConfig(num_shards=2)
    for name in KINDS:
        Garden(config=name, data_dir=str(folder)).download_and_prepare(download_config=two_files)
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def no_network(*address: object) -> None:
        raise AssertionError(f"the network is asked for {address}")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)


def open_tfds(name: str, data_dir: Path, **fields: object) -> RecordSource:
    source = open_source(Config(data=f"tfds:{name}", data_dir=str(data_dir), **fields), print)  # type: ignore[arg-type]
    assert isinstance(source, RecordSource)
    return source


def test_a_prepared_data_set_is_read_as_tfds_reads_it(data_dir: Path) -> None:
    source = open_tfds("garden/good:1.2.0", data_dir)
    # Test image 14 has no label, and no bird is a robin.
    assert source.class_names == ("wren", "heron") and len(source) == 14
    builder = tfds.builder_from_directory(data_dir / "garden/good/1.2.0")
    expected = {
        f"{split}/{number:09d}": (example["image"], BIRDS[example["label"]])
        for split in ("train", "test")
        for number, example in enumerate(builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator())
        if example["label"] >= 0
    }
    read = source.reader(np.arange(len(source)))
    found = {
        key: (read(tf.constant(index, tf.int64)).numpy(), source.class_names[source.labels[index]])
        for index, key in enumerate(source.keys)
    }
    assert list(found) == sorted(expected)
    for key, (pixels, name) in expected.items():
        assert (found[key][0] == pixels).all() and found[key][1] == name


def test_the_latest_version_and_the_only_features_are_found(data_dir: Path) -> None:
    assert open_tfds("garden/good", data_dir).fingerprint() == open_tfds("garden/good:1.2.0", data_dir).fingerprint()
    source = open_tfds("garden/numbers", data_dir)
    assert source.class_names == ("0", "2") and source.reader(np.array([0]))(tf.constant(0, tf.int64)).shape[2] == 3


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("garden/no_label", r"does not have one class label an example, but image, label"),
        ("garden/no_image", r"does not have one image an example, but label, text"),
        ("garden/two_labels", r"does not have one class label an example, but image, label, other"),
        ("garden/floats", r"The images of data set garden/floats are .*float32.*, and must be of 8 or 16 bits"),
        ("gardn/good", r"TensorFlow Datasets has no data set gardn; did you mean garden\?"),
        ("tf_flowrs", r"no data set tf_flowrs; did you mean tf_flowers\?"),
        ("xxyyzz", r"no data set xxyyzz; give another, or the --data_dir"),
        ("garden/goood", r"Data set garden has no configuration goood; did you mean garden/good\?"),
    ],
)
def test_data_sets_that_do_not_fit(name: str, sentence: str, data_dir: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        open_tfds(name, data_dir)


def test_names_are_checked_before_anything_is_imported() -> None:
    for name in ("", "huggingface:x", "../x", "a b", "x/y/z", "x:latest", "--help"):
        with pytest.raises(UserError, match=r"must name a data set of TensorFlow Datasets as tfds:NAME"):
            Config.parse({"data": f"tfds:{name}"})


def test_other_formats_are_refused(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "garden/good/1.2.0"
    folder.mkdir(parents=True)
    for file in (data_dir / "garden/good/1.2.0").iterdir():
        text = file.read_bytes().replace(b'"tfrecord"', b'"array_record"')
        (folder / file.name.replace("tfrecord", "array_record")).write_bytes(text)
    with pytest.raises(UserError, match=r"is prepared as array_record: .*garden/good.*file_format=.*tfrecord"):
        open_tfds("garden/good", tmp_path)


def test_a_file_that_is_gone_is_named(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "garden/good/1.2.0"
    folder.mkdir(parents=True)
    for file in (data_dir / "garden/good/1.2.0").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    min(folder.glob("*train*")).unlink()
    with pytest.raises(UserError, match=r"There is no .*garden-train.tfrecord-00000-of-00002: .*--data_dir"):
        open_tfds("garden/good", tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"Data set garden/good in .* cannot be read \(.*\): prepare it again"):
        open_tfds("garden/good", tmp_path)


def pretend_build(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Lets a program stand in for the download; its argument is the folder to fill."""

    def command(name: str, data_dir: str | None, file_format: str = "") -> list[str]:
        return ["python", "-c", program, str(data_dir)]

    monkeypatch.setattr(tfds_preparation, "command", command)


def test_what_is_not_prepared_is_prepared(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"import shutil, sys; shutil.copytree({str(data_dir)!r}, sys.argv[1])"
    pretend_build(monkeypatch, program)
    target = tmp_path / "new"
    assert len(open_tfds("garden/good", target)) == 14


def test_a_failed_preparation_says_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_build(monkeypatch, "print('start'); raise SystemExit('ConnectionError: no route to host')")
    with pytest.raises(UserError) as raised:
        open_tfds("garden/good", tmp_path)
    assert str(raised.value).startswith(
        "Data set garden/good is not prepared and cannot be downloaded here (ConnectionError: no route to host): where "
        "there is a network, run python -c "
    )
    assert str(raised.value).endswith(f' "{tmp_path}", and give that --data_dir.')


def test_a_silent_preparation_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds_preparation, "_SILENT_SECONDS", 1.0)
    pids = tmp_path / "pids"
    inner = "import time; time.sleep(60)"
    pretend_build(
        monkeypatch,
        "import os, subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}]); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(60)",
    )
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be downloaded here \(nothing happened for 1 seconds\)"):
        open_tfds("garden/good", tmp_path)
    assert time.monotonic() - began < 10
    assert_gone([int(pid) for pid in pids.read_text().split()])


def test_the_real_command_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # Bound and not listening: whoever connects is refused.
        closed.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(tfds_preparation, "_RETRYING_SECONDS", 0.5)
        with pytest.raises(UserError, match=r"tf_flowers is not prepared .* here \(its servers cannot be reached\)"):
            open_tfds("tf_flowers", tmp_path)


class _Bucket(BaseHTTPRequestHandler):
    """Answers as the listing of the public bucket does; "slow" data sets never."""

    def do_GET(self) -> None:  # noqa: N802
        if "slow" in self.path:
            time.sleep(1.5)
            return
        found = b'{"items": [{}]}' if "prefix=datasets%2Fgarden%2Fgood%2F" in self.path else b"{}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Iterator[None]:
    """The public bucket on loopback: what it lists is in `data_dir`."""
    monkeypatch.undo()
    server = HTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(tfds_preparation, "_PUBLIC_LISTING", f"http://127.0.0.1:{server.server_port}/o")
    monkeypatch.setattr(tfds_preparation, "PUBLIC_DATA_DIR", str(data_dir))
    monkeypatch.setattr(tfds_preparation, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()


def test_the_public_bucket_is_tried_first(bucket: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pretend_build(monkeypatch, "raise SystemExit('built')")
    assert len(open_tfds("garden/good", tmp_path / "none", try_gcs=True)) == 14
    with pytest.raises(UserError, match="built"):
        open_tfds("garden/numbers", tmp_path / "none", try_gcs=True)
    with pytest.raises(UserError, match="built"):
        open_tfds("garden/good", tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be asked for data set slow \(ReadTimeout\): check the network"):
        tfds_preparation.public_data_dir("slow")
