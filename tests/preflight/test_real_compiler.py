"""The real TPU compiler, where it is installed (extra [preflight], or TRAINER_PREFLIGHT_PYTHON)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tpu_corpus import CASES, program_of

from trainer.accelerators import SLICES, Slice, slice_named
from trainer.config import Config
from trainer.preflight.cache import Cache
from trainer.preflight.check import MOST_REPLICAS, Checker, Options
from trainer.preflight.compiler import EXCHANGE_MARK, Accepted, Compiler, compiler_python
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.tracing import trace_replica
from trainer.preflight.verdict import TRAIN, CompiledStep, DoesNot, Fits, Number
from trainer.records.console import Console

PYTHON = compiler_python(os.environ)
SECONDS = 300.0

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="the TPU compiler is not installed: pip install '.[preflight]'"),
    pytest.mark.timeout(600),
]


def compiler_for(slice_: Slice) -> Compiler:
    return Compiler(slice_, [PYTHON], SECONDS)


def checker_of(folder: Path, seconds: float = SECONDS, **fields: Any) -> Checker:
    config = Config.parse({"strategy": "tpu", "optimizer": "sgd"} | fields)
    rate = Number.measured(1.0, "images/s")
    return Checker(
        config,
        Options("b", seconds),
        compiler_for,
        Cache(str(folder)),
        Console(quiet=True),
        measure=lambda prepared, built: rate,
    )


def test_a_run_compiles_and_fits(tmp_path: Path) -> None:
    report = checker_of(tmp_path, batch_size=8).check(slice_named("v5litepod-8"))
    assert isinstance(report.verdict, Fits)
    train = next(step for step in report.verdict.steps if step.name == TRAIN)
    assert isinstance(train, CompiledStep)
    weights = 4 * 66_890  # README has the number of parameters.
    assert weights < train.memory.shared <= train.memory.outputs
    assert weights < train.memory.arguments < train.memory.total
    assert train.flops > 2 * 66_890


@pytest.mark.long
def test_an_exchange_between_replicas_compiles() -> None:
    """TPUStrategy has the other replicas take the first one's value by it, which tf2xla has no form for."""
    slice_ = slice_named("v5litepod-4")
    strategy = pretend_slice(slice_.replicas)
    with strategy.scope():
        counter = tf.Variable(tf.zeros([4]), aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)

    def step(batch: Mapping[str, tf.Tensor]) -> None:
        counter.assign_add(batch["x"])

    program = trace_replica(strategy, step, {"x": tf.TensorSpec([4])}, {"counter": counter})
    assert EXCHANGE_MARK in program.hlo
    (answer,) = compiler_for(slice_)({"step": program.hlo_proto}).values()
    assert isinstance(answer, Accepted), answer


@pytest.mark.long
def test_what_the_corpus_accepts_compiles(tmp_path: Path) -> None:
    slice_ = slice_named("v5litepod-1")
    programs = {}
    for number, case in enumerate(CASES):
        if case.rule in ("", "emulated"):
            program = program_of(case, tmp_path / str(number), replicas=1)
            programs[f"{number} {case.name}"] = program.hlo_proto
    answers = compiler_for(slice_)(programs)
    assert {name for name, answer in answers.items() if not isinstance(answer, Accepted)} == set()


@pytest.mark.long
def test_every_slice_has_the_replicas_that_are_said() -> None:
    """Otherwise the compiler's process fails."""
    for slice_ in SLICES.values():
        if slice_.replicas <= MOST_REPLICAS:

            def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
                replica = tf.distribute.get_replica_context()
                return {"y": replica.all_reduce(tf.distribute.ReduceOp.SUM, batch["x"])}

            program = trace_replica(pretend_slice(slice_.replicas), step, {"x": tf.TensorSpec([4])})
            (answer,) = compiler_for(slice_)({"sum": program.hlo_proto}).values()
            assert isinstance(answer, Accepted), (slice_.name, answer)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_largest_batch_is_right_when_tried(tmp_path: Path) -> None:
    slice_ = slice_named("v5litepod-1")
    report = checker_of(tmp_path, seconds=3000.0, batch_size=32768, image_size=64).check(slice_)
    assert isinstance(report.verdict, DoesNot)
    message = report.verdict.problems[0].message
    assert (
        "Ran out of memory" in message
        and f"The largest that compiles and fits is --batch_size={report.largest_batch}" in message
    )
    assert report.largest_batch
    largest = checker_of(tmp_path, batch_size=report.largest_batch, image_size=64).check(slice_)
    assert isinstance(largest.verdict, Fits)
    refused = checker_of(tmp_path, batch_size=report.largest_batch + 1, image_size=64).check(slice_)
    assert isinstance(refused.verdict, DoesNot)
