"""Evaluation counts every example once, on one replica and on two, with any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer import run
from trainer.config import Config
from trainer.records.console import Console
from trainer.training.evaluation import Evaluation, Evaluator
from trainer.training.step import cross_entropy


def evaluate(global_batch: int, count: int, **fields: Any) -> Evaluation:
    config = Config.parse({"data": "digits", "batch_size": 8, "seed": 3} | fields)
    prepared = run.prepare(config, Console(quiet=True))
    model = run.build(prepared).model
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
