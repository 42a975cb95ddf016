"""What the converter is given: the model in float32, and representative images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.cluster import connect
from trainer.config import Config
from trainer.data.source import ArraySource
from trainer.export.tflite_classifier import TfliteClassifier
from trainer.export.tflite_conversion import converted, in_float32, representative_images
from trainer.preparation import build, prepare
from trainer.records.console import Console

TINY: dict[str, Any] = {"data": "synthetic:3", "image_size": 8, "batch_size": 8}


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_other_precisions_are_converted_in_float32(precision: str) -> None:
    config = Config(**(TINY | {"precision": precision}))
    prepared = prepare(config, connect(config), Console(quiet=True))
    model = build(prepared).model
    twin = in_float32(prepared, model)
    pixels = np.random.default_rng(0).integers(0, 256, [1, 8, 8, 3], np.uint8)
    expected = tf.nn.softmax(model(tf.constant(pixels / np.float32(255)))).numpy()
    for kind, tolerance in (("float16", 0.02), ("int8", 0.05)):
        file = TfliteClassifier(converted(twin, kind, pixels))  # type: ignore[arg-type]
        np.testing.assert_allclose(file.probabilities([pixels]), expected, atol=tolerance)
    model.head.kernel.assign(model.head.kernel * 2)
    assert not np.allclose(twin.head.kernel, model.head.kernel, atol=0.01)  # A model of its own.


@pytest.mark.parametrize(("classes", "of_each"), [(3, 33), (150, None)])
def test_representative_images_are_training_images_of_all_classes(classes: int, of_each: int | None) -> None:
    config = Config(data=f"synthetic:{classes}")
    prepared = prepare(config, connect(config), Console(quiet=True))
    images = representative_images(prepared, build(prepared).model)
    assert isinstance(prepared.source, ArraySource)
    assert images.dtype == np.uint8 and images.shape[1:] == prepared.source.pixels.shape[1:]
    labels_of = {prepared.source.pixels[i].tobytes(): int(prepared.source.labels[i]) for i in prepared.train}
    labels = [labels_of.get(image.tobytes(), -1) for image in images]
    assert min(labels) >= 0  # All are training images.
    counts = np.bincount(labels, minlength=classes)
    if of_each:
        assert counts.tolist() == [of_each] * classes
    else:
        assert (len(images), int(counts.max())) == (100, 1)
    assert np.array_equal(images, representative_images(prepared, build(prepared).model))


def test_a_dark_set_does_not_shift_the_levels_of_the_input() -> None:
    """Where no representative image has a bright pixel, 255 must stand for 1 all the same."""
    config = Config(**TINY)
    model = build(prepare(config, connect(config), Console(quiet=True))).model
    dark = np.random.default_rng(0).integers(0, 60, [20, 8, 8, 3], np.uint8)
    file = TfliteClassifier(converted(model, "int8", dark))
    expected = tf.nn.softmax(model(tf.constant(dark / np.float32(255)))).numpy()
    np.testing.assert_allclose(file.probabilities(picture[np.newaxis] for picture in dark), expected, atol=0.03)
