"""What one replica does with one batch: the contract that the loop, preflight and the tests share.

A step has static shapes and no host operation. The loss is this replica's share of the mean over the GLOBAL batch,
so that the sum over replicas, of losses and of gradients, is the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.config import Config
from trainer.data.images import unit_range
from trainer.model.classifier import BatchRows, Classifier
from trainer.model.optimizer import Optimizer

Batch = Mapping[str, tf.Tensor]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy of each example, in nats.

    Args:
      logits: float `[batch, classes]`.
      labels: int32 `[batch]`, in [0, classes).
      label_smoothing: share of the probability that is spread evenly over all classes.

    Returns:
      Float `[batch]`.
    """
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not label_smoothing:
        return loss
    spread = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - label_smoothing) * loss + label_smoothing * spread


class TrainStep:
    """Forward, backward and update of one replica's batch. Call it through `strategy.run`."""

    def __init__(self, model: Classifier, optimizer: Optimizer, config: Config, replicas: int) -> None:
        """Binds a step to its model.

        Args:
          model: built in `strategy.scope()`.
          optimizer: built for `model.trainable_variables`, in the scope.
          config: `batch_size` (global) and `label_smoothing` are used.
          replicas: how many share the global batch.
        """
        self.model = model
        self.optimizer = optimizer
        self.label_smoothing = config.label_smoothing
        self.global_batch = config.batch_size
        self.replicas = replicas

    def __call__(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Trains on a replica's batch.

        Args:
          batch: "image" uint8 `[b, S, S, 3]` and "label" int32 `[b]`, b = global batch / replicas.

        Returns:
          Float32 scalars whose sums over replicas are the global batch's "loss" (with regularization) and
          "accuracy".
        """
        variables = [variable.value for variable in self.optimizer.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss, logits = self._forward(batch)
            scaled_loss = self.optimizer.loss_scale.scale(loss)
        gradients = tape.gradient(scaled_loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.optimizer.apply(gradients)
        self._average_moving_statistics()
        hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), batch["label"])
        return {"loss": loss, "accuracy": tf.reduce_sum(tf.cast(hits, tf.float32)) / self.global_batch}

    def _forward(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        replica_batch = batch["label"].shape[0]
        replica_id = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = BatchRows(
            step=self.optimizer.step,
            first_row=tf.cast(replica_id, tf.int32) * replica_batch,
            global_batch=self.global_batch,
        )
        logits = self.model.training_logits(unit_range(batch["image"]), rows)
        examples = cross_entropy(logits, batch["label"], self.label_smoothing)
        regularization = self.model.backbone.regularization_loss() / self.replicas
        return tf.reduce_sum(examples) / self.global_batch + regularization, logits

    def _average_moving_statistics(self) -> None:
        """Makes the batch-norm statistics, which each replica moved by its own batch, the same on all."""
        statistics = self.model.backbone.moving_statistics
        if self.replicas == 1 or not statistics:
            return
        replica = tf.distribute.get_replica_context()
        shares = [variable.value.read_value() / self.replicas for variable in statistics]
        means = replica.all_reduce(tf.distribute.ReduceOp.SUM, shares)

        def assign(strategy: tf.distribute.Strategy, values: list[tf.Tensor]) -> None:
            for variable, value in zip(statistics, values):
                strategy.extended.update(variable.value, _assign, args=(value,), group=False)

        replica.merge_call(assign, args=(means,))


def _assign(variable: tf.Variable, value: tf.Tensor) -> Any:
    return variable.assign(value)


class EvaluationStep:
    """Forward pass of one replica's batch, example by example. Call it through `strategy.run`."""

    def __init__(self, model: Classifier) -> None:
        """Binds the step to its model."""
        self.model = model

    def __call__(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Judges a replica's batch, padding included: who adds up leaves out the rows whose index is -1.

        Args:
          batch: "image" uint8 `[b, S, S, 3]`, "label" int32 `[b]`, "index" int32 `[b]` (-1: padding).

        Returns:
          "index" int32 `[b]`, "loss" float32 `[b]` (cross-entropy without smoothing or regularization),
          "prediction" int32 `[b]` (most probable class), "confidence" float32 `[b]` (its probability).
        """
        logits = self.model(unit_range(batch["image"]))
        return {
            "index": batch["index"],
            "loss": cross_entropy(logits, batch["label"]),
            "prediction": tf.argmax(logits, axis=-1, output_type=tf.int32),
            "confidence": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
        }
