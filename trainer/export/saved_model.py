"""Export: SavedModels that serve with TensorFlow alone, published only after a parity check in a fresh process.

export/                 the classifier
  saved_model.pb …      signatures serving_default (encoded images, or texts) and, of images, from_pixels (in [0, 1])
  assets/labels.txt     one class name a line, in the order of the probabilities
  feature_vector/       the backbone alone, a reusable Hub module: the next run's --backbone
  tflite/               see trainer.export.tflite
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.texts import build_model_input
from trainer.export.fresh_process import FreshProcess, ParityError, Probe
from trainer.export.labels import LABELS, name_labels
from trainer.model.backbone import Backbone
from trainer.model.classifier import Classifier
from trainer.storage import RunDirectory, reading_or_writing

FOLDER = "export"
FEATURE_VECTOR = "feature_vector"

PARITY_TOLERANCE = 1e-6
"""Largest difference allowed between a probability of the model in memory and of the one that was reloaded, both
computed on CPU."""


def export_model(
    model: Classifier,
    class_names: Sequence[str],
    examples: Sequence[bytes],
    run: RunDirectory,
    beside: Callable[[str, Probe], None] | None = None,
) -> str:
    """Saves, reloads in a fresh process, compares, publishes under `export/`.

    Args:
      model: on CPU, outside of any strategy, with the weights to publish.
      class_names: in the order of the logits.
      examples: encoded images or texts, at least one, that both models are asked about.
      run: the run directory; an earlier export is replaced only by one that passed.
      beside: writes more into the folder, whose path it is given, before that is published.

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
            probe = _probe(model, examples)
            _save_classifier(model, class_names, staging)
            fresh.ask("classifier", staging, probe)
            _save_feature_vector(model.backbone, feature_vector)
            fresh.ask("feature_vector", feature_vector, probe)
            if beside:
                beside(staging, probe)
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
      actual: what `trainer.export.fresh_check` wrote.

    Raises:
      ParityError: any answer differs; the message says which and by how much.
    """
    signatures = ["serving_default", *(["from_pixels"] if expected.pixels is not None else [])]
    for signature in signatures:
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


def label_lines(class_names: Sequence[str]) -> str:
    """What labels.txt says."""
    return "".join(f"{name}\n" for name in class_names)


def _probe(model: Classifier, examples: Sequence[bytes]) -> Probe:
    model_input = model.model_input

    @tf.function
    def ask(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = model.backbone(inputs, training=False)
        return tf.nn.softmax(model.logits(features)), features

    with tf.device("/cpu:0"):
        elements = tf.stack([model_input.from_encoded(tf.constant(example)) for example in examples])
        inputs = model_input.for_module(elements)
        probabilities, features = ask(inputs)
    pixels = None if model_input.takes_encoded else inputs.numpy()
    return Probe(examples, pixels, probabilities.numpy(), features.numpy())


def _save_classifier(model: Classifier, class_names: Sequence[str], path: str) -> None:
    model_input = model.model_input
    names = tf.constant(list(class_names))

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(inputs)
        class_id = tf.argmax(logits, axis=-1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_id": class_id,
            "label": tf.gather(names, class_id),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=model_input.argument)])
    def serving_default(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = classify(model_input.serve(encoded))
        return {name: answers[name] for name in ("probabilities", "label", "class_id")}

    signatures = {"serving_default": serving_default}
    if not model_input.takes_encoded:
        pixels = tf.TensorSpec(model_input.module_batch.shape, model_input.module_batch.dtype, name="pixels")
        signatures["from_pixels"] = tf.function(classify, input_signature=[pixels])
    served = _holder(model.variables, model.backbone.publisher_resources)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder, LABELS)
        labels.write_text(label_lines(class_names), encoding="utf-8")
        served.labels = tf.saved_model.Asset(str(labels))
        with tf.device("/cpu:0"):
            tf.saved_model.save(served, path, signatures=signatures)
    name_labels(path, "labels")


def _save_feature_vector(backbone: Backbone, path: str) -> None:
    taken = build_model_input(backbone.image_size).module_batch
    spec = tf.TensorSpec(taken.shape, taken.dtype, name="inputs")

    @tf.function
    def features(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return backbone.publisher_call(inputs, training)

    for training in (False, True):
        features.get_concrete_function(spec, training=training)
    module = _holder(backbone.variables, backbone.publisher_resources)
    module.__call__ = features
    module.trainable_variables = [variable for variable in module.variables if variable.trainable]
    module.regularization_losses = [tf.function(loss, input_signature=[]) for loss in backbone.publisher_losses]
    with tf.device("/cpu:0"):
        tf.saved_model.save(module, path)


def _holder(variables: Sequence[keras.Variable], resources: Sequence[Any]) -> tf.train.Checkpoint:
    """An object to save that owns these variables, and the tables and files that a module comes with.

    Layers must not be attached to it: a Keras variable is saved as a copy of what it wraps, and whoever loads the
    module would train one copy and compute with the other.
    """
    holder = tf.train.Checkpoint()
    holder.variables = [variable.value for variable in variables]
    holder.resources = list(resources)
    return holder
