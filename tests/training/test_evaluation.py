"""Evaluation counts every example once, on one replica and on two, with any batch."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from equivalence import cluster_of_processes

from trainer.cluster import connect
from trainer.config import Config
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.training.evaluation import Evaluation, Evaluator
from trainer.training.step import cross_entropy


def evaluate(global_batch: int, count: int, **fields: Any) -> Evaluation:
    config = Config.parse({"data": "digits", "batch_size": 8, "seed": 3} | fields)
    prepared = prepare(config, connect(config), Console(quiet=True))
    model = build(prepared).model
    return Evaluator(prepared.cluster, model, prepared.source, global_batch)(prepared.train[:count])


@pytest.mark.parametrize("global_batch", [8, 100, 256])
def test_two_replicas_judge_like_one(global_batch: int) -> None:
    one = evaluate(global_batch, 101)
    two = evaluate(global_batch, 101, strategy="mirrored", virtual_devices=2)
    assert one.examples == two.examples == 101
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.predictions, two.predictions)
    np.testing.assert_allclose(one.losses, two.losses, atol=1e-5)
    assert one.accuracy == two.accuracy
    assert 0 < one.accuracy < 1


def test_it_tells_how_far_it_is_from_before_it_compiles() -> None:
    config = Config.parse({"data": "synthetic:2", "image_size": 8, "batch_size": 8})
    prepared = prepare(config, connect(config), Console(quiet=True))
    told: list[tuple[int, int]] = []
    Evaluator(prepared.cluster, build(prepared).model, prepared.source, 16)(
        prepared.train[:40], lambda done, total: told.append((done, total))
    )
    assert told == [(0, 40), (16, 40), (32, 40), (40, 40)]


EXAMPLES = 997
WORKERS = 2
LOCAL_REPLICAS = 3
REPLICA_BATCH = 8


@pytest.fixture(scope="module")
def by_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What each of two workers with three replicas each says of all examples."""
    folder = tmp_path_factory.mktemp("evaluation")
    program = Path(__file__).with_name("evaluate_as_worker.py")
    sizes = [LOCAL_REPLICAS, WORKERS * LOCAL_REPLICAS * REPLICA_BATCH, EXAMPLES]
    commands = [
        [sys.executable, str(program), str(folder / f"{index}.npz"), *map(str, sizes)] for index in range(WORKERS)
    ]
    with cluster_of_processes(commands) as processes:
        for process in processes:
            _, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors
    return [dict(np.load(folder / f"{index}.npz")) for index in range(WORKERS)]


@pytest.mark.strategies
def test_workers_judge_every_example_once_and_exactly_like_one_device(by_workers: list[dict[str, np.ndarray]]) -> None:
    one = evaluate(REPLICA_BATCH, EXAMPLES)
    assert one.examples == EXAMPLES
    for judged in by_workers:
        assert len(judged["indices"]) == len(np.unique(judged["indices"])) == EXAMPLES
        for name, expected in dataclasses.asdict(one).items():
            np.testing.assert_array_equal(judged[name], expected, err_msg=name)


@pytest.mark.strategies
def test_the_size_of_the_pieces_changes_no_prediction(by_workers: list[dict[str, np.ndarray]]) -> None:
    one = evaluate(128, EXAMPLES)
    np.testing.assert_array_equal(one.predictions, by_workers[0]["predictions"])
    np.testing.assert_allclose(one.losses, by_workers[0]["losses"], atol=1e-5)


def test_confidence_is_the_probability_of_the_prediction() -> None:
    judged = evaluate(32, 40)
    assert ((judged.confidences > 0.1) & (judged.confidences <= 1)).all()
    right = judged.predictions == judged.labels
    np.testing.assert_allclose(judged.losses[right], -np.log(judged.confidences[right]), rtol=1e-3, atol=1e-5)


def test_label_smoothing_is_cross_entropy_against_the_smoothed_distribution() -> None:
    logits = tf.constant([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    labels = tf.constant([0, 2])
    smoothed = 0.3 / 3 + 0.7 * tf.one_hot(labels, 3)
    expected = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.3), expected, rtol=1e-6)
