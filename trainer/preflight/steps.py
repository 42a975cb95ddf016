"""The project's own steps as a TPU would get them.

What is traced here is what `trainer.training.loop`, `trainer.training.evaluation` and `trainer.features.extractors`
run: the same step objects, built by `trainer.preparation` for the same Config, on batches of the shapes that the input
pipeline gives.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import tensorflow as tf

from trainer.cluster import Cluster, check_batch, check_tpu_precision
from trainer.config import Config
from trainer.errors import UserError
from trainer.features.extractors import ACCELERATOR_BATCH, ExtractionStep
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.tracing import trace_replica
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN
from trainer.preparation import Built, Prepared, build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.training.evaluation import evaluation_input
from trainer.training.state import TrainingState
from trainer.training.step import EvaluationStep

Spec = Mapping[str, tf.TypeSpec]


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
        config = self.prepared.config
        return self.prepared.cluster.replicas * config.accumulation_steps * (2 if config.mixes_images else 1)

    def trace(self, batch_size: int | None = None) -> StepPrograms:
        """Traces the steps.

        Args:
          batch_size: global; None: that of the run. With another one the learning rate keeps the run's schedule, of
            which neither shapes nor memory depend.

        Raises:
          UserError: the replicas do not divide it, or the module is not as the configuration needs it.
        """
        prepared = self._with_batch(batch_size) if batch_size else self.prepared
        cluster, model = prepared.cluster, self.built.model
        variables, trained = self._named_variables(), {variable.path for variable in self.built.optimizer.variables}
        trained_on, judged = self._batches(prepared)
        train = trace_replica(cluster.strategy, build_step(prepared, self.built), trained_on, variables, trained)
        evaluate = trace_replica(cluster.strategy, EvaluationStep(model), judged, variables)
        return StepPrograms(train, evaluate, self._traced_extraction(variables))

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
        copied = TrainingState(self.built.model, self.built.optimizer).variables
        waiting = sum(spec.shape.num_elements() * spec.dtype.size for _, spec in program.inputs)
        return bytes_of(others) + bytes_of(copied) + waiting

    def _with_batch(self, batch_size: int) -> Prepared:
        config = self.prepared.config.with_batch_size(batch_size)
        check_batch(config, self.prepared.cluster)
        return dataclasses.replace(self.prepared, config=config)

    def _named_variables(self) -> dict[str, tf.Variable]:
        known = [*self.built.model.variables, *self.built.optimizer.rule.variables]
        return {variable.path: variable.value for variable in known}

    def _batches(self, prepared: Prepared) -> tuple[Spec, Spec]:
        """What a training step and an evaluation step get."""
        config, cluster, model = prepared.config, prepared.cluster, self.built.model
        if trains_on_features(config):
            rows, size = config.batch_size // cluster.replicas, model.backbone.feature_size
            judged = feature_batch(rows, size)
            return {**judged, "row": tf.TensorSpec([rows], tf.int32)}, judged
        return (
            training_input(prepared, model, first_step=0, last_step=1).element_spec,
            evaluation_input(cluster, model, prepared.source, prepared.train, config.batch_size).element_spec,
        )

    def _traced_extraction(self, variables: Mapping[str, tf.Variable]) -> ReplicaProgram | None:
        """Of images alone: the features of texts are computed on the host."""
        if not trains_on_features(self.prepared.config) or self.prepared.source.kind == "text":
            return None
        element = self.built.model.model_input.element
        step = ExtractionStep(self.built.model.backbone)
        images = tf.TensorSpec([ACCELERATOR_BATCH, *element.shape], element.dtype)
        strategy = self.prepared.cluster.strategy
        return trace_replica(strategy, lambda batch: {"features": step(batch["image"])}, {"image": images}, variables)


def trace_steps(config: Config, replicas: int, console: Console | None = None) -> StepPrograms:
    """Builds the model of a run on a pretended slice, and traces its steps: see `RunSteps`.

    Two replicas tell as much of the programs as two hundred, but for the batch of each.
    """
    return RunSteps(config, replicas, console).trace()


def trains_on_features(config: Config) -> bool:
    """Whether the steps of a run get features that were computed before; see `trainer.preparation.features_once`."""
    return config.uses_hub_module and config.keeps_features


def feature_batch(rows: int, feature_size: int) -> dict[str, tf.TypeSpec]:
    """What a replica gets to judge where features were computed before; to train, it gets "row" as well."""
    numbers = tf.TensorSpec([rows], tf.int32)
    return {"features": tf.TensorSpec([rows, feature_size], tf.float32), "label": numbers, "index": numbers}


def all_variables(built: Built) -> list[tf.Variable]:
    """All that every replica of a run has a copy of."""
    model, optimizer = built.model, built.optimizer
    kept = (*optimizer.averages.by_path().values(), *optimizer.loss_scale.by_name().values())
    return [*(variable.value for variable in (*model.variables, *optimizer.rule.variables)), *kept]


def bytes_of(variables: Iterable[tf.Variable]) -> int:
    """Bytes of their numbers."""
    return sum(math.prod(variable.shape) * variable.dtype.size for variable in variables)
