"""Schedules, and the order reduce, clip, decay, update on two replicas."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.model.groups import Group
from trainer.model.optimizer import INITIAL_LOSS_SCALE, Optimizer
from trainer.model.schedule import Schedule, build_schedule

pytestmark = pytest.mark.strategies

START = np.array([[1.0, -2.0]], np.float32)


def two_replicas() -> Cluster:
    return connect(Config(strategy="mirrored", virtual_devices=2))


def apply(cluster: Cluster, gradients: list[Any], **fields: Any) -> tuple[np.ndarray, np.ndarray, Optimizer]:
    """Kernel and bias after one step in which replica r has `gradients[r]` for the kernel, and zero for the bias."""
    config = Config.parse({"optimizer": "sgd", "learning_rate": 1.0} | fields)
    with cluster.strategy.scope():
        kernel = keras.Variable(START, name="kernel")
        bias = keras.Variable(START[0], name="bias")
        optimizer = Optimizer(config, Schedule("constant", config.learning_rate, 0, 10), [Group(1.0, [kernel, bias])])
    by_replica = tf.constant(gradients, tf.float32)

    @tf.function
    def step() -> None:
        def one_replica() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([optimizer.loss_scale.scale(by_replica[replica]), tf.zeros([2])])

        cluster.strategy.run(one_replica)

    step()
    return kernel.numpy(), bias.numpy(), optimizer


def test_gradients_are_summed_over_replicas_once() -> None:
    kernel, bias, optimizer = apply(two_replicas(), [[[1.0, 0.0]], [[0.0, 3.0]]])
    np.testing.assert_allclose(kernel, START - [[1.0, 3.0]])
    np.testing.assert_array_equal(bias, START[0])
    assert optimizer.step.numpy() == 1


def test_clipping_comes_after_the_sum() -> None:
    # Each part has norm 3 and 4, the sum has 5: clipped to 5 nothing changes, clipped to 2.5 it is halved.
    gradients = [[[3.0, 0.0]], [[0.0, 4.0]]]
    kernel, _, _ = apply(two_replicas(), gradients, clip_norm=5.0)
    np.testing.assert_allclose(kernel, START - [[3.0, 4.0]], rtol=1e-6)
    kernel, _, _ = apply(two_replicas(), gradients, clip_norm=2.5)
    np.testing.assert_allclose(kernel, START - [[1.5, 2.0]], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_spares_the_bias(optimizer: str) -> None:
    zeros = [[[0.0, 0.0]]] * 2
    kernel, bias, _ = apply(two_replicas(), zeros, optimizer=optimizer, weight_decay=0.1, learning_rate=0.5)
    np.testing.assert_allclose(kernel, START * (1 - 0.5 * 0.1), rtol=1e-6)
    np.testing.assert_array_equal(bias, START[0])


def test_coupled_decay_goes_through_adam_and_decoupled_does_not() -> None:
    zeros = [[[0.0, 0.0]]] * 2
    coupled, _, _ = apply(two_replicas(), zeros, optimizer="adam", weight_decay=0.1, learning_rate=0.01)
    # Adam's first step has the size of the learning rate, however small the gradient.
    np.testing.assert_allclose(coupled, START - 0.01 * np.sign(START), rtol=1e-4)


class TestFloat16LossScale:
    """mixed_float16: overflow skips the step and halves the factor; good steps change nothing but the weights."""

    def test_a_good_step_is_that_of_the_unscaled_loss(self) -> None:
        kernel, _, optimizer = apply(two_replicas(), [[[1.0, 0.0]], [[0.0, 3.0]]], precision="mixed_float16")
        np.testing.assert_allclose(kernel, START - [[1.0, 3.0]])
        assert optimizer.loss_scale.factor.numpy() == INITIAL_LOSS_SCALE
        assert optimizer.loss_scale.good_steps.numpy() == 1

    def test_an_overflow_on_one_replica_skips_the_step_on_all(self) -> None:
        overflow = [[[1.0, 0.0]], [[0.0, np.inf]]]
        kernel, _, optimizer = apply(two_replicas(), overflow, precision="mixed_float16", weight_decay=0.1)
        np.testing.assert_array_equal(kernel, START)
        assert optimizer.loss_scale.factor.numpy() == INITIAL_LOSS_SCALE / 2
        assert optimizer.loss_scale.good_steps.numpy() == 0
        assert optimizer.step.numpy() == 1

    def test_the_factor_doubles_after_enough_good_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trainer.model.optimizer.LOSS_SCALE_GROWTH_STEPS", 1)
        _, _, optimizer = apply(two_replicas(), [[[1.0, 0.0]]] * 2, precision="mixed_float16")
        assert optimizer.loss_scale.factor.numpy() == INITIAL_LOSS_SCALE * 2


def rates(shape: str, warmup_steps: float = 0, total_steps: int = 10) -> list[float]:
    schedule = Schedule(shape, 2.0, warmup_steps, total_steps)
    return schedule(tf.range(total_steps + 1)).numpy().tolist()


def test_schedules_fall_to_zero_at_the_last_step() -> None:
    assert rates("constant") == [2.0] * 11
    np.testing.assert_allclose(rates("linear"), np.linspace(2, 0, 11), atol=1e-6)
    np.testing.assert_allclose(rates("cosine"), 1 + np.cos(np.pi * np.arange(11) / 10), atol=1e-6)


def test_warmup_rises_in_equal_steps_and_then_the_schedule_begins() -> None:
    warmed = rates("linear", warmup_steps=4, total_steps=12)
    np.testing.assert_allclose(warmed[:5], [0.5, 1.0, 1.5, 2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(warmed[5:], 2 * (1 - np.arange(1, 9) / 8), atol=1e-6)


def test_warmup_is_given_in_epochs() -> None:
    schedule = build_schedule(Config(warmup=0.5, batch_size=10, learning_rate=1.0), examples=80, total_steps=80)
    assert schedule.warmup_steps == 4


def test_a_step_schedule_falls_at_its_epochs() -> None:
    config = Config.parse(
        {"schedule": "step", "decay_epochs": "1,2.5", "decay_factor": 0.5, "batch_size": 10, "learning_rate": 1.0}
    )
    schedule = build_schedule(config, examples=40, total_steps=16)
    np.testing.assert_allclose(schedule(tf.range(12)), [1.0] * 4 + [0.5] * 6 + [0.25] * 2, rtol=1e-6)
    np.testing.assert_allclose(schedule(tf.constant(4)), 0.5, rtol=1e-6)


def test_the_rate_grows_with_the_batch_if_asked_to() -> None:
    assert Config(learning_rate=0.1, learning_rate_batch=256, batch_size=1024).peak_learning_rate == pytest.approx(0.4)
    assert Config(learning_rate=0.1, batch_size=1024).peak_learning_rate == pytest.approx(0.1)
