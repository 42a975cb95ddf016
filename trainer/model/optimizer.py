"""How weights move: update rule, loss scale, and the order reduce, clip, decay, apply.

Keras' optimizers hold the update rules. What matters under replicas is done here: gradients are summed over
replicas FIRST, then clipped (an optimizer's own `clipnorm` clips each replica's part, which is another result), then
applied once: Keras' `update_step` is called for each variable in cross-replica context, not its `apply`, which would
sum them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.config import Config
from trainer.model.averages import WeightAverages
from trainer.model.groups import Group
from trainer.model.reduction import sum_over_replicas
from trainer.model.schedule import Schedule

MOMENTUM = 0.9

INITIAL_LOSS_SCALE = 2.0**15
LOSS_SCALE_GROWTH_STEPS = 2000
"""Start and growth of the float16 loss scale: the values of Keras' LossScaleOptimizer (keras 3.15, 2026)."""


class LossScale:
    """Keeps float16 gradients from vanishing: scales the loss up, the gradients down, and adapts the factor.

    The factor halves when a gradient overflows (that step changes no weight) and doubles after 2000 good ones.
    Create it inside `strategy.scope()`. Without `dynamic` it is the constant 1 and skips nothing.
    """

    def __init__(self, dynamic: bool) -> None:
        """Makes the variables; `dynamic` for mixed_float16."""
        self.dynamic = dynamic
        if dynamic:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
            self.factor = tf.Variable(INITIAL_LOSS_SCALE, trainable=False, aggregation=aggregation)
            self.good_steps = tf.Variable(0, trainable=False, aggregation=aggregation)

    def by_name(self) -> dict[str, tf.Variable]:
        """Its variables, which a checkpoint must hold."""
        return {"factor": self.factor, "good_steps": self.good_steps} if self.dynamic else {}

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

    def __init__(
        self, config: Config, schedule: Schedule, groups: Sequence[Group], averages: WeightAverages | None = None
    ) -> None:
        """Builds the update rule and its slots.

        Args:
          config: `optimizer`, `weight_decay`, `clip_norm` and `precision` are used.
          schedule: learning rate by step.
          groups: the variables that are trained, and how; gradients will come in their order.
          averages: of the weights, to be kept up to date.
        """
        self.schedule = schedule
        self.groups = list(groups)
        self.averages = averages or WeightAverages(0.0, [])
        self.variables = [variable for group in groups for variable in group.variables]
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
          Scalar of the gradients' type: the global norm of the summed gradient before clipping, equal on all replicas.
        """
        replica = tf.distribute.get_replica_context()
        gradients = self.loss_scale.unscale(sum_over_replicas(scaled_gradients))
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, use_norm=norm)
        replica.merge_call(self._update_all, args=(gradients, tf.math.is_finite(norm)))
        return norm

    def _update_all(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor], finite: tf.Tensor) -> None:
        learning_rate = self.schedule(self.step)

        def update() -> None:
            rest = iter(gradients)
            for group in self.groups:
                rate = learning_rate * group.rate_scale
                for variable in group.variables:
                    decay = self.weight_decay if is_decayed(variable) else 0.0
                    strategy.extended.update(
                        variable.value,
                        self._update_one,
                        args=(next(rest), rate),
                        kwargs={"decay": decay},
                        group=False,
                    )
            self.averages.update(strategy, self.step)

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
    """Keras' rule, of which only `update_step` and the slots are used: the rate and the decay come from us.

    Its name, which begins those of its variables in a checkpoint, is given: Keras would number those of a process.
    """
    match name:
        case "sgd":
            return keras.optimizers.SGD(name=name)
        case "momentum":
            return keras.optimizers.SGD(momentum=MOMENTUM, nesterov=True, name=name)
        case "rmsprop":
            return keras.optimizers.RMSprop(name=name)
        case "adam" | "adamw":
            return keras.optimizers.Adam(name=name)
    raise ValueError(f"no update rule {name}")
