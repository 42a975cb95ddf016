"""The project's own steps as a TPU would get them: `step_functions`, traced on a pretended slice."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf

from trainer.cluster import Cluster, check_batch, check_tpu_precision
from trainer.config import Config
from trainer.errors import UserError
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.step_functions import all_variables, bytes_of, checkpoint_bytes, step_functions
from trainer.preflight.tracing import trace_replica
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN
from trainer.preparation import Built, Prepared, build, prepare
from trainer.records.console import Console


class StepPrograms(NamedTuple):
    """One replica's programs.

    Attributes:
      train: of a training step.
      evaluate: of an evaluation step.
      extract: of the features of some images; None where the run does not compute features once on the TPU.
    """

    train: ReplicaProgram
    evaluate: ReplicaProgram
    extract: ReplicaProgram | None = None

    def by_name(self) -> dict[str, ReplicaProgram]:
        """Those that there are, by their names in a verdict."""
        named = {TRAIN: self.train, EVALUATE: self.evaluate, EXTRACT: self.extract}
        return {name: program for name, program in named.items() if program is not None}


class RunSteps:
    """A run on a pretended slice, whose steps are traced with one batch or another.

    Attributes:
      prepared: images and splits of the run.
    """

    def __init__(self, config: Config, replicas: int, console: Console | None = None) -> None:
        """Opens the images.

        Args:
          config: the run; nothing is written.
          replicas: how many TPU cores share the global batch.
          console: is told how a long look through the images goes; by default nobody is.

        Raises:
          UserError: the images or the batch size are not as the configuration needs them, or TPUs do not compute in its
            precision.
        """
        if config.finds_batch_size:
            raise UserError("--batch_size=auto is found by trying on the devices themselves: give preflight a number.")
        check_tpu_precision(config)
        cluster = Cluster(pretend_slice(replicas), "TPU", f"preflight: {replicas} TPU cores, none of them here")
        check_batch(config, cluster)
        self.prepared: Prepared = prepare(config, cluster, console or Console(quiet=True))

    @cached_property
    def built(self) -> Built:
        """Model and optimizer.

        Raises:
          UserError: the module is not as the configuration needs it.
        """
        return build(self.prepared)

    @property
    def smallest_batch(self) -> int:
        """Of which all batches must be multiples: see `trainer.cluster.check_batch`."""
        return self.prepared.cluster.replicas * self.prepared.config.smallest_replica_batch

    def trace(self, batch_size: int | None = None) -> StepPrograms:
        """Traces the steps.

        Args:
          batch_size: global; None: that of the run. With another one the learning rate keeps the run's schedule, of
            which neither shapes nor memory depend.

        Raises:
          UserError: the replicas do not divide it, or the module is not as the configuration needs it.
        """
        prepared = self._with_batch(batch_size) if batch_size else self.prepared
        strategy, variables = prepared.cluster.strategy, self._named_variables()
        programs = {
            name: trace_replica(strategy, function.call, function.batch, variables, function.trained)
            for name, function in step_functions(prepared, self.built).items()
        }
        return StepPrograms(programs[TRAIN], programs[EVALUATE], programs.get(EXTRACT))

    def beside(self, program: ReplicaProgram) -> int:
        """Bytes of a device's memory that a run keeps in use while it runs a program, which does not touch them.

        They are the other variables, the copy of the training state that a checkpoint is written from, and the batch
        that waits for the next step. A TPU may round each of them up.
        """
        touched = {id(variable.handle) for variable in program.variables}
        strategy = self.prepared.cluster.strategy
        others = [
            variable
            for variable in all_variables(self.built)
            if id(strategy.experimental_local_results(variable)[0].handle) not in touched
        ]
        waiting = sum(spec.shape.num_elements() * spec.dtype.size for _, spec in program.inputs)
        return bytes_of(others) + self._copied + waiting

    @cached_property
    def _copied(self) -> int:
        return checkpoint_bytes(self.built)

    def _with_batch(self, batch_size: int) -> Prepared:
        config = self.prepared.config.with_batch_size(batch_size)
        check_batch(config, self.prepared.cluster)
        return dataclasses.replace(self.prepared, config=config)

    def _named_variables(self) -> dict[str, tf.Variable]:
        known = [*self.built.model.variables, *self.built.optimizer.rule.variables]
        return {variable.path: variable.value for variable in known}


def trace_steps(config: Config, replicas: int, console: Console | None = None) -> StepPrograms:
    """Builds the model of a run on a pretended slice, and traces its steps: see `RunSteps`.

    Two replicas tell as much of the programs as two hundred, but for the batch of each.
    """
    return RunSteps(config, replicas, console).trace()
