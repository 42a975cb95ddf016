"""TFRecord files from anywhere: a sentence that names the file, or exactly what is in it."""

from __future__ import annotations

import time
from pathlib import Path

import hostile_records as corpus
import numpy as np
import pytest
import tensorflow as tf
from record_files import image_bytes

from trainer.config import Config
from trainer.data.bad_images import find_bad_images
from trainer.data.record_source import RecordSource
from trainer.data.sources import open_source
from trainer.errors import UserError

_SECONDS = 5.0


def opened(tmp_path: Path, content: bytes, **settings: object) -> RecordSource:
    (tmp_path / "x.tfrecord").write_bytes(content)
    source = open_source(Config.parse({"data": f"tfrecord:{tmp_path}", **settings}))
    assert isinstance(source, RecordSource)
    return source


@pytest.mark.parametrize("name", corpus.REFUSED)
def test_what_is_no_set_of_records_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        opened(tmp_path, corpus.REFUSED[name], on_bad_image="skip")
    assert str(tmp_path) in str(refused.value)
    assert time.monotonic() - began < _SECONDS


@pytest.mark.parametrize("name", corpus.SKIPPABLE)
def test_one_bad_record_is_named_or_left_out_and_no_other(name: str, tmp_path: Path) -> None:
    source = opened(tmp_path, corpus.SKIPPABLE[name], on_bad_image="skip")
    assert len(source.skipped) == 1
    for index, key in enumerate(source.keys):
        number = int(key.removeprefix("k/"))
        assert source.encoded(index) == image_bytes(number)
        assert source.class_names[source.labels[index]] == str(number % 2)
    assert len(source) == 3
    try:
        failing = opened(tmp_path, corpus.SKIPPABLE[name])
    except UserError as error:
        assert str(tmp_path) in str(error)
    else:
        assert len(find_bad_images(failing)) == 1


@pytest.mark.parametrize("name", corpus.GOOD)
def test_odd_records_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    content, class_names, keys = corpus.GOOD[name]
    source = opened(tmp_path, content)
    assert (source.class_names, list(source.keys)) == (class_names, keys)
    assert find_bad_images(source) == []
    read = tf.function(source.encoded_reader(np.arange(len(source))))
    assert [bytes(read(tf.constant(n)).numpy()) for n in range(len(source))] == list(
        map(source.encoded, range(len(source)))
    )


@pytest.mark.parametrize("name", corpus.SKIPPABLE)
def test_an_index_beside_the_records_is_not_believed(name: str, tmp_path: Path) -> None:
    """The converter's index is content from outside like the records."""
    (tmp_path / "index.npz").write_bytes(corpus.SKIPPABLE[name])
    assert list(opened(tmp_path, corpus.GOOD_FILE).keys) == ["k/0", "k/1", "k/2", "k/3"]
