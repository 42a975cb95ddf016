"""Our own steps lower for a TPU, whatever the configuration; steps that a TPU would not take are found out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import modules
import pytest
import tensorflow as tf

from trainer.cluster import connect
from trainer.config import Config
from trainer.data.order import Share
from trainer.errors import UserError
from trainer.features.extractors import ACCELERATOR_BATCH
from trainer.model.optimizer import Optimizer
from trainer.preflight import step_functions, steps
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.readiness import Finding, check_program
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.steps import RunSteps, StepPrograms, trace_steps
from trainer.preflight.tracing import trace_replica
from trainer.preparation import build, features_once, prepare
from trainer.records.console import Console
from trainer.training.step import TrainStep

pytestmark = pytest.mark.strategies

CORES = 2
BATCH = 8


def programs_of(cores: int = CORES, **fields: Any) -> StepPrograms:
    return trace_steps(Config.parse({"strategy": "tpu", "data": "synthetic:3", "batch_size": BATCH} | fields), cores)


def own_network(**fields: Any) -> StepPrograms:
    return programs_of(image_size=8, **fields)


def trained_sizes(program: ReplicaProgram) -> list[int]:
    """How many numbers each of the trained variables holds."""
    variables = [variable for variable in program.variables if variable.trained]
    return [int(tf.reduce_prod(tf.raw_ops.VariableShape(input=variable.handle))) for variable in variables]


def summed_size(program: ReplicaProgram) -> int:
    """How many numbers are summed over replicas in a step."""
    return sum(math.prod(entry.shape) for entry in program.all_reduces)


def check(programs: StepPrograms, *, trained: int, statistics: int = 0, example: str = "image") -> None:
    """A training step that sums each gradient once, and an evaluation step that sums and changes nothing.

    Args:
      programs: of the steps.
      trained: how many variables are trained.
      statistics: how many numbers there are that the step averages over replicas besides.
      example: what the steps get of one: the image, or the features that were computed of it before.
    """
    train, evaluate, _ = programs
    assert check_program(train) == []
    assert check_program(evaluate) == []
    assert {spec.name for _, spec in train.inputs} >= {example, "label", "row"}
    for _, spec in (*train.inputs, *train.outputs, *evaluate.inputs, *evaluate.outputs):
        assert spec.shape.is_fully_defined(), spec
    assert all(spec.shape[0] == BATCH // CORES for _, spec in (*train.inputs, *evaluate.inputs, *evaluate.outputs))
    assert {spec.name for _, spec in train.outputs} == {"loss", "accuracy"}
    assert len(trained_sizes(train)) == trained
    assert summed_size(train) == sum(trained_sizes(train)) + statistics
    assert not evaluate.all_reduces
    assert not any(node.op.startswith("Assign") for node in evaluate.graph.node)


HEAD = 2
CONVNET = 3 * 4
"""Three layers: kernel and bias, and those of the norm."""


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 1.0, "dropout": 0.5, "label_smoothing": 0.1},
        {"optimizer": "momentum", "precision": "mixed_bfloat16", "weight_decay": 0.1, "augment": ("flip",)},
        {"optimizer": "adam", "warmup": 1.0, "ema_decay": 0.99},
        {"optimizer": "sgd", "accumulation_steps": 2, "mixup": 0.2, "cutmix": 1.0, "class_weights": ("balanced",)},
    ],
    ids=["adamw", "bfloat16", "averaged", "accumulated and mixed"],
)
def test_the_steps_of_the_built_in_network(fields: dict[str, Any]) -> None:
    check(own_network(**fields), trained=CONVNET + HEAD)


def test_frozen_variables_are_not_summed() -> None:
    programs = own_network(optimizer="rmsprop", freeze="conv_0", lr_scale=("backbone:0.1",))
    check(programs, trained=CONVNET + HEAD - 2)


TINY = 1
"""The trainable variables of a tiny module."""

EVERY_EPOCH: dict[str, Any] = {"feature_cache": "off"}
"""A frozen module looks at the images in every step."""

UPDATED: dict[str, Any] = {"train_backbone": True, "backbone_statistics": "update", "ema_decay": 0.9}


@pytest.mark.parametrize(
    ("make", "fields", "trained", "statistics"),
    [
        (modules.with_training, EVERY_EPOCH, HEAD, 0),
        (modules.with_training, UPDATED, TINY + HEAD, modules.FEATURE_SIZE),
        (modules.with_tensor_training, EVERY_EPOCH, HEAD, 0),
        (modules.with_momentum, UPDATED, TINY + HEAD, modules.FEATURE_SIZE),
        (modules.inference_only, {"train_backbone": True, "accumulation_steps": 2}, TINY + HEAD, 0),
        (modules.signatures_only, {"train_backbone": True, "precision": "mixed_bfloat16"}, TINY + HEAD, 0),
        (modules.tf1_format, EVERY_EPOCH, HEAD, 0),
    ],
    ids=["frozen", "updated", "tensor training", "momentum", "inference only", "signatures only", "tf1"],
)
def test_the_steps_of_hub_modules(
    make: Callable[[Path], Path], fields: dict[str, Any], trained: int, statistics: int, tmp_path: Path
) -> None:
    programs = programs_of(backbone=str(make(tmp_path / "module")), **fields)
    # Nothing but the programs may be needed any more: not the module, whose functions they call.
    gc.collect()
    check(programs, trained=trained, statistics=statistics)
    assert programs.extract is None


def test_the_steps_of_features_that_were_computed_before(tmp_path: Path) -> None:
    programs = programs_of(backbone=str(modules.with_training(tmp_path / "module")), ema_decay=0.9)
    check(programs, trained=HEAD, example="features")
    assert programs.extract
    assert check_program(programs.extract) == []
    images, features = programs.extract.inputs[0].spec, programs.extract.outputs[0].spec
    assert (images.shape[0], features.shape) == (ACCELERATOR_BATCH, (ACCELERATOR_BATCH, modules.FEATURE_SIZE))
    assert not programs.extract.all_reduces


def test_batches_of_features_are_those_of_the_pipeline(tmp_path: Path) -> None:
    config = Config.parse(
        {"data": "synthetic:3", "batch_size": BATCH, "backbone": str(modules.with_training(tmp_path / "module"))}
    )
    cluster = connect(config)
    prepared = prepare(config, cluster, Console(quiet=True))
    features = features_once(prepared, build(prepared).model, Console(quiet=True))
    assert features
    share = Share(BATCH, 1, 0, 1)
    training = features.training_batches(prepared.source, prepared.train, 0, share, 0, 1).element_spec
    judging = features.evaluation_batches(prepared.source, features.evaluated, share).element_spec
    rows = {"row": tf.TensorSpec([BATCH], tf.int32)}
    assert judging == step_functions.feature_batch(BATCH, modules.FEATURE_SIZE)
    assert training == {**judging, **rows}


def test_what_a_run_keeps_on_a_device_beside_a_step() -> None:
    run = RunSteps(Config.parse({"strategy": "tpu", "batch_size": BATCH, "optimizer": "adam", "ema_decay": 0.9}), CORES)
    train, evaluate, _ = run.trace()
    weights = sum(trained_sizes(train))
    batch = BATCH // CORES * (8 * 8 * 3 + 4 * 3)
    rate, counter = 4, 8
    state = 4 * 4 * weights + rate + counter  # Weights, their averages, Adam's two moments and what it keeps besides.
    assert run.beside(train) == rate + state + batch
    assert run.beside(evaluate) == (state - 4 * weights) + state + (batch - BATCH // CORES * 4)


def test_a_module_that_cannot_be_trained_on_a_tpu_is_found(tmp_path: Path) -> None:
    module = modules.with_tensor_training(tmp_path / "module")
    programs = programs_of(backbone=str(module), train_backbone=True)
    (finding,) = check_program(programs.train)
    assert finding.rule == "lowering"
    assert "keep the module frozen" in finding.message
    assert check_program(programs.evaluate) == []


def test_each_core_gets_its_part_of_the_batch() -> None:
    programs = own_network(cores=8, optimizer="sgd")
    assert {spec.shape[0] for _, spec in (*programs.train.inputs, *programs.evaluate.inputs)} == {1}
    with pytest.raises(UserError, match="batch_size=8"):
        own_network(cores=3)


@pytest.mark.parametrize("precision", ["float64", "mixed_float16"])
def test_a_precision_that_tpus_lack_is_refused(precision: str) -> None:
    with pytest.raises(UserError, match=f"--precision={precision}: TPUs compute in"):
        own_network(precision=precision)


def test_float64_is_found_in_every_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "check_tpu_precision", lambda config: None)
    findings = check_program(own_network(optimizer="sgd", precision="float64").train)
    assert [finding.rule for finding in findings] == ["emulated"]
    assert "float64" in findings[0].message


def gradient_findings(programs: StepPrograms) -> list[Finding]:
    findings = check_program(programs.train)
    assert {finding.rule for finding in findings} == {"gradients"}
    return findings


def test_gradients_that_nobody_sums_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", lambda self, operation, value: value)
    (finding,) = gradient_findings(own_network(optimizer="sgd"))
    assert "drift apart" in finding.message
    assert f"and {CONVNET + HEAD - 3} more" in finding.message
    assert finding.name == "backbone/conv_0/kernel"


def test_gradients_that_are_summed_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Optimizer.apply

    def sum_before(optimizer: Optimizer, gradients: list[tf.Tensor]) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        return apply(optimizer, replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients)))

    monkeypatch.setattr(Optimizer, "apply", sum_before)
    programs = own_network(optimizer="sgd")
    assert summed_size(programs.train) == 2 * sum(trained_sizes(programs.train))
    (finding,) = gradient_findings(programs)
    assert "a second time" in finding.message
    assert f"and {CONVNET + HEAD - 3} more" in finding.message


def test_statistics_that_nobody_averages_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(TrainStep, "_average_moving_statistics", lambda step: None)
    programs = programs_of(backbone=str(modules.with_training(tmp_path / "module")), **UPDATED)
    (finding,) = gradient_findings(programs)
    assert finding.name == "backbone/tiny/norm/moving_mean"


def test_an_optimizer_of_keras_after_a_sum_of_our_own_is_found() -> None:
    strategy = pretend_slice(CORES)
    with strategy.scope():
        weight = keras.Variable(tf.ones([4]), name="weight")
        optimizer = keras.optimizers.SGD()
        optimizer.build([weight])

    def step(batch: Mapping[str, tf.Tensor]) -> None:
        replica = tf.distribute.get_replica_context()
        optimizer.apply([replica.all_reduce(tf.distribute.ReduceOp.SUM, batch["x"])])

    program = trace_replica(strategy, step, {"x": tf.TensorSpec([4])}, {"weight": weight.value}, ["weight"])
    (finding,) = check_program(program)
    assert "weight is summed over replicas a second time" in finding.message


@pytest.mark.parametrize("touches", [True, False])
def test_a_variable_that_no_gradient_reaches_is_found(touches: bool) -> None:
    strategy = pretend_slice(CORES)
    with strategy.scope():
        weight = tf.Variable(tf.ones([4]))

    def step(batch: Mapping[str, tf.Tensor]) -> None:
        if touches:
            weight.assign(0.99 * weight)

    program = trace_replica(strategy, step, {"x": tf.TensorSpec([4])}, {"weight": weight}, ["weight"])
    (finding,) = check_program(program)
    assert (finding.rule, finding.name) == ("gradients", "weight")


Step = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def findings_of(step: Step, spec: tf.TensorSpec) -> list[Finding]:
    return check_program(trace_replica(pretend_slice(CORES), step, {"x": spec}))


def test_what_stays_on_the_host_is_found() -> None:
    elsewhere = tf.Variable(2.0)
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), tf.constant([0.0, 1.0]))
    table = tf.lookup.StaticHashTable(pairs, 0.0)
    (variable,) = findings_of(lambda batch: {"y": elsewhere * batch["x"]}, tf.TensorSpec([4]))
    assert variable.rule == "resource"
    assert "strategy.scope()" in variable.message
    findings = findings_of(lambda batch: {"y": table.lookup(batch["x"])}, tf.TensorSpec([4], tf.int64))
    assert [finding.rule for finding in findings] == ["resource", "host"]
    assert "table" in findings[0].message


def test_a_pretended_slice_is_a_tpu_strategy_and_leaves_no_trace() -> None:
    before = (tf.config.list_logical_devices(), tf.config.get_soft_device_placement())
    strategy = pretend_slice(8)
    assert isinstance(strategy, tf.distribute.TPUStrategy)
    assert strategy.num_replicas_in_sync == 8
    with strategy.scope():
        variable = tf.Variable(1.0)
    variable.assign_add(1.0)
    assert [float(copy) for copy in strategy.experimental_local_results(variable)] == [2.0] * 8
    assert not tf.distribute.has_strategy()
    assert before == (tf.config.list_logical_devices(), tf.config.get_soft_device_placement())
    with pytest.raises(ValueError, match="0 cores"):
        pretend_slice(0)
