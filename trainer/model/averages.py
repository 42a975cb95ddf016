"""An exponential moving average of the weights, which is evaluated and exported in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf


class WeightAverages:
    """Keeps the average of some variables beside them. Create it inside `strategy.scope()`.

    At update t, counted from 1, the decay is min(decay, t / (t + 9)): early averages, which would otherwise be mostly
    initial weights, forget faster. That is the ramp of `tf.train.ExponentialMovingAverage` (TensorFlow 2.21), whose
    `num_updates` counts from 0.
    """

    def __init__(self, decay: float, variables: Sequence[keras.Variable]) -> None:
        """Starts from the variables' present values.

        Args:
          decay: weight of the past, in [0, 1); with 0 there are no averages and nothing is done.
          variables: what to average.
        """
        self.decay = decay
        self._paths = [variable.path for variable in variables] if decay else []
        self._weights = [variable.value for variable in variables] if decay else []
        self.averages = [
            tf.Variable(tf.convert_to_tensor(weight), trainable=False, name="average") for weight in self._weights
        ]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.averages)

    def by_path(self) -> dict[str, tf.Variable]:
        """The averages by the paths of what they are averages of."""
        return dict(zip(self._paths, self.averages, strict=True))

    def update(self, strategy: tf.distribute.Strategy, step: tf.Tensor) -> None:
        """Takes in the variables' values after a step. In cross-replica context.

        Args:
          strategy: whose variables they are.
          step: integer scalar, updates done before this one.
        """
        updates = tf.cast(step, tf.float32) + 1.0
        decay = tf.minimum(self.decay, updates / (updates + 9.0))
        for average, weight in zip(self.averages, self._weights):
            strategy.extended.update(average, _move, args=(weight, decay), group=False)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the variables have their averages' values. Outside of `tf.function`."""
        kept = [tf.convert_to_tensor(weight) for weight in self._weights]
        self.put_in_place()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, kept):
                weight.assign(value)

    def put_in_place(self) -> None:
        """Gives the variables their averages' values, for good."""
        for weight, average in zip(self._weights, self.averages):
            weight.assign(tf.convert_to_tensor(average))


def _move(average: tf.Variable, weight: tf.Tensor, decay: tf.Tensor) -> None:
    """Moves one replica's copy."""
    difference = average - tf.convert_to_tensor(weight)
    average.assign_sub(difference * tf.cast(1.0 - decay, average.dtype))
