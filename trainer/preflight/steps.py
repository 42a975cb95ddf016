"""The project's own steps as a TPU would get them.

What is traced here is what `trainer.training.loop` and `trainer.training.evaluation` run: the same step objects, built
by `trainer.preparation` for the same Config, on batches of the shapes that the input pipeline gives.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from trainer.cluster import Cluster, check_batch, check_tpu_precision
from trainer.config import Config
from trainer.errors import UserError
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.tracing import trace_replica
from trainer.preparation import build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.training.evaluation import evaluation_input
from trainer.training.step import EvaluationStep


class StepPrograms(NamedTuple):
    """One replica's program of a training step and of an evaluation step."""

    train: ReplicaProgram
    evaluate: ReplicaProgram


def trace_steps(config: Config, replicas: int, console: Console | None = None) -> StepPrograms:
    """Builds the model of a run on a pretended slice, and traces its steps.

    Args:
      config: the run; its images and its module are opened, and nothing is written.
      replicas: how many TPU cores share the global batch; two tell as much of the program as two hundred, but for
        the batch of each.
      console: is told how a long look through the images goes; by default nobody is.

    Raises:
      UserError: the images, the module or the batch size are not as the configuration needs them, or TPUs do not
        compute in its precision.
    """
    if config.finds_batch_size:
        raise UserError("--batch_size=auto is found by trying on the devices themselves: give preflight a number.")
    check_tpu_precision(config)
    cluster = Cluster(pretend_slice(replicas), "TPU", f"preflight: {replicas} TPU cores, none of them here")
    check_batch(config, cluster)
    prepared = prepare(config, cluster, console or Console(quiet=True))
    built = build(prepared)
    known = [*built.model.variables, *built.optimizer.rule.variables]
    variables = {variable.path: variable.value for variable in known}
    trained = {variable.path for variable in built.optimizer.variables}
    strategy, step = cluster.strategy, build_step(prepared, built)
    if prepared.source.kind == "text":
        rows = config.batch_size // replicas
        trained_on, judged = (
            _feature_batch(rows, built.model.backbone.feature_size, place) for place in ("row", "index")
        )
    else:
        trained_on = training_input(prepared, built.model, first_step=0, last_step=1).element_spec
        judged = evaluation_input(cluster, built.model, prepared.source, prepared.train, config.batch_size).element_spec
    train = trace_replica(strategy, step, trained_on, variables, trained)
    evaluate = trace_replica(strategy, EvaluationStep(built.model), judged, variables)
    return StepPrograms(train, evaluate)


def _feature_batch(rows: int, feature_size: int, place: str) -> dict[str, tf.TypeSpec]:
    """What a replica gets where features were computed before: the only way of texts to a TPU."""
    numbers = tf.TensorSpec([rows], tf.int32)
    return {"features": tf.TensorSpec([rows, feature_size], tf.float32), "label": numbers, place: numbers}
