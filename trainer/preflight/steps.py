"""The project's own steps as a TPU would get them.

What is traced here is what `trainer.training.loop` and `trainer.training.evaluation` run: the same step objects, built
by `trainer.preparation` for the same Config, on batches of the shapes that the input pipeline gives.
"""

from __future__ import annotations

from typing import NamedTuple

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
    batches = training_input(prepared, built.model, first_step=0, last_step=1)
    train = trace_replica(strategy, step, batches.element_spec, variables, trained)
    judged = evaluation_input(cluster, built.model, prepared.source, prepared.train, config.batch_size)
    evaluate = trace_replica(strategy, EvaluationStep(built.model), judged.element_spec, variables)
    return StepPrograms(train, evaluate)
