"""The trained model in TFLite's format, quantized after training; `trainer.export.tflite` says what the files are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.images import ImageInput, unit_range
from trainer.data.splits import limit_per_class
from trainer.export.tflite_classifier import single_images
from trainer.features.extractors import Pixels
from trainer.features.tflite import NotConvertibleError, converted_quietly, quietly
from trainer.model.classifier import Classifier
from trainer.preparation import Prepared, build_classifier

Kind = Literal["float16", "int8"]
KINDS: tuple[Kind, ...] = get_args(Kind)

REPRESENTATIVE_IMAGES = 100
"""How many training images the ranges of the activations are taken from; TensorFlow's guide to post-training
quantization (2026-11) asks for "around ~100-500 samples". Most of the time of an int8 conversion goes into them."""


def converted(model: Classifier, kind: Kind, representative: Pixels) -> bytes:
    """The model as a TFLite file.

    Args:
      model: in float32, on CPU and outside of any strategy.
      kind: which file.
      representative: uint8 `[n, S, S, 3]`, n > 0, pictures like those that it will see. Only "int8" looks at them.

    Raises:
      NotConvertibleError: the model has operations that TFLite lacks.
    """
    if model.backbone.kind == "tf1":  # The converter does not find the shapes of its variables.
        raise NotConvertibleError("it is in the old TF1 format, whose graphs its converter does not read")
    if kind == "float16":
        return converted_quietly(_traced(model, tf.uint8), _ask_for_float16)

    def ask_for_int8(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _calibration(representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8

    content = converted_quietly(_traced(model, tf.float32), ask_for_int8)
    _check_input(content)
    return content


def in_float32(prepared: Prepared, model: Classifier) -> Classifier:
    """The same model in float32, the one format that the converter takes; its weights may be rounded for that.

    Args:
      prepared: the run.
      model: on CPU, outside of any strategy.
    """
    if prepared.config.precision == "float32":
        return model
    config = prepared.config.model_copy(update={"precision": "float32"})
    with tf.device("/cpu:0"):
        twin, _ = build_classifier(dataclasses.replace(prepared, config=config))
    for ours, theirs in zip(twin.variables, model.variables, strict=True):
        ours.assign(tf.cast(theirs.value, ours.dtype))
    return twin


def representative_images(prepared: Prepared, model: Classifier) -> Pixels:
    """Training images from all classes as the model sees them, uint8 `[n, S, S, 3]`, the same ones at each call.

    At most `REPRESENTATIVE_IMAGES`, and as many of each class, where it has as many.

    Raises:
      tf.errors.OpError: an image cannot be read or decoded.
    """
    labels = prepared.source.labels
    classes = len(prepared.source.class_names)
    each = max(1, REPRESENTATIVE_IMAGES // classes)
    chosen = limit_per_class(prepared.train, labels, each, prepared.config.seed)
    places = np.linspace(0, len(chosen) - 1, min(len(chosen), REPRESENTATIVE_IMAGES)).astype(int)
    return np.concatenate([image for _, image in single_images(prepared.source, chosen[places], image_input_of(model))])


def image_input_of(model: Classifier) -> ImageInput:
    """How pictures become the model's input; `Config` allows no TFLite files of others."""
    assert isinstance(model.model_input, ImageInput)
    return model.model_input


def _traced(model: Classifier, dtype: tf.DType) -> tf.types.experimental.ConcreteFunction:
    """From one picture, uint8 or float32 in [0, 1], to its probabilities."""
    size = image_input_of(model).size

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], dtype, name="pixels")])
    def classify(pixels: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(model(unit_range(pixels) if dtype == tf.uint8 else pixels))

    return classify.get_concrete_function()


def _ask_for_float16(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _calibration(pixels: Pixels) -> Iterator[list[NDArray[np.float32]]]:
    """The pictures as the converter asks for them: float32 `[1, S, S, 3]` in [0, 1].

    Two values of the first become 0 and 1: the range of the input that the converter finds is then [0, 1], and so the
    uint8 that stands for a level is that level itself.
    """
    for place, picture in enumerate(pixels):
        levels = picture[np.newaxis].astype(np.float32) / 255
        if place == 0:
            levels[0, 0, 0, :2] = 0, 1
        yield [levels]


def _check_input(content: bytes) -> None:
    """Makes sure that the file takes levels from 0 to 255 for [0, 1].

    Raises:
      RuntimeError: it does not, which would be a bug.
    """
    with quietly():
        (pixels,) = tf.lite.Interpreter(model_content=content).get_input_details()
    scale, zero_point = pixels["quantization"]
    if pixels["dtype"] != np.uint8 or zero_point != 0 or not abs(scale * 255 - 1) < 1e-5:
        raise RuntimeError(f"int8.tflite takes {pixels['dtype']} of scale {scale} and zero point {zero_point}")
