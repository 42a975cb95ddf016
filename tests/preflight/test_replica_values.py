"""What replicas have in common after a step: small steps with a known answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.replica_values import Facts, values_after
from trainer.preflight.tracing import trace_replica

STATE = "state"
BATCH = {"x": tf.TensorSpec([4])}

EQUAL = Facts()
SUMMED = Facts(summed=True)
VARIES = Facts(varies=True)
VARIES_IN_PART = Facts(varies=True, summed=True)
SUMMED_TWICE = Facts(summed=True, summed_twice=True)


def state_after(body: Callable[[tf.Variable, tf.Tensor], Any]) -> Facts | None:
    """What is known of one variable after a step; None where the step does not write to it."""
    strategy = pretend_slice(2)
    with strategy.scope():
        state = tf.Variable(tf.zeros([4]))

    def step(batch: dict[str, tf.Tensor]) -> None:
        body(state, batch["x"])

    program = trace_replica(strategy, step, BATCH, {STATE: state})
    (known,) = values_after(program).values() or [None]
    return known


def total(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def reads_only(state: tf.Variable, x: tf.Tensor) -> None:
    total(x * state)


def counts(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign_add(tf.ones([4]))


def takes_its_own(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign_add(x)


def takes_the_sum(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign_sub(0.1 * total(x))


def sums_a_sum(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign_sub(total(0.1 * total(x)))


def sums_what_a_sum_went_into(state: tf.Variable, x: tf.Tensor) -> None:
    """As with batch norm over all replicas: the mean is a sum, and so is the gradient of what it is taken from."""
    state.assign_sub(total(x - total(x) / 8.0))


def adds_its_own_to_the_sum(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign_sub(total(x) + 0.01 * x)


def averages_what_it_moved(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign(0.9 * state + 0.1 * x)
    state.assign(total(state / 2.0))


def moves_what_it_averaged(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign(total(state / 2.0))
    state.assign(0.9 * state + 0.1 * x)


def takes_the_first_ones(state: tf.Variable, x: tf.Tensor) -> None:
    """What TPUStrategy does for a variable whose aggregation is ONLY_FIRST_REPLICA."""
    strategy = tf.distribute.get_strategy()
    state.assign(strategy.extended._broadcast_to(x, state))


def draws(state: tf.Variable, x: tf.Tensor) -> None:
    state.assign(tf.random.uniform([4]))


def knows_its_number(state: tf.Variable, x: tf.Tensor) -> None:
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    state.assign(tf.fill([4], tf.cast(number, tf.float32)))


def sums_in_both_branches(state: tf.Variable, x: tf.Tensor) -> None:
    equal = tf.reduce_sum(total(x)) > 0.0
    state.assign(tf.cond(equal, lambda: total(x), lambda: total(-x)))


def forgets_a_branch(state: tf.Variable, x: tf.Tensor) -> None:
    equal = tf.reduce_sum(total(x)) > 0.0
    state.assign(tf.cond(equal, lambda: total(x), lambda: x))


def decides_for_itself(state: tf.Variable, x: tf.Tensor) -> None:
    tf.cond(x[0] > 0.0, lambda: state.assign(tf.ones([4])), lambda: state.assign(tf.zeros([4])))


def never_takes_the_branch(state: tf.Variable, x: tf.Tensor) -> None:
    @tf.function(autograph=False)
    def module(training: tf.Tensor) -> tf.Tensor:
        return tf.cond(training, lambda: state.assign(x), lambda: state.read_value())

    module(tf.constant(False))


def sums_after_a_loop(state: tf.Variable, x: tf.Tensor) -> None:
    _, pieces = tf.while_loop(lambda i, _: i < 3, lambda i, pieces: (i + 1, pieces + x), (0, tf.zeros([4])))
    state.assign(total(pieces))


def carries_round_a_loop(state: tf.Variable, x: tf.Tensor) -> None:
    """The first two rounds give what is equal on all replicas, the third does not."""
    one, two = tf.zeros([4]), tf.zeros([4])
    result = tf.while_loop(lambda i, *_: i < 3, lambda i, one, two: (i + 1, two, x), (0, one, two))
    state.assign(result[1])


def writes_in_a_loop(state: tf.Variable, x: tf.Tensor) -> None:
    def body(i: tf.Tensor) -> tf.Tensor:
        state.assign(x)
        return i + 1

    tf.while_loop(lambda i: i < 3, body, [0])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (reads_only, None),
        (counts, EQUAL),
        (takes_its_own, VARIES),
        (takes_the_sum, SUMMED),
        (sums_a_sum, SUMMED_TWICE),
        (sums_what_a_sum_went_into, SUMMED),
        (adds_its_own_to_the_sum, VARIES_IN_PART),
        (averages_what_it_moved, SUMMED),
        (moves_what_it_averaged, VARIES_IN_PART),
        (takes_the_first_ones, EQUAL),
        (draws, VARIES),
        (knows_its_number, VARIES),
        (sums_in_both_branches, SUMMED),
        (forgets_a_branch, VARIES_IN_PART),
        (decides_for_itself, VARIES),
        (never_takes_the_branch, None),
        (sums_after_a_loop, SUMMED),
        (carries_round_a_loop, VARIES),
        (writes_in_a_loop, VARIES),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_known_of_a_variable(body: Callable[[tf.Variable, tf.Tensor], Any], expected: Facts | None) -> None:
    assert state_after(body) == expected
