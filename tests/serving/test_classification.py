"""Batches through a classifier: in order, each image asked about once, a few batches ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import image_folders
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from trainer.serving import classification
from trainer.serving.classification import Classified, Unreadable, classified
from trainer.serving.image_files import ImageFile

PATIENCE_SECONDS = 10.0


class Model:
    """Decodes, and gives the number of bytes of each image as its only probability; notes what it was asked."""

    def __init__(self) -> None:
        self.answered: list[int] = []

    def __call__(self, encoded: Sequence[bytes]) -> NDArray[np.float32]:
        for content in encoded:
            tf.io.decode_image(content)
        self.answered.append(len(encoded))
        return np.array([[len(content)] for content in encoded], np.float32)


def files_of(folder: Path) -> Iterator[ImageFile]:
    return (ImageFile(str(path)) for path in sorted(folder.iterdir()))


def test_results_come_in_the_order_of_the_files_in_whole_batches(tmp_path: Path) -> None:
    image_folders.write_classes(tmp_path, {"a": 11})
    model = Model()
    batches = list(classified(files_of(tmp_path / "a"), model, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 3] and sorted(model.answered) == [3, 4, 4]
    results = [result for batch in batches for result in batch]
    for result, path in zip(results, sorted((tmp_path / "a").iterdir()), strict=True):
        assert isinstance(result, Classified)
        assert (result.path, result.encoded) == (str(path), path.read_bytes())
        assert result.probabilities.tolist() == [len(result.encoded)]


def test_damaged_files_are_named_and_the_others_are_asked_about_once(tmp_path: Path) -> None:
    image_folders.write_classes(tmp_path, {"a": 16})
    names = sorted((tmp_path / "a").iterdir())
    names[3].write_bytes(names[3].read_bytes()[:60])
    names[9].write_bytes(b"<html>")
    names[10].unlink()
    listed = [ImageFile(str(path), "empty file" if path == names[0] else "") for path in names]
    model = Model()
    results = [result for batch in classified(listed, model, batch_size=16) for result in batch]
    assert [result.path for result in results] == [str(path) for path in names]
    bad = {Path(result.path).stem: result.reason for result in results if isinstance(result, Unreadable)}
    assert bad == {
        "000": "empty file",
        "003": "the PNG is truncated or damaged",
        "009": "a web page or other markup, not an image",
        "010": "it cannot be read (No such file or directory)",
    }
    assert sum(model.answered) == 12


def test_a_file_that_claims_too_many_pixels_is_told_as_such(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (50_000).to_bytes(4, "big") * 2 + b"\x08\x02"
    (tmp_path / "bomb.png").write_bytes(header + bytes(60))

    def refuse(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        raise tf.errors.InvalidArgumentError(None, None, "no")

    ((result,),) = classified(files_of(tmp_path), refuse)
    assert isinstance(result, Unreadable)
    assert result.reason == "it claims 2500000000 pixels, and no more than 100000000 are decoded"


def test_what_a_model_says_of_a_sound_image_is_quoted(tmp_path: Path) -> None:
    image_folders.write_image(tmp_path / "1.png")

    def refuse(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        raise tf.errors.InvalidArgumentError(None, None, "too dark\nsecond line")

    assert list(classified(files_of(tmp_path), refuse)) == [[Unreadable(str(tmp_path / "1.png"), "too dark")]]


def test_other_errors_of_a_model_end_it(tmp_path: Path) -> None:
    image_folders.write_image(tmp_path / "1.png")

    def fail(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        list(classified(files_of(tmp_path), fail))


def test_files_are_taken_a_few_batches_ahead_however_many_there_are(tmp_path: Path) -> None:
    image_folders.write_image(tmp_path / "1.png")
    taken = 0

    def endless() -> Iterator[ImageFile]:
        nonlocal taken
        while True:
            taken += 1
            yield ImageFile(str(tmp_path / "1.png"))

    results = classified(endless(), Model(), batch_size=2)
    for number in range(1, 6):
        assert len(next(results)) == 2
        assert taken <= 2 * (number + classification._BATCHES_AHEAD)
    results.close()  # type: ignore[attr-defined]


def test_two_calls_go_on_at_once(tmp_path: Path) -> None:
    image_folders.write_classes(tmp_path, {"a": 4})
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def wait_for_the_other(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        both.wait()
        return np.zeros([len(encoded), 1], np.float32)

    assert len(list(classified(files_of(tmp_path / "a"), wait_for_the_other, batch_size=2))) == 2
