"""What is checked is what trains: the loop's own operations, and the loop's own numbers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import modules
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import connect
from trainer.config import Config
from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.features.extractors import StrategyExtractor
from trainer.preflight.replica_program import REPLICA_SUM, Constant, ReplicaProgram
from trainer.preflight.step_functions import all_variables
from trainer.preflight.steps import RunSteps
from trainer.preparation import build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.evaluation import compiled_batch, evaluation_input
from trainer.training.loop import Boundary, Progress, Stops, TrainLoop, compiled_loop
from trainer.training.step import EvaluationStep, TrainStep

pytestmark = pytest.mark.strategies

BATCH = 16
STEPS = 5

MARK = "_tpu_replicate"
FRAME = ("TPUReplicatedInput", "TPUReplicatedOutput", "TPUReplicateMetadata")


def config_of(**fields: Any) -> Config:
    return Config.parse({"strategy": "tpu", "batch_size": BATCH, "optimizer": "momentum"} | fields)


def structure(nodes: Iterable[Any], functions: Iterable[Any]) -> list[Any]:
    """Operations, their types and constants, what feeds them and the functions that they call, but for all names.

    Args:
      nodes: in the order in which they were made.
      functions: that they may call.
    """
    library = {function.signature.name: function for function in functions}

    def of(body: Iterable[Any]) -> list[Any]:
        ordered = list(body)
        places = {node.name: place for place, node in enumerate(ordered)}
        return [
            (
                node.op,
                node.attr["T"].type,
                node.attr["value"].tensor.SerializeToString(deterministic=True),
                [places.get(name.split(":")[0], -1) for name in node.input if not name.startswith("^")],
                [of(library[name].node_def) for name in called(node)],
            )
            for node in ordered
        ]

    def called(node: Any) -> list[str]:
        named = (node.attr[key].func.name for key in sorted(node.attr))
        return [name for name in (node.op, *named) if name in library]

    return of(nodes)


def checked(program: ReplicaProgram) -> list[Any]:
    return structure(program.graph.node, program.graph.library.function)


def replicated(concrete: Any) -> list[Any]:
    """What a function has its replicas run, wherever that stands in it."""
    graph = concrete.graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    (found,) = (body for body in bodies if any(MARK in node.attr for node in body))
    inside = [node for node in found if MARK in node.attr and node.op not in FRAME]
    return structure(inside, graph.library.function)


def in_loop(run: RunSteps) -> list[Any]:
    """What the training loop has a replica do, for the strategy of a pretended slice."""
    dataset = training_input(run.prepared, run.built.model, first_step=0, last_step=STEPS)
    loop = compiled_loop(run.prepared.cluster.strategy, build_step(run.prepared, run.built))
    return replicated(loop.get_concrete_function(iter(dataset), tf.TensorSpec([], tf.int32)))


@pytest.mark.parametrize(
    "fields",
    [{"ema_decay": 0.9, "clip_norm": 1.0, "dropout": 0.5}, {"accumulation_steps": 2, "mixup": 0.2}],
    ids=["plain", "accumulated and mixed"],
)
def test_the_loop_runs_the_operations_that_are_checked(fields: dict[str, Any]) -> None:
    run = RunSteps(config_of(**fields), 2)
    assert checked(run.trace().train) == in_loop(run)


def test_another_step_in_the_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where the loop would do something that preflight does not see."""
    run = RunSteps(config_of(), 2)
    program = run.trace().train
    differentiate = TrainStep._differentiate
    monkeypatch.setattr(
        TrainStep, "_differentiate", lambda step, batch: tf.nest.map_structure(tf.negative, differentiate(step, batch))
    )
    assert checked(program) != in_loop(run)


def test_the_evaluation_runs_the_operations_that_are_checked() -> None:
    run = RunSteps(config_of(), 2)
    model, cluster, prepared = run.built.model, run.prepared.cluster, run.prepared
    dataset = evaluation_input(cluster, model, prepared.source, prepared.splits.validation, BATCH)
    function = compiled_batch(cluster.strategy, EvaluationStep(model)).get_concrete_function(iter(dataset))
    assert checked(run.trace().evaluate) == replicated(function)


def test_the_extractor_runs_the_operations_that_are_checked(tmp_path: Path) -> None:
    config = config_of(data="synthetic:3", backbone=str(modules.with_training(tmp_path / "module")))
    run = RunSteps(config, 2)
    extractor = StrategyExtractor(run.built.model.backbone, run.prepared.cluster)
    extract = run.trace().extract
    assert extract
    found = replicated(extractor._run.get_concrete_function(extract.inputs[0].spec))
    # The extractor gathers what the replicas give, in a second call of theirs.
    assert computing(checked(extract)) == computing(found)


def computing(entries: list[Any]) -> list[Any]:
    """Operations that do more than hand on."""
    return [(name, functions) for name, *_, functions in entries if name not in ("Identity", "NoOp", "Const")]


@functools.cache
def losses_of_the_loop(config: Config) -> NDArray[np.float64]:
    """Of the first steps, on one CPU replica."""
    config = Config.parse(config.model_dump() | {"strategy": "default"})
    cluster = connect(config)
    prepared = prepare(config, cluster, Console(quiet=True))
    built = build(prepared)
    dataset = training_input(prepared, built.model, first_step=0, last_step=STEPS)
    losses: list[NDArray[np.floating]] = []

    def note(boundary: Boundary) -> None:
        losses.append(boundary.values["loss"])

    loop = TrainLoop(cluster, build_step(prepared, built), dataset, Stopwatch())
    loop.run(Progress(step=0, epoch=0), Stops(epoch_ends=[STEPS]), 1, [note])
    return np.concatenate(losses)


def batches_of(run: RunSteps) -> list[list[dict[str, tf.Tensor]]]:
    """What each replica gets in the first steps."""
    replicas = run.prepared.cluster.replicas
    share = Share(BATCH, replicas, 0, replicas)
    rows = training_batches(
        run.prepared.source, run.prepared.train, run.prepared.config, run.built.model.model_input, share, 0, STEPS
    )
    flat = list(rows)
    return [flat[start : start + replicas] for start in range(0, len(flat), replicas)]


@pytest.mark.parametrize("replicas", [1, 2, 8])
def test_the_programs_of_all_replicas_together_give_the_losses_of_the_loop(replicas: int) -> None:
    """All replicas' programs in one, with ordinary additions in place of the TPU's sums over replicas.

    What cannot be shown here is how a TPU rounds and draws random numbers, and that its own sums are such sums.
    """
    config = config_of(ema_decay=0.9, clip_norm=1.0, dropout=0.5, weight_decay=0.1)
    run = RunSteps(config, replicas)
    program = run.trace().train
    step = together(program, run)
    loss = [spec.name for _, spec in program.outputs].index("loss")
    found = []
    for batches in batches_of(run):
        arguments = [batch[spec.name] for batch in batches for _, spec in program.inputs]
        outputs = step(*arguments)
        found.append(sum(float(of_replica[loss]) for of_replica in outputs))
    np.testing.assert_allclose(found, losses_of_the_loop(config), rtol=1e-6)
    copies = [run.prepared.cluster.strategy.experimental_local_results(each) for each in all_variables(run.built)]
    for first, *others in copies:
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())


def together(program: ReplicaProgram, run: RunSteps) -> Any:
    """A function that does what all replicas do, each with its own copies of the variables."""
    replicas = program.replicas
    assert not any(node.op == REPLICA_SUM for body in program.graph.library.function for node in body.node_def)
    strategy = run.prepared.cluster.strategy
    copies = {id(copy[0].handle): copy for copy in map(strategy.experimental_local_results, all_variables(run.built))}
    graph = tf.compat.v1.GraphDef(versions=program.graph.versions, library=program.graph.library)
    for replica in range(replicas):
        graph.node.extend(_of_replica(node, replica, replicas) for node in program.graph.node)

    @tf.function(autograph=False)
    def step(*arguments: tf.Tensor) -> list[list[tf.Tensor]]:
        capture = tf.compat.v1.get_default_graph().capture
        fed: dict[str, tf.Tensor] = {}
        rest = iter(arguments)
        for replica in range(replicas):
            fed |= {_named(entry.tensor, replica): next(rest) for entry in program.inputs}
            fed |= {
                _named(variable.tensor, replica): capture(copies[id(variable.handle)][replica].handle)
                for variable in program.variables
            }
            fed |= {_named(entry.tensor, replica): _value(entry, program, replica) for entry in program.constants}
        wanted = [_named(entry.tensor, replica) for replica in range(replicas) for entry in program.outputs]
        flat = iter(tf.graph_util.import_graph_def(graph, fed, wanted, name=""))
        return [list(itertools.islice(flat, len(program.outputs))) for _ in range(replicas)]

    return step


def _value(constant: Constant, program: ReplicaProgram, replica: int) -> tf.Tensor:
    """What a replica gets of a constant, of which a program has the first one's."""
    if not constant.differs:
        return tf.compat.v1.get_default_graph().capture(constant.value)
    copies = program.traced.graph.get_tensor_by_name(constant.tensor).op.inputs
    return tf.constant(tf.get_static_value(copies[replica]))


def _of_replica(node: Any, replica: int, replicas: int) -> Any:
    """A replica's copy of an operation; a sum over replicas adds up what all of them put in."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = _named(node.name, replica)
    del copy.input[:]
    if node.op == REPLICA_SUM:
        kind: Mapping[str, Any] = {"T": node.attr["T"]}
        copy.op = "AddN"
        copy.attr.clear()
        copy.attr["T"].CopyFrom(kind["T"])
        copy.attr["N"].i = replicas
        copy.input.extend(_named(node.input[0], other) for other in range(replicas))
    else:
        copy.input.extend(_named(name, replica) for name in node.input)
    return copy


def _named(name: str, replica: int) -> str:
    return f"^r{replica}/{name[1:]}" if name.startswith("^") else f"r{replica}/{name}"
