"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from trainer.config import Config


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then constant, in steps, or by a cosine or a line down to zero at the last step.

    Attributes:
      shape: "constant", "step", "cosine" or "linear".
      peak: the rate after the warm-up.
      warmup_steps: steps of warm-up, whole or not; step 0 already moves.
      total_steps: steps of the run.
      decay_steps: for "step": the steps, whole or not, from which on the rate is `decay_factor` of what it was.
      decay_factor: for "step".
    """

    shape: str
    peak: float
    warmup_steps: float
    total_steps: int
    decay_steps: tuple[float, ...] = ()
    decay_factor: float = 1.0

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a step, float32, for a scalar or for a vector of steps (counted from 0)."""
        step = tf.cast(step, tf.float32)
        rising = tf.minimum(1.0, (step + 1.0) / max(1.0, self.warmup_steps))
        left = max(1.0, self.total_steps - self.warmup_steps)
        done = tf.clip_by_value((step - self.warmup_steps) / left, 0.0, 1.0)
        if self.shape == "cosine":
            falling = 0.5 * (1.0 + tf.cos(math.pi * done))
        elif self.shape == "linear":
            falling = 1.0 - done
        elif self.shape == "step":
            falls = tf.reduce_sum(tf.cast(step[..., tf.newaxis] >= list(self.decay_steps), tf.float32), axis=-1)
            falling = tf.pow(self.decay_factor, falls)
        else:
            falling = tf.ones_like(done)
        return self.peak * rising * falling


def build_schedule(config: Config, examples: int, total_steps: int) -> Schedule:
    """The schedule of a run over `examples` training images an epoch and `total_steps` steps."""
    steps_per_epoch = examples / config.batch_size
    return Schedule(
        config.schedule,
        config.peak_learning_rate,
        config.warmup * steps_per_epoch,
        total_steps,
        tuple(epoch * steps_per_epoch for epoch in config.decay_epochs),
        config.decay_factor,
    )
