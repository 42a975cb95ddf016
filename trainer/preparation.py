"""What a run needs before its first step: images, splits, model, optimizer, batches.

The run itself (`trainer.run`), preflight, the tests and the benchmarks all start from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.config import Config
from trainer.data.class_weights import class_weights
from trainer.data.pipeline import Share, first_step_of_epoch, training_batches, training_steps
from trainer.data.source import Source
from trainer.data.sources import open_source
from trainer.data.splits import Splits, limit_per_class, split_examples
from trainer.model.averages import WeightAverages
from trainer.model.backbone import build_backbone
from trainer.model.classifier import Classifier
from trainer.model.groups import Group, parameter_groups
from trainer.model.optimizer import Optimizer
from trainer.model.schedule import build_schedule
from trainer.records.console import Console
from trainer.training.step import TrainStep


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model is built.

    Attributes:
      config: the run.
      cluster: where it computes.
      source: the images.
      splits: which of them are for what.
      train: int64, the training images: `splits.train`, or `--examples_per_class` of them.
      class_weights: float32 `[classes]`, what an image of each class counts in training; None: all count 1.
    """

    config: Config
    cluster: Cluster
    source: Source
    splits: Splits
    train: NDArray
    class_weights: NDArray[np.float32] | None

    @property
    def epoch_ends(self) -> list[int]:
        """For each epoch, how many steps are done when it ends."""
        examples, batch = len(self.train), self.config.batch_size
        return [first_step_of_epoch(epoch, examples, batch) for epoch in range(1, self.config.epochs + 1)]

    @property
    def steps_total(self) -> int:
        """Steps of the whole run."""
        return training_steps(len(self.train), self.config.batch_size, self.config.epochs)


@dataclass(frozen=True)
class Built:
    """The model and what moves it, created in the strategy's scope."""

    model: Classifier
    optimizer: Optimizer


def prepare(config: Config, cluster: Cluster, console: Console) -> Prepared:
    """Finds images and splits.

    Args:
      config: the run.
      cluster: where it will compute.
      console: is told how a long look through the images goes.

    Raises:
      UserError: the images are not as the configuration needs them.
    """
    source = open_source(config, console.note)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    train = limit_per_class(splits.train, source.labels, config.examples_per_class, config.seed)
    weights = class_weights(config, source.class_names, source.labels[train])
    return Prepared(config, cluster, source, splits, train, weights)


def build(prepared: Prepared) -> Built:
    """Builds model and optimizer under the strategy.

    Raises:
      UserError: the Hub module cannot be had, or is no feature vector for images; or a pattern of `--freeze` or
        `--lr_scale` fits nothing.
    """
    config = prepared.config
    with prepared.cluster.strategy.scope():
        model = build_classifier(prepared)
        groups = parameter_groups(config, model.trainable_variables)
        schedule = build_schedule(config, len(prepared.train), prepared.steps_total)
        optimizer = Optimizer(config, schedule, groups, _averages(config, model, groups))
    return Built(model, optimizer)


def build_classifier(prepared: Prepared) -> Classifier:
    """The model with initial weights, in whatever scope the caller is."""
    backbone = build_backbone(prepared.config, prepared.source.native_size)
    return Classifier(backbone, len(prepared.source.class_names), prepared.config)


def build_published(prepared: Prepared) -> tuple[Classifier, WeightAverages]:
    """The model to publish, on CPU and outside of any strategy, and the averages of its weights, if there are any.

    Both are to be restored from a checkpoint.
    """
    with tf.device("/cpu:0"):
        model = build_classifier(prepared)
        groups = parameter_groups(prepared.config, model.trainable_variables)
        return model, _averages(prepared.config, model, groups)


def build_step(prepared: Prepared, built: Built) -> TrainStep:
    """What each replica does with its batch."""
    replicas = prepared.cluster.replicas
    return TrainStep(built.model, built.optimizer, prepared.config, replicas, prepared.class_weights)


def training_input(
    prepared: Prepared, model: Classifier, *, first_step: int, last_step: int
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """A batch for each replica and step, from `first_step` to `last_step` (exclusive)."""
    config = prepared.config

    def of_one_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = Share.of(context, config.batch_size)
        return training_batches(
            prepared.source, prepared.train, config, model.image_input, share, first_step, last_step
        )

    sole = prepared.cluster.sole_pipeline
    if sole:
        return of_one_pipeline(sole)
    return prepared.cluster.strategy.distribute_datasets_from_function(of_one_pipeline)


def _averages(config: Config, model: Classifier, groups: list[Group]) -> WeightAverages:
    """Of all that training moves: the trained weights and the moving statistics."""
    trained = [variable for group in groups for variable in group.variables]
    return WeightAverages(config.ema_decay, [*trained, *model.backbone.moving_statistics])
