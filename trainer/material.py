"""What a run leaves behind for its page, taken from the data and the model while they are at hand."""

from __future__ import annotations

import platform

import numpy as np
import tensorflow as tf

from trainer.data.images import ImageInput
from trainer.data.source import Source
from trainer.preparation import Built, Prepared, parameter_count
from trainer.processors import processors
from trainer.records.examples import ShownExample, choose_examples
from trainer.records.facts import Facts
from trainer.records.predictions import Predictions, Split
from trainer.training.evaluation import Evaluation
from trainer.wording import counted

_THUMBNAIL = 128
"""Height and width of a picture on the page, in pixels, unless the model sees fewer."""

_SMALLEST_JPEG = 64
"""Pixels of height below which a picture is kept as PNG: a JPEG of it would be larger, and blurred."""


def facts_of(prepared: Prepared, built: Built) -> Facts:
    """What the run is made of."""
    source, splits, cluster = prepared.source, prepared.splits, prepared.cluster
    used: dict[Split, np.ndarray] = {
        "train": prepared.train,
        "validation": splits.validation,
        "test": splits.test,
    }
    classes = len(source.class_names)
    backbone = built.model.backbone
    return Facts(
        data=source.name,
        example_kind="image",
        class_names=list(source.class_names),
        examples={name: np.bincount(source.labels[rows], minlength=classes).tolist() for name, rows in used.items()},
        image_size=backbone.image_size,
        feature_size=backbone.feature_size,
        parameters=parameter_count(built.model.variables),
        trained_parameters=parameter_count(built.optimizer.variables),
        devices=cluster.description,
        replicas=cluster.replicas,
        workers=cluster.workers,
        machine=f"{platform.system()} on {platform.machine()}, {counted(processors(), 'processor')}",
    )


def predictions_of(evaluation: Evaluation, source: Source) -> Predictions:
    """The answers by name."""
    return Predictions(
        keys=[source.keys[index] for index in evaluation.indices.tolist()],
        labels=[source.class_names[label] for label in evaluation.labels.tolist()],
        predictions=[source.class_names[label] for label in evaluation.predictions.tolist()],
        confidences=evaluation.confidences,
        losses=evaluation.losses,
    )


def shown_examples(evaluation: Evaluation, source: Source, image_input: ImageInput) -> list[ShownExample]:
    """A few of the answers with what the model looked at.

    Raises:
      tf.errors.OpError: an image cannot be read any more.
    """
    predictions = predictions_of(evaluation, source)

    def shown(place: int) -> ShownExample:
        content, media_type = _thumbnail(source.encoded(int(evaluation.indices[place])), image_input)
        return ShownExample(
            key=predictions.keys[place],
            label=predictions.labels[place],
            prediction=predictions.predictions[place],
            confidence=float(predictions.confidences[place]),
            content=content,
            media_type=media_type,
        )

    return [shown(place) for place in choose_examples(predictions).tolist()]


def _thumbnail(encoded: bytes, image_input: ImageInput) -> tuple[bytes, str]:
    """What the model sees of an image, small, and its media type."""
    with tf.device("/cpu:0"):
        pixels = image_input.from_encoded(tf.constant(encoded))
        if image_input.size > _THUMBNAIL:
            smaller = tf.image.resize(pixels, [_THUMBNAIL, _THUMBNAIL], antialias=True)
            pixels = tf.cast(tf.round(smaller), tf.uint8)
        if image_input.size < _SMALLEST_JPEG:
            return tf.io.encode_png(pixels).numpy(), "image/png"
        return tf.io.encode_jpeg(pixels, quality=85).numpy(), "image/jpeg"
