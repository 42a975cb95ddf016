"""What a run needs before its first step: examples, splits, model, optimizer, batches.

The run itself (`trainer.run`), preflight, the tests and the benchmarks all start from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.config import Config
from trainer.data.class_weights import class_weights
from trainer.data.order import Share, first_step_of_epoch, training_steps
from trainer.data.pipeline import training_batches
from trainer.data.source import Source
from trainer.data.sources import open_source
from trainer.data.splits import Splits, limit_per_class, split_examples
from trainer.model.averages import WeightAverages
from trainer.model.backbone import HubBackbone, build_backbone
from trainer.model.classifier import Classifier
from trainer.model.groups import Group, parameter_groups
from trainer.model.optimizer import Optimizer
from trainer.model.schedule import build_schedule
from trainer.records.console import Console
from trainer.training.step import TrainStep
from trainer.training.warm_start import WarmStart, warm_start

if TYPE_CHECKING:
    from trainer.features.once import RunFeatures


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model is built.

    Attributes:
      config: the run.
      cluster: where it computes.
      source: the images or texts.
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
    warm_start: WarmStart | None = None
    """What --init_from brought."""


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
    splits = split_examples(source.split_keys, source.labels, source.class_names, config.splits, source.kind)
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
        model, brought = build_classifier(prepared)
        groups = parameter_groups(config, model.trainable_variables)
        schedule = build_schedule(config, len(prepared.train), prepared.steps_total)
        optimizer = Optimizer(config, schedule, groups, _averages(config, model, groups))
    return Built(model, optimizer, brought)


def build_classifier(prepared: Prepared) -> tuple[Classifier, WarmStart | None]:
    """The model with initial weights, in whatever scope the caller is, and what --init_from brought to them.

    Also where a run goes on from its own checkpoint: that holds only what training changes.
    """
    config = prepared.config
    backbone = build_backbone(config, prepared.source.native_size)
    model = Classifier(backbone, len(prepared.source.class_names), config)
    return model, warm_start(config.init_from, model) if config.init_from else None


def publishable(prepared: Prepared, built: Built) -> Classifier:
    """The model to publish, on CPU and outside of any strategy, whose weights are to be restored from a checkpoint.

    Where the trained model is such a one it is given back.
    """
    if prepared.cluster.has_plain_variables:
        return built.model
    with tf.device("/cpu:0"):
        model, _ = build_classifier(prepared)
        return model


def build_step(prepared: Prepared, built: Built) -> TrainStep:
    """What each replica does with its batch."""
    replicas = prepared.cluster.replicas
    return TrainStep(built.model, built.optimizer, prepared.config, replicas, prepared.class_weights)


def features_once(prepared: Prepared, model: Classifier, console: Console) -> RunFeatures | None:
    """The features of all images that the run uses, computed now or by an earlier run; None where that would be wrong.

    Raises:
      UserError: the cache cannot be read or written.
      tf.errors.OpError: an image cannot be read or decoded.
    """
    config = prepared.config
    if not config.uses_hub_module:
        return None  # The built-in network is always trained; nothing need be said.
    if not config.keeps_features:
        console.entry("features", f"computed in every epoch: {config.features_change or '--feature_cache=off'}")
        return None
    from trainer.features.once import FeaturesOnce

    assert isinstance(model.backbone, HubBackbone)
    once = FeaturesOnce(
        config,
        prepared.cluster,
        prepared.source,
        model.backbone,
        model.model_input,
        console.note,
        lambda done, total: console.work("features", done, total),
    )
    splits = prepared.splits
    features = once(prepared.train, np.union1d(splits.validation, splits.test))
    console.close()
    console.entry("features", features.summary)
    return features


def training_input(
    prepared: Prepared, model: Classifier, *, first_step: int, last_step: int, features: RunFeatures | None = None
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """A batch for each replica and step, from `first_step` to `last_step` (exclusive).

    Args:
      prepared: the run.
      model: its preprocessing is applied.
      first_step: where to start.
      last_step: where to stop.
      features: of the training images, computed before; None reads the images.
    """
    config, source, train = prepared.config, prepared.source, prepared.train

    def of_one_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = Share.of(context, config.batch_size)
        if features:
            return features.training_batches(source, train, config.seed, share, first_step, last_step)
        return training_batches(source, train, config, model.model_input, share, first_step, last_step)

    return prepared.cluster.distribute(of_one_pipeline)


def parameter_count(variables: Sequence[keras.Variable]) -> int:
    """How many numbers the variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def _averages(config: Config, model: Classifier, groups: list[Group]) -> WeightAverages:
    """Of all that training moves: the trained weights and the moving statistics."""
    trained = [variable for group in groups for variable in group.variables]
    return WeightAverages(config.ema_decay, [*trained, *model.backbone.moving_statistics])
