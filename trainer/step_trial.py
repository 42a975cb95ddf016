"""Tries whether the steps of a run fit into memory with some batch: the real steps, on made-up examples."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.preparation import Built, Prepared, build_step
from trainer.training.evaluation import compiled_batch
from trainer.training.loop import compiled_loop
from trainer.training.state import TrainingState
from trainer.training.step import Batch, EvaluationStep

_STEPS = 2
"""In one call: the second one finds in memory what the first one left."""

_OF_EVERY_BATCH = ("label", "index", "row")


class StepTrial:
    """Trains and evaluates on batches of zeros. Afterwards the weights are of no use any more."""

    def __init__(self, prepared: Prepared, built: Built) -> None:
        """Binds it to a model.

        Args:
          prepared: where the batches would come from; not one image is read.
          built: model and optimizer, in the scope of `prepared.cluster`.
        """
        self._prepared = prepared
        self._built = built
        self._state = TrainingState(built.model, built.optimizer)

    def __call__(self, batch_size: int) -> bool:
        """Whether steps with this global batch have memory enough.

        As in a run there is a copy of what training changes, for a checkpoint that is being written, while steps go on;
        and the moving averages take the weights' place while it evaluates.
        """
        config = self._prepared.config.with_batch_size(batch_size)
        prepared, built = dataclasses.replace(self._prepared, config=config), self._built
        strategy = prepared.cluster.strategy
        try:
            snapshot = self._state.snapshot()
            run_steps = compiled_loop(strategy, build_step(prepared, built))
            metrics, _ = run_steps(iter(_made_up_batches(prepared, built)), tf.constant(_STEPS))
            metrics.numpy()  # What goes wrong on a device shows when its results are asked for.
            del snapshot
            evaluate = compiled_batch(strategy, EvaluationStep(built.model))
            with built.optimizer.averages.in_place():
                evaluate(iter(_made_up_batches(prepared, built, training=False)))["loss"].numpy()
        except tf.errors.ResourceExhaustedError:
            return False
        return True


def _made_up_batches(
    prepared: Prepared, built: Built, *, training: bool = True
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """Batches without end, of the shapes and types that the run's own have."""

    def of_one_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        with tf.device("CPU:0"):
            zeros = {
                name: tf.zeros(spec.shape, spec.dtype)
                for name, spec in _batch_spec(prepared, built, context)
                if training or name != "row"
            }
        return tf.data.Dataset.from_tensors(zeros).repeat()

    return prepared.cluster.distribute(of_one_pipeline)


def _batch_spec(
    prepared: Prepared, built: Built, context: tf.distribute.InputContext
) -> list[tuple[str, tf.TensorSpec]]:
    """What one replica gets of a training step, by name."""
    config, model = prepared.config, built.model
    share = Share.of(context, config.batch_size)
    batches = training_batches(prepared.source, prepared.train, config, model.model_input, share, 0, 1)
    spec: Batch = batches.element_spec
    if config.uses_hub_module and config.keeps_features:
        features = tf.TensorSpec([share.replica_batch, model.backbone.feature_size], tf.float32)
        spec = {name: spec[name] for name in _OF_EVERY_BATCH} | {"features": features}
    return list(spec.items())
