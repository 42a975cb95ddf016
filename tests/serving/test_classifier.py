"""Exports, run directories and Hub modules as classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import image_folders
import modules
import numpy as np
import pytest
import tensorflow as tf

from trainer.data.images import ImageInput, unit_range
from trainer.errors import UserError
from trainer.serving.classifier import ImageClassifier, load_classifier
from trainer.serving.labels import label_lines, read_labels

PICTURES = [image_folders.encoded(image_folders.gradient(shift=shift), "JPEG") for shift in (0, 90)]


def load(model: Path | str, labels: list[str] | None = None, image_size: int = 0) -> ImageClassifier:
    return load_classifier(
        str(model), labels=labels, labels_name="--labels=FILE", image_size=image_size, mirror="", repair=False
    )


def test_probabilities_of_a_module_are_those_of_its_logits_on_all_of_the_picture(tmp_path: Path) -> None:
    folder = modules.inference_only(tmp_path / "module")
    image_input = ImageInput(modules.IMAGE_SIZE, "squash")
    pixels = tf.stack([unit_range(image_input.from_encoded(tf.constant(picture))) for picture in PICTURES])
    expected = tf.nn.softmax(tf.saved_model.load(str(folder))(pixels)).numpy()
    classifier = load(folder)
    assert classifier.labels == ("0", "1", "2", "3")
    np.testing.assert_allclose(classifier.classify(PICTURES), expected, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 0.001


@pytest.mark.parametrize(
    "outputs",
    [
        lambda features: {"output_0": tf.nn.softmax(features)},
        lambda features: {"logits": 9 * features, "probabilities": tf.nn.softmax(features)},
        lambda features: {"a": features[:, :, None], "predictions": tf.cast(tf.nn.softmax(features), tf.float16)},
    ],
    ids=["alone", "by name", "float16"],
)
def test_probabilities_are_left_as_they_are(
    outputs: Callable[[tf.Tensor], dict[str, tf.Tensor]], tmp_path: Path
) -> None:
    expected = load(modules.inference_only(tmp_path / "logits")).classify(PICTURES)
    found = load(modules.signatures_only(tmp_path / "module", outputs)).classify(PICTURES)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_signature_for_classification_is_chosen(tmp_path: Path) -> None:
    module = tf.Module()

    @tf.function(input_signature=[modules.images_spec()])
    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": tf.zeros([tf.shape(images)[0], 7])}

    @tf.function(input_signature=[modules.images_spec()])
    def classes(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": tf.zeros([tf.shape(images)[0], 3])}

    signatures = {"default": features, "image_classification": classes, "image_feature_vector": features}
    assert len(load(modules.save(module, tmp_path / "module", signatures=signatures)).labels) == 3


def test_the_old_format_works(tmp_path: Path) -> None:
    expected = load(modules.inference_only(tmp_path / "new")).classify(PICTURES)
    np.testing.assert_allclose(load(modules.tf1_format(tmp_path / "old")).classify(PICTURES), expected, atol=1e-6)


def test_one_damaged_image_is_an_invalid_argument(tmp_path: Path) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        load(modules.inference_only(tmp_path / "module")).classify([PICTURES[0], b"x"])


def test_labels_must_be_as_many_as_classes(tmp_path: Path) -> None:
    folder = modules.inference_only(tmp_path / "module")
    assert load(folder, ["a", "b", "c", "d"]).labels == ("a", "b", "c", "d")
    with pytest.raises(UserError, match=f"--labels=FILE has 3 lines, and {folder} tells 4 classes apart"):
        load(folder, ["a", "b", "c"])


def test_the_image_size_is_asked_for_where_the_module_leaves_it_open(tmp_path: Path) -> None:
    folder = modules.inference_only(tmp_path / "module", modules.images_spec(None, None, None, 3))
    with pytest.raises(UserError, match=f"^{folder} takes images of any size; choose one with --image_size"):
        load(folder)
    assert load(folder, image_size=16).classify(PICTURES).shape == (2, 4)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (modules.rank_4, "is no classification module: it takes .* where float .batch, classes. is expected"),
        (modules.text_input, "is no classification module for images: it takes string .batch."),
        (modules.no_callable, "is no module"),
    ],
)
def test_other_modules_are_refused(build: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "module")
    with pytest.raises(UserError, match=f"^{folder} {sentence}") as refused:
        load(folder)
    assert "backbone" not in str(refused.value)


def test_a_module_that_writes_files_is_refused(tmp_path: Path) -> None:
    def write(images: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "x")]):
            return tf.reduce_mean(images, [1, 2])

    folder = modules.computing(tmp_path / "module", modules.images_spec(), write)
    with pytest.raises(UserError, match=f"^{folder} is refused: its graph has WriteFile"):
        load(folder)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("folder", ["export", "model"])
def test_the_export_of_a_run_directory_is_taken_whatever_it_is_called_there(folder: str, tmp_path: Path) -> None:
    modules.inference_only(tmp_path / folder)
    assert len(load(tmp_path).labels) == 4


def test_a_run_directory_without_an_export_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is a run directory without export/"):
        load(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}/x: there is no folder .*. Give a folder, gs://…, or a handle"):
        load(tmp_path / "x")


def test_labels_are_lines_and_nothing_else_ends_one(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffa b\r\n\n\u2028c\x0c\n".encode())
    assert read_labels(str(file)) == ["a b", "", "\u2028c\x0c"]
    assert label_lines("a\nb") == ["a", "b"]
    with pytest.raises(UserError, match="There is no .*nothing.txt: check the name or give another --labels"):
        read_labels(str(tmp_path / "nothing.txt"))
