"""Whatever turns images into classes, as one function from the bytes of files to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.images import ImageInput
from trainer.data.texts import TextInput
from trainer.errors import UserError
from trainer.layout import LAYOUTS
from trainer.model.endpoint import CLASSIFICATION
from trainer.model.handles import resolve
from trainer.model.hub import HubModule, as_module, load_saved_model
from trainer.serving.labels import label_lines
from trainer.storage import RunDirectory

_EXPORT = "export"
_SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")
_OF_RUN_DIRECTORIES = ("config.json", "status.json", "checkpoints")

_TOLERANCE = 1e-3
"""By how much the probabilities of an image may miss 1 in sum: modules that compute in float16 do by so much."""


@dataclass(frozen=True, eq=False)
class ImageClassifier:
    """A loaded model.

    Attributes:
      labels: name of each class, in the order of the probabilities.
      classify: the bytes of b files to float32 `[b, classes]`, probabilities. Threads may call it at once. Raises
        `tf.errors.InvalidArgumentError` if one of them cannot be decoded.
      model: the loaded object, which the variables go with.
    """

    labels: tuple[str, ...]
    classify: Callable[[Sequence[bytes]], NDArray[np.float32]]
    model: Any


def load_classifier(
    model: str, *, labels: Sequence[str] | None, labels_name: str, image_size: int, mirror: str, repair: bool
) -> ImageClassifier:
    """Loads an export, the export of a run directory, or a Hub module that gives logits or probabilities.

    An export is asked through its own signature "serving_default". A module gets all of each picture, out of
    proportion, as in TensorFlow Hub's tutorials; that it gives logits is seen from two pictures whose answers do not
    sum up to 1.

    Args:
      model: a folder, local or gs://, or the handle of a module.
      labels: names of the classes; None takes those of the export, or numbers.
      labels_name: what `labels` are called in errors.
      image_size: height and width in pixels, for modules that leave it open; 0 for no wish.
      mirror: see `resolve`.
      repair: see `resolve`.

    Raises:
      UserError: there is no such model, it classifies no images, or the labels are more or fewer than its classes.
    """
    path = resolve(_with_export(model), argument="", mirror=mirror, repair=repair)
    loaded = load_saved_model(path, model)
    serving = _serving_signature(loaded)
    if serving is not None:
        _check_takes_images(serving, model)
        own_labels = _own_labels(path)
        classes = int(serving.structured_outputs["probabilities"].shape[1])
        classify = _of_signature(serving)
    else:
        own_labels = None
        module = as_module(loaded, path, model, image_size, CLASSIFICATION)
        classes = module.feature_size
        classify = _of_module(module)
    named, chosen = (labels_name, labels) if labels is not None else (f"labels.txt of {model}", own_labels)
    if chosen is not None and len(chosen) != classes:
        raise UserError(
            f"{named} has {len(chosen)} lines, and {model} tells {classes} classes apart: give --labels=FILE with one "
            "line for each of them."
        )
    return ImageClassifier(tuple(chosen or map(str, range(classes))), classify, loaded)


def _with_export(model: str) -> str:
    """The export inside, if a folder is a run directory; else what was given."""
    if model.startswith(("http://", "https://")):
        return model
    folder = RunDirectory(model, "model")
    if any(folder.exists(name) for name in _SAVED_MODELS):
        return model
    for layout in LAYOUTS:
        run = RunDirectory(model, "model", layout)
        if any(run.exists(_EXPORT, name) for name in _SAVED_MODELS):
            return run.join(_EXPORT)
    if any(folder.exists(name) for name in _OF_RUN_DIRECTORIES):
        raise UserError(
            f"{model} is a run directory without {_EXPORT}/, as of a run that has not ended: start it again with its "
            "--run_dir, or give another model."
        )
    return model


def _serving_signature(loaded: Any) -> Any:
    """The signature that takes files and gives probabilities, as an export of ours has it; else None."""
    serving = getattr(loaded, "signatures", {}).get("serving_default")
    if serving is None:
        return None
    inputs = serving.structured_input_signature[1].values()
    probabilities = serving.structured_outputs.get("probabilities")
    if [(spec.dtype, spec.shape.rank) for spec in inputs] != [(tf.string, 1)] or probabilities is None:
        return None
    return serving if probabilities.shape.rank == 2 and probabilities.shape[1] is not None else None


def _check_takes_images(serving: Any, model: str) -> None:
    (argument,) = serving.structured_input_signature[1]
    if argument == TextInput.argument:
        raise UserError(
            f"{model} classifies texts, and this program looks at pictures: give the export of a run on images."
        )


def _own_labels(path: str) -> list[str] | None:
    exported = RunDirectory(path, "model")
    return label_lines(exported.read_text("assets/labels.txt")) if exported.exists("assets/labels.txt") else None


def _of_signature(serving: Any) -> Callable[[Sequence[bytes]], NDArray[np.float32]]:
    (name,) = serving.structured_input_signature[1]

    def classify(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        answers = serving(**{name: tf.constant(list(encoded))})
        return np.asarray(answers["probabilities"], np.float32)

    return classify


def _of_module(module: HubModule) -> Callable[[Sequence[bytes]], NDArray[np.float32]]:
    assert module.image_size  # `CLASSIFICATION` takes images.
    image_input = ImageInput(module.image_size, "squash")
    gives_probabilities = _gives_probabilities(module, module.image_size)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def answer(encoded: tf.Tensor) -> tf.Tensor:
        answers = module.apply(image_input.serve(encoded), False)
        return answers if gives_probabilities else tf.nn.softmax(answers)

    def classify(encoded: Sequence[bytes]) -> NDArray[np.float32]:
        return np.asarray(answer(tf.constant(list(encoded))))

    return classify


def _gives_probabilities(module: HubModule, size: int) -> bool:
    """Asks about two pictures of `size` pixels, a black one and one of all levels of grey."""
    ramp = tf.reshape(tf.linspace(0.0, 1.0, size * size), [size, size, 1])
    answers = np.asarray(module.apply(tf.stack([tf.zeros([size, size, 3]), tf.tile(ramp, [1, 1, 3])]), False))
    return bool((answers >= 0).all() and (np.abs(answers.sum(axis=1) - 1) <= _TOLERANCE).all())
