"""Batches between examples and features: examples for the extractor, features for the training step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.model_input import ModelInput
from trainer.data.order import PADDING, Share, evaluation_order, training_order
from trainer.data.pipeline import Augmentation, Batch, example_batches, label_lookup, numbered, replica_batches
from trainer.data.source import Source
from trainer.features.recipe import View
from trainer.features.table import FeatureTable


@dataclass(frozen=True)
class TrainingFeatures:
    """The features that a run trains on.

    Attributes:
      table: `views` times n rows: those of view 0 in the order of the training images, then those of view 1, ...
      views: how many variants of each image there are; epoch e takes number e modulo `views`.
    """

    table: FeatureTable
    views: int


def extractor_batches(
    source: Source,
    indices: NDArray[np.int64],
    ids: NDArray[np.uint8],
    model_input: ModelInput,
    view: View | None,
    augmentation: Augmentation | None,
    order: tf.data.Dataset,
    batch: int,
) -> tf.data.Dataset:
    """The examples that an extractor is to see: see `fill.ExampleBatches`.

    What is random about an image in a view depends on its content, the view and the seed alone, and on no other image.

    Args:
      source: where the examples come from.
      indices: int64 `[n]`, ascending: what places count from.
      ids: uint8 `[n, 16]`, their ids.
      model_input: how an example becomes the module's input.
      view: which one; None: the examples as they are.
      augmentation: what a view does to an image.
      order: places, int64 `[k]` each.
      batch: examples a batch.
    """
    with tf.device("CPU:0"):
        seeds = tf.constant(_seeds(ids, view))
        known = tf.constant(indices)

    def add_seeds(places: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"place": places, "seed": tf.gather(seeds, tf.maximum(places, 0))}

    def name_places(rows: Batch) -> Batch:
        index = tf.cast(rows["index"], tf.int64)
        place = tf.where(index == PADDING, index, tf.searchsorted(known, index, out_type=tf.int64))
        return {"example": rows[model_input.kind], "place": place}

    share = Share(batch, replicas=1, first_replica=0, local_replicas=1)
    rows = example_batches(order.map(add_seeds), source, indices, model_input, share, augmentation)
    return rows.map(name_places)


def training_feature_batches(
    features: TrainingFeatures,
    source: Source,
    indices: NDArray[np.int64],
    seed: int,
    share: Share,
    first_step: int,
    last_step: int,
) -> tf.data.Dataset:
    """As `trainer.data.pipeline.training_batches`, in the same order, with "features" in the place of the examples.

    Args:
      features: of the images at `indices`.
      source: has their labels.
      indices: int64 `[n]`, the examples to train on.
      seed: of the run.
      share: which rows of each step.
      first_step: where to start.
      last_step: where to stop, exclusive.
    """
    read = features.table.reader()
    lookup = label_lookup(source, indices)

    def load(rows: dict[str, tf.Tensor]) -> Batch:
        view = rows["epoch"] % features.views
        return {"features": read(view * len(indices) + rows["place"]), **lookup(rows["place"])}

    order = training_order(len(indices), seed, share, first_step, last_step)
    return numbered(replica_batches(order, load, share), share)


def evaluation_feature_batches(
    table: FeatureTable, source: Source, indices: NDArray[np.int64], rows_of: NDArray[np.int64], share: Share
) -> tf.data.Dataset:
    """As `trainer.data.pipeline.evaluation_batches`, with "features" in the place of the examples, zero in
    padding.

    Args:
      table: of the images' features.
      source: has their labels.
      indices: int64 `[n]`, the examples to evaluate on.
      rows_of: int64 `[n]`, their rows in the table.
      share: which rows of each global batch.
    """
    read = table.reader()
    lookup = label_lookup(source, indices)
    with tf.device("CPU:0"):
        rows_by_place = tf.constant(rows_of)

    def load(rows: dict[str, tf.Tensor]) -> Batch:
        place = rows["place"]
        features = read(tf.gather(rows_by_place, tf.maximum(place, 0)))
        padding = tf.reshape(place == PADDING, [-1, 1])
        return {"features": tf.where(padding, tf.zeros([]), features), **lookup(place)}

    return replica_batches(evaluation_order(len(indices), share), load, share)


def _seeds(ids: NDArray[np.uint8], view: View | None) -> NDArray[np.int32]:
    """What the random changes of each image are drawn from, int32 `[n, 2]`."""
    text = f"{view.seed} {view.number}" if view else ""
    first = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], "<i4")
    second = np.ascontiguousarray(ids[:, :4]).view("<i4").reshape(-1)
    return np.stack([np.broadcast_to(first, second.shape), second], axis=1).astype(np.int32)
