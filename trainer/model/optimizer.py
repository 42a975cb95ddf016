"""How weights move: learning-rate schedule, update rule, loss scale, and the order reduce, clip, decay, apply.

Keras' optimizers hold the update rules. What matters under replicas is done here: gradients are summed over
replicas FIRST, then clipped (an optimizer's own `clipnorm` clips each replica's part, which is another result), then
applied once: Keras' `update_step` is called for each variable in cross-replica context, not its `apply`, which would
sum them again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.config import Config

MOMENTUM = 0.9

INITIAL_LOSS_SCALE = 2.0**15
LOSS_SCALE_GROWTH_STEPS = 2000
"""Start and growth of the float16 loss scale: the values of Keras' LossScaleOptimizer (keras 3.15, 2026)."""


class Schedule:
    """Linear warm-up to the peak, then constant, cosine or linear down to zero at the last step."""

    def __init__(self, shape: str, peak: float, warmup_steps: float, total_steps: int) -> None:
        """Makes the schedule.

        Args:
          shape: "constant", "cosine" or "linear".
          peak: the rate after the warm-up.
          warmup_steps: steps of warm-up, whole or not; step 0 already moves.
          total_steps: steps of the run.
        """
        self.shape, self.peak, self.warmup_steps, self.total_steps = shape, peak, warmup_steps, total_steps

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
        else:
            falling = tf.ones_like(done)
        return self.peak * rising * falling


def build_schedule(config: Config, examples: int, total_steps: int) -> Schedule:
    """The schedule of a run over `examples` training images an epoch and `total_steps` steps."""
    warmup_steps = config.warmup * examples / config.batch_size
    return Schedule(config.schedule, config.peak_learning_rate, warmup_steps, total_steps)


class LossScale(tf.Module):
    """Keeps float16 gradients from vanishing: scales the loss up, the gradients down, and adapts the factor.

    The factor halves when a gradient overflows (that step changes no weight) and doubles after 2000 good ones.
    Create it inside `strategy.scope()`. Without `dynamic` it is the constant 1 and skips nothing.
    """

    def __init__(self, dynamic: bool) -> None:
        """Makes the variables; `dynamic` for mixed_float16."""
        super().__init__(name="loss_scale")
        self.dynamic = dynamic
        if dynamic:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
            self.factor = tf.Variable(INITIAL_LOSS_SCALE, trainable=False, aggregation=aggregation)
            self.good_steps = tf.Variable(0, trainable=False, aggregation=aggregation)

    def scale(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to differentiate."""
        return loss * self.factor if self.dynamic else loss

    def unscale(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of the unscaled loss."""
        if not self.dynamic:
            return list(gradients)
        return [gradient / tf.cast(self.factor, gradient.dtype) for gradient in gradients]

    def adapt(self, finite: tf.Tensor) -> None:
        """Moves the factor after a step whose gradients were all finite, or were not. In cross-replica context."""
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        grow = good_steps >= LOSS_SCALE_GROWTH_STEPS
        factor = self.factor * tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.factor.assign(tf.maximum(factor, 1.0))
        self.good_steps.assign(tf.where(grow, 0, good_steps))


class Optimizer:
    """Applies the gradients of a step. Create it inside `strategy.scope()`."""

    def __init__(self, config: Config, schedule: Schedule, variables: Sequence[keras.Variable]) -> None:
        """Builds the update rule and its slots.

        Args:
          config: `optimizer`, `weight_decay`, `clip_norm` and `precision` are used.
          schedule: learning rate by step.
          variables: the trainable variables, in the order in which gradients will come.
        """
        self.schedule = schedule
        self.variables = list(variables)
        self.clip_norm = config.clip_norm
        self.weight_decay = config.weight_decay
        self.decouples_decay = config.optimizer == "adamw"
        self.loss_scale = LossScale(dynamic=config.precision == "mixed_float16")
        self.rule = _update_rule(config.optimizer)
        self.rule.build(self.variables)

    @property
    def step(self) -> tf.Variable:
        """How many steps were done: the position of the run, an int64 variable on the device."""
        return self.rule.iterations.value

    def apply(self, scaled_gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Sums gradients over replicas, clips, decays, updates. In replica context; each replica must call it.

        Args:
          scaled_gradients: of `loss_scale.scale(loss)` by `variables`, the loss being this replica's share of the
            global batch's mean.

        Returns:
          Float32 scalar: the global norm of the summed gradient before clipping, equal on all replicas.
        """
        replica = tf.distribute.get_replica_context()
        gradients = self.loss_scale.unscale(replica.all_reduce(tf.distribute.ReduceOp.SUM, list(scaled_gradients)))
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, use_norm=norm)
        replica.merge_call(self._update_all, args=(gradients, tf.math.is_finite(norm)))
        return norm

    def _update_all(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor], finite: tf.Tensor) -> None:
        learning_rate = self.schedule(self.step)

        def update() -> None:
            for variable, gradient in zip(self.variables, gradients):
                decay = self.weight_decay if is_decayed(variable) else 0.0
                strategy.extended.update(
                    variable.value,
                    self._update_one,
                    args=(gradient, learning_rate),
                    kwargs={"decay": decay},
                    group=False,
                )

        if self.loss_scale.dynamic:
            all_finite = strategy.experimental_local_results(finite)[0]
            # The condition stands in cross-replica context: a merge_call inside a branch is not allowed.
            tf.cond(all_finite, update, lambda: None)
            self.loss_scale.adapt(all_finite)
        else:
            update()
        self.rule.iterations.assign_add(1)

    def _update_one(self, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor, decay: float) -> None:
        """Updates one replica's copy of a variable, with the gradient that all replicas share."""
        learning_rate = tf.cast(learning_rate, variable.dtype)
        if decay and self.decouples_decay:
            variable.assign_sub(variable * tf.cast(decay, variable.dtype) * learning_rate)
        elif decay:
            gradient += tf.cast(decay, variable.dtype) * variable
        self.rule.update_step(gradient, variable, learning_rate)


def is_decayed(variable: keras.Variable) -> bool:
    """Whether weight decay applies: to kernels, not to biases and norm scales, which have one axis."""
    return len(variable.shape) > 1


def _update_rule(name: str) -> keras.optimizers.Optimizer:
    """Keras' rule, of which only `update_step` and the slots are used: the rate and the decay come from us."""
    match name:
        case "sgd":
            return keras.optimizers.SGD()
        case "momentum":
            return keras.optimizers.SGD(momentum=MOMENTUM, nesterov=True)
        case "rmsprop":
            return keras.optimizers.RMSprop()
        case "adam" | "adamw":
            return keras.optimizers.Adam()
    raise ValueError(f"no update rule {name}")
