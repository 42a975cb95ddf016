"""What one replica does with one batch: the contract that the loop, preflight and the tests share.

A step has static shapes and no host operation. The loss is this replica's share of the mean over the GLOBAL batch,
so that the sum over replicas, of losses and of gradients, is the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import Config
from trainer.model.classifier import BatchRows, Classifier
from trainer.model.optimizer import Optimizer
from trainer.model.reduction import sum_over_replicas
from trainer.training.mixing import Mixer

Batch = Mapping[str, tf.Tensor]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy of each example, in nats.

    Args:
      logits: float `[batch, classes]`.
      labels: int32 `[batch]`, in [0, classes).
      label_smoothing: share of the probability that is spread evenly over all classes.

    Returns:
      `[batch]`, of the logits' type.
    """
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not label_smoothing:
        return loss
    spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - label_smoothing) * loss + label_smoothing * spread


class TrainingLoss:
    """The loss that a training step differentiates, example by example: smoothing, class weights, mixed labels."""

    def __init__(self, label_smoothing: float, class_weights: NDArray[np.float32] | None) -> None:
        """Makes the loss.

        Args:
          label_smoothing: see `cross_entropy`.
          class_weights: float32 `[classes]`, what an example of each class counts; None: all count 1.
        """
        self._label_smoothing = label_smoothing
        self._class_weights = class_weights

    def __call__(
        self,
        logits: tf.Tensor,
        labels: tf.Tensor,
        partner_labels: tf.Tensor | None = None,
        own_share: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The loss of each example.

        Args:
          logits: float `[batch, classes]`.
          labels: int32 `[batch]`.
          partner_labels: int32 `[batch]`, of the images that were mixed in, if any were.
          own_share: float `[batch]`, how much of each image is its own.

        Returns:
          `[batch]`, of the logits' type.
        """
        own = self._of_labels(logits, labels)
        if partner_labels is None:
            return own
        share = tf.cast(own_share, logits.dtype)
        return share * own + (1.0 - share) * self._of_labels(logits, partner_labels)

    def _of_labels(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        loss = cross_entropy(logits, labels, self._label_smoothing)
        if self._class_weights is None:
            return loss
        return loss * tf.gather(tf.constant(self._class_weights, logits.dtype), labels)


class _Sums(NamedTuple):
    """What the pieces of a replica's batch add up to."""

    loss: tf.Tensor
    hits: tf.Tensor
    gradients: tuple[tf.Tensor, ...]


class TrainStep:
    """Forward, backward and update of one replica's batch. Call it through `strategy.run`."""

    def __init__(
        self,
        model: Classifier,
        optimizer: Optimizer,
        config: Config,
        replicas: int,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Binds a step to its model.

        Args:
          model: built in `strategy.scope()`.
          optimizer: built for the model's variables, in the scope.
          config: `batch_size` (global), `accumulation_steps`, `label_smoothing`, `mixup`, `cutmix` and `seed` are used.
          replicas: how many share the global batch.
          class_weights: float32 `[classes]`; None: all count 1.
        """
        self.model = model
        self.optimizer = optimizer
        self.loss = TrainingLoss(config.label_smoothing, class_weights)
        self.mixer = Mixer(config.mixup, config.cutmix, config.seed) if config.mixes_images else None
        self.global_batch = config.batch_size
        self.pieces = config.accumulation_steps
        self.replicas = replicas

    def __call__(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Trains on a replica's batch.

        Args:
          batch: "image" uint8 `[b, S, S, 3]`, "text" string `[b]` or "features" float32 `[b, feature_size]`; "label"
            int32 `[b]` and "row" int32 `[b]`, b = global batch / replicas.

        Returns:
          Scalars, float32 (float64 with that precision), whose sums over replicas are the global batch's "loss" (with
          regularization) and "accuracy".
        """
        sums = self._differentiate(batch) if self.pieces == 1 else self._accumulate(batch)
        # Before the update, whose moving average of the weights takes the statistics in.
        self._average_moving_statistics()
        self.optimizer.apply(sums.gradients)
        return {"loss": sums.loss, "accuracy": sums.hits / self.global_batch}

    def _accumulate(self, batch: Batch) -> _Sums:
        """The sums over the pieces of a batch, computed one after the other to hold the memory of one alone."""
        pieces = {
            name: tf.reshape(rows, [self.pieces, rows.shape[0] // self.pieces, *rows.shape[1:]])
            for name, rows in batch.items()
        }

        def add_piece(number: tf.Tensor, sums: _Sums) -> tuple[tf.Tensor, _Sums]:
            piece = self._differentiate({name: tf.gather(rows, number) for name, rows in pieces.items()})
            return number + 1, tf.nest.map_structure(tf.add, sums, piece)

        zero = tf.zeros([], self.model.logits_dtype)
        nothing = _Sums(zero, zero, tuple(tf.zeros_like(variable.value) for variable in self.optimizer.variables))
        _, sums = tf.while_loop(
            lambda number, _: number < self.pieces,
            add_piece,
            (tf.constant(0), nothing),
            parallel_iterations=1,
            maximum_iterations=self.pieces,
        )
        return sums

    def _differentiate(self, batch: Batch) -> _Sums:
        """Loss, right predictions and gradients (of the scaled loss) of some rows of a replica's batch."""
        variables = [variable.value for variable in self.optimizer.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss, hits = self._forward(batch)
            scaled_loss = self.optimizer.loss_scale.scale(loss)
        gradients = tape.gradient(scaled_loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return _Sums(loss, hits, tuple(map(_dense, gradients, variables)))

    def _forward(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        rows = BatchRows(step=self.optimizer.step, first_row=batch["row"][0], global_batch=self.global_batch)
        labels = batch["label"]
        if self.mixer:
            pixels, partner_labels, own_share = self.mixer(self.model.module_inputs(batch), labels, rows)
            logits = self.model.training_logits(self.model.backbone(pixels, training=True), rows)
            examples = self.loss(logits, labels, partner_labels, own_share)
            # The label that most of the image belongs to.
            labels = tf.where(own_share >= 0.5, labels, partner_labels)
        else:
            logits = self.model.training_logits(_features(self.model, batch, training=True), rows)
            examples = self.loss(logits, labels)
        regularization = self.model.backbone.regularization_loss() / (self.replicas * self.pieces)
        loss = tf.reduce_sum(examples) / self.global_batch + tf.cast(regularization, examples.dtype)
        hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
        return loss, tf.reduce_sum(tf.cast(hits, loss.dtype))

    def _average_moving_statistics(self) -> None:
        """Makes the batch-norm statistics, which each replica moved by its own batch, the same on all."""
        statistics = self.model.backbone.moving_statistics
        if self.replicas == 1 or not statistics:
            return
        replica = tf.distribute.get_replica_context()
        shares = [variable.value.read_value() / self.replicas for variable in statistics]
        means = sum_over_replicas(shares)

        def assign(strategy: tf.distribute.Strategy, values: list[tf.Tensor]) -> None:
            for variable, value in zip(statistics, values):
                strategy.extended.update(variable.value, _assign, args=(value,), group=False)

        replica.merge_call(assign, args=(means,))


def _dense(gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> tf.Tensor:
    """The gradient in the shape of its variable: that of a table of word vectors comes as the rows that were looked up.

    Where a word occurs twice its row comes twice, and what Adam squares must be the sum of both.
    """
    dense = tf.convert_to_tensor(gradient)
    dense.set_shape(variable.shape)
    return dense


def _assign(variable: tf.Variable, value: tf.Tensor) -> Any:
    return variable.assign(value)


def _features(model: Classifier, batch: Batch, *, training: bool) -> tf.Tensor:
    """The batch's features, float `[b, feature_size]`: computed before, or by the backbone now."""
    if "features" in batch:
        return batch["features"]
    return model.backbone(model.module_inputs(batch), training=training)


class EvaluationStep:
    """Forward pass of one replica's batch, example by example. Call it through `strategy.run`."""

    def __init__(self, model: Classifier) -> None:
        """Binds the step to its model."""
        self.model = model

    def __call__(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Judges a replica's batch, padding included: who adds up leaves out the rows whose index is -1.

        Args:
          batch: "image" uint8 `[b, S, S, 3]`, "text" string `[b]` or "features" float32 `[b, feature_size]`; "label"
            int32 `[b]`, "index" int32 `[b]` (-1: padding).

        Returns:
          "index" int32 `[b]`, "loss" float32 `[b]` (cross-entropy without smoothing or regularization),
          "prediction" int32 `[b]` (most probable class), "confidence" float32 `[b]` (its probability). The floats are
          float64 with that precision.
        """
        logits = self.model.logits(_features(self.model, batch, training=False))
        return {
            "index": batch["index"],
            "loss": cross_entropy(logits, batch["label"]),
            "prediction": tf.argmax(logits, axis=-1, output_type=tf.int32),
            "confidence": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
        }
