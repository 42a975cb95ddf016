"""Export: SavedModels that serve with TensorFlow alone, published only after a parity check in a fresh process.

export/                 the classifier
  saved_model.pb …      signatures serving_default (encoded images) and from_pixels (floats in [0, 1])
  assets/labels.txt     one class name a line, in the order of the probabilities
  feature_vector/       the backbone alone, a reusable Hub module: the next run's --backbone
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.images import unit_range
from trainer.export_reload import FreshProcess, ParityError, Probe
from trainer.model.backbone import Backbone
from trainer.model.classifier import Classifier
from trainer.storage import RunDirectory, reading_or_writing

FOLDER = "export"
FEATURE_VECTOR = "feature_vector"

PARITY_TOLERANCE = 1e-6
"""Largest difference allowed between a probability of the model in memory and of the one that was reloaded, both
computed on CPU."""


def export_model(model: Classifier, class_names: Sequence[str], images: Sequence[bytes], run: RunDirectory) -> str:
    """Saves, reloads in a fresh process, compares, publishes under `export/`.

    Args:
      model: on CPU, outside of any strategy, with the weights to publish.
      class_names: in the order of the logits.
      images: encoded images, at least one, that both models are asked about.
      run: the run directory; an earlier export is replaced only by one that passed.

    Returns:
      The path of the published classifier.

    Raises:
      ParityError: the reloaded model differs by more than `PARITY_TOLERANCE`; nothing was published.
      UserError: the place cannot be written.
    """
    with FreshProcess() as fresh, reading_or_writing(run.path):
        staging = run.staging(FOLDER)
        feature_vector = f"{staging}/{FEATURE_VECTOR}"
        try:
            probe = _probe(model, images)
            _save_classifier(model, class_names, staging)
            fresh.ask("classifier", staging, probe)
            _save_feature_vector(model.backbone, feature_vector)
            fresh.ask("feature_vector", feature_vector, probe)
            compare(probe, class_names, fresh.answers())
            run.publish_tree(staging, FOLDER)
        except BaseException:
            tf.io.gfile.rmtree(staging)
            raise
    return run.join(FOLDER)


def compare(expected: Probe, class_names: Sequence[str], actual: dict[str, NDArray[Any]]) -> None:
    """Checks what the reloaded model said against the model in memory.

    Args:
      expected: what the model in memory says.
      class_names: in the order of the probabilities.
      actual: what `trainer.export_check` wrote.

    Raises:
      ParityError: any answer differs; the message says which and by how much.
    """
    for signature in ("serving_default", "from_pixels"):
        probabilities = actual[f"{signature}/probabilities"]
        difference = float(np.max(np.abs(probabilities - expected.probabilities)))
        if not difference <= PARITY_TOLERANCE:
            raise ParityError(f"probabilities of {signature} differ by {difference:.3g} after reloading the export")
        class_ids = np.argmax(probabilities, axis=-1)
        if not np.array_equal(actual[f"{signature}/class_id"], class_ids):
            raise ParityError(f"class_id of {signature} is not the most probable class")
        labels = [class_names[class_id].encode() for class_id in class_ids]
        if list(actual[f"{signature}/label"]) != labels:
            raise ParityError(f"label of {signature} is not the name of class_id")
    scale = max(1.0, float(np.max(np.abs(expected.features))))
    difference = float(np.max(np.abs(actual["feature_vector"] - expected.features))) / scale
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(f"feature vectors differ by {difference:.3g} of their largest value after reloading")


def _probe(model: Classifier, images: Sequence[bytes]) -> Probe:
    @tf.function
    def ask(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = model.backbone(pixels, training=False)
        return tf.nn.softmax(model.logits(features)), features

    with tf.device("/cpu:0"):
        pixels = unit_range(tf.stack([model.image_input.from_encoded(tf.constant(image)) for image in images]))
        probabilities, features = ask(pixels)
    return Probe(images, pixels.numpy(), probabilities.numpy(), features.numpy())


def _save_classifier(model: Classifier, class_names: Sequence[str], path: str) -> None:
    size = model.backbone.image_size
    names = tf.constant(list(class_names))

    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(pixels)
        class_id = tf.argmax(logits, axis=-1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_id": class_id,
            "label": tf.gather(names, class_id),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="pixels")])
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(pixels)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = classify(unit_range(model.image_input.from_encoded_batch(image_bytes)))
        return {name: answers[name] for name in ("probabilities", "label", "class_id")}

    served = _holder(model.variables)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder, "labels.txt")
        labels.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        served.labels = tf.saved_model.Asset(str(labels))
        with tf.device("/cpu:0"):
            tf.saved_model.save(
                served, path, signatures={"serving_default": serving_default, "from_pixels": from_pixels}
            )


def _save_feature_vector(backbone: Backbone, path: str) -> None:
    spec = tf.TensorSpec([None, backbone.image_size, backbone.image_size, 3], tf.float32, name="inputs")

    @tf.function
    def features(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return backbone.publisher_call(inputs, training)

    for training in (False, True):
        features.get_concrete_function(spec, training=training)
    module = _holder(backbone.variables)
    module.__call__ = features
    module.trainable_variables = [variable for variable in module.variables if variable.trainable]
    module.regularization_losses = [tf.function(loss, input_signature=[]) for loss in backbone.publisher_losses]
    with tf.device("/cpu:0"):
        tf.saved_model.save(module, path)


def _holder(variables: Sequence[keras.Variable]) -> tf.train.Checkpoint:
    """An object to save that owns these variables.

    Layers must not be attached to it: a Keras variable is saved as a copy of what it wraps, and whoever loads the
    module would train one copy and compute with the other.
    """
    holder = tf.train.Checkpoint()
    holder.variables = [variable.value for variable in variables]
    return holder
