"""What a replica does in a run: the step functions that the loop itself runs, with the batches that they get.

They are those of `trainer.training.loop`, `trainer.training.evaluation` and `trainer.features.extractors`, built by
`trainer.preparation` for the same Config, on batches of the shapes that the input pipeline gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.config import Config
from trainer.features.extractors import ACCELERATOR_BATCH, ExtractionStep
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN
from trainer.preparation import Built, Prepared, build_step, training_input
from trainer.training.evaluation import evaluation_input
from trainer.training.state import TrainingState
from trainer.training.step import EvaluationStep

Spec = Mapping[str, tf.TypeSpec]


class StepFunction(NamedTuple):
    """What a replica does with its batch.

    Attributes:
      call: takes a dict of tensors and returns another; call it through `strategy.run`.
      batch: `element_spec` of the distributed dataset, or plain specs of what every replica gets.
      trained: paths of the variables that a gradient is to move.
    """

    call: Callable[[Any], Any]
    batch: Spec
    trained: Collection[str] = ()


def step_functions(prepared: Prepared, built: Built) -> dict[str, StepFunction]:
    """The functions of a run by their names in a verdict: TRAIN, EVALUATE and, where it has a part in it, EXTRACT.

    Args:
      prepared: the run; the batch is that of its configuration.
      built: model and optimizer.
    """
    trained_on, judged = _batches(prepared, built)
    trained = {variable.path for variable in built.optimizer.variables}
    functions = {
        TRAIN: StepFunction(build_step(prepared, built), trained_on, trained),
        EVALUATE: StepFunction(EvaluationStep(built.model), judged),
    }
    # The features of texts are computed on the host.
    if trains_on_features(prepared.config) and prepared.source.kind != "text":
        functions[EXTRACT] = _extraction(built)
    return functions


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


def checkpoint_bytes(built: Built) -> int:
    """Bytes of the training state, of which each replica keeps a copy that a checkpoint is written from."""
    return bytes_of(TrainingState(built.model, built.optimizer).variables)


def bytes_of(variables: Iterable[tf.Variable]) -> int:
    """Bytes of their numbers."""
    return sum(math.prod(variable.shape) * variable.dtype.size for variable in variables)


def _batches(prepared: Prepared, built: Built) -> tuple[Spec, Spec]:
    """What a training step and an evaluation step get."""
    config, cluster, model = prepared.config, prepared.cluster, built.model
    if trains_on_features(config):
        rows, size = config.batch_size // cluster.replicas, model.backbone.feature_size
        judged = feature_batch(rows, size)
        return {**judged, "row": tf.TensorSpec([rows], tf.int32)}, judged
    return (
        training_input(prepared, model, first_step=0, last_step=1).element_spec,
        evaluation_input(cluster, model, prepared.source, prepared.train, config.batch_size).element_spec,
    )


def _extraction(built: Built) -> StepFunction:
    element = built.model.model_input.element
    step = ExtractionStep(built.model.backbone)
    images = tf.TensorSpec([ACCELERATOR_BATCH, *element.shape], element.dtype)
    return StepFunction(lambda batch: {"features": step(batch["image"])}, {"image": images})
