"""The backbone: a Keras 3 layer that turns images or texts into feature vectors.

Keras 3 cannot hold a Hub module by itself: `hub.KerasLayer` is a layer of the old Keras, and a module that is merely
called inside a Keras 3 layer has no weights as far as Keras can see, so that "fine-tuning" trains the head alone.
`HubBackbone` wraps each of the module's own variables in a `keras.Variable`: the same memory, now seen by the
optimizer, by checkpoints and by exports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import keras
import tensorflow as tf

from trainer.config import Config
from trainer.errors import UserError
from trainer.model.endpoint import FEATURE_VECTORS
from trainer.model.handles import resolve
from trainer.model.hub import HubModule, load_module

NAME = "backbone"
"""Name of the layer, and so the first part of its variables' paths."""


class Backbone(keras.layers.Layer):
    """Images or texts to feature vectors.

    Attributes:
      image_size: height and width of the images, in pixels; None where it takes texts.
      feature_size: length of a feature vector.
      kind: "convnet", or how the Hub module was saved: "reusable", "signature" or "tf1".
    """

    image_size: int | None
    feature_size: int
    kind: str

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes feature vectors, of images without host operations, so that it also runs on a TPU.

        Args:
          inputs: float32 `[batch, image_size, image_size, 3]` in [0, 1], or texts, string `[batch]`.
          training: a Python bool: whether this is a training step.

        Returns:
          Float32 `[batch, feature_size]` (float64 where the layer was made with dtype float64).
        """
        raise NotImplementedError

    def regularization_loss(self) -> tf.Tensor:
        """What to add to the loss of the global batch: float32 scalar, 0 where the backbone is frozen or has none."""
        return tf.zeros([], tf.float32)

    @property
    def moving_statistics(self) -> list[keras.Variable]:
        """The variables that `call(training=True)` moves, which each replica does by its own batch.

        Non-trainable floats, such as the moving averages of batch normalization. Empty where nothing moves: then
        replicas stay equal by themselves.
        """
        return []

    @property
    def moved_by_calls(self) -> list[keras.Variable]:
        """All variables that `call(training=True)` may move: the moving statistics, and counters and the like."""
        return self.moving_statistics

    def publisher_call(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Like `call`, but as the module's publisher meant it, for an export that can be fine-tuned again.

        `training` reaches the module whatever this run did with it.
        """
        return self(inputs, training=training)

    @property
    def publisher_losses(self) -> list[Callable[[], tf.Tensor]]:
        """The module's own regularization losses, frozen or not: functions that give float scalars."""
        return []

    @property
    def publisher_resources(self) -> list[Any]:
        """The tables and files of the module, which an export must hold."""
        return []

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """`[batch, ...]` to `[batch, feature_size]`."""
        return (input_shape[0], self.feature_size)


class HubBackbone(Backbone):
    """A Hub module as a layer that owns the module's variables. Create it inside `strategy.scope()`.

    The module computes in float32, as its publisher saved it, whatever the policy of the layers around it.

    Attributes:
      hub_module: the module itself.
    """

    def __init__(self, module: HubModule, *, train: bool, update_statistics: bool) -> None:
        """Adopts the variables.

        Args:
          module: loaded in the same scope.
          train: whether the module's trainable variables are to be trained; else not one of them ever changes.
          update_statistics: with `train`, whether training steps also move the batch-norm statistics, by calling the
            module with `training=True`. Otherwise it is always called as in inference.
        """
        super().__init__(name=NAME, dtype="float32")
        self.image_size = module.image_size
        self.feature_size = module.feature_size
        self.kind = module.kind
        self.hub_module = module
        self._updates_statistics = train and update_statistics and module.takes_training
        for path, variable in _adopt(module):
            # One attribute each: a run saves variables by path, but whoever gives the layer to `tf.train.Checkpoint`
            # would find none of those that Keras keeps in lists.
            setattr(self, f"module/{path}", variable)
        self.trainable = train
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """See `Backbone.call`; `training` reaches the module only if it is to update its statistics."""
        return self.hub_module.apply(inputs, bool(training) and self._updates_statistics)

    def regularization_loss(self) -> tf.Tensor:
        """Sum of the module's own regularization losses."""
        losses = self.publisher_losses
        if not (self.trainable and losses):
            return tf.zeros([], tf.float32)
        return tf.add_n([tf.cast(loss(), tf.float32) for loss in losses])

    @property
    def moving_statistics(self) -> list[keras.Variable]:
        """The module's non-trainable floats, if training steps update them."""
        if not self._updates_statistics:
            return []
        return [v for v in self.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]

    @property
    def moved_by_calls(self) -> list[keras.Variable]:
        """See `Backbone.moved_by_calls`."""
        return list(self.non_trainable_variables) if self._updates_statistics else []

    def publisher_call(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """See `Backbone.publisher_call`."""
        return self.hub_module.apply(inputs, training and self.hub_module.takes_training)

    @property
    def publisher_losses(self) -> list[Callable[[], tf.Tensor]]:
        """See `Backbone.publisher_losses`."""
        return self.hub_module.regularization_losses

    @property
    def publisher_resources(self) -> list[Any]:
        """See `Backbone.publisher_resources`."""
        return self.hub_module.resources


def build_backbone(config: Config, native_size: int | None) -> Backbone:
    """Makes the backbone that a run asks for. Call it inside `strategy.scope()`.

    Args:
      config: what `--backbone`, `--image_size` and their like say.
      native_size: height and width of the data's images, if they all have one size; the built-in network takes it.

    Raises:
      UserError: the module cannot be found, loaded or used as the config asks; the sentence says why.
    """
    if not config.uses_hub_module:
        # Here and not above: the network is itself a Backbone.
        from trainer.model.convnet import DEFAULT_IMAGE_SIZE, ConvNet

        size = config.image_size or native_size or DEFAULT_IMAGE_SIZE
        return ConvNet(size, seed=config.seed, dtype=config.precision)
    path = resolve(config.backbone, mirror=config.hub_mirror, repair=config.repair_hub_cache)
    module = load_module(path, config.backbone, config.image_size, FEATURE_VECTORS[config.example_kind])
    if config.train_backbone:
        _check_trainable(module, config)
    return HubBackbone(module, train=config.train_backbone, update_statistics=config.backbone_statistics == "update")


def _check_trainable(module: HubModule, config: Config) -> None:
    if module.kind == "tf1":
        raise UserError(
            f"--train_backbone: --backbone={config.backbone} is in the old TF1 format, which can only be used frozen. "
            "Leave the flag out, or take the module's TF2 version."
        )
    if not module.trainable:
        raise UserError(
            f"--train_backbone: --backbone={config.backbone} has no trainable variables. Leave the flag out."
        )
    if config.backbone_statistics == "update" and not module.takes_training:
        raise UserError(
            f"--backbone_statistics=update: --backbone={config.backbone} was saved for inference only, so its "
            "statistics cannot be updated. Take keep."
        )


def _adopt(module: HubModule) -> Iterator[tuple[str, keras.Variable]]:
    """Wraps the module's variables for Keras, under their own names, such as "MobilenetV2/Conv/weights".

    They are trainable as published, whether this run freezes them or not, so a checkpoint fits either. Left out are
    variables that Keras has no type for and those of changing shape: nothing trains them, and each run reads them
    from the module again.
    """
    trainable = {id(variable) for variable in module.trainable_variables}
    taken: set[str] = set()
    for variable in module.variables:
        if not variable.shape.is_fully_defined() or not _keras_has_type(variable.dtype):
            continue
        path = _unique_path(variable.name, taken)
        *scopes, name = path.split("/")
        with ExitStack() as scope:
            for part in [NAME, *scopes]:
                scope.enter_context(keras.name_scope(part))
            yield (
                path,
                keras.Variable(
                    variable,
                    shape=variable.shape,
                    dtype=variable.dtype.name,
                    trainable=id(variable) in trainable and variable.dtype.is_floating,
                    name=name,
                ),
            )


def _keras_has_type(dtype: tf.DType) -> bool:
    return dtype.is_floating or dtype.is_integer or dtype.is_bool


def _unique_path(name: str, taken: set[str]) -> str:
    """The module's own name for a variable, without TensorFlow's ":0", numbered if it was used before.

    In a module that a run of ours exported, variables of the built-in network already begin with "backbone/".
    """
    path = name.split(":")[0].removeprefix(f"{NAME}/")
    candidate, number = path, 1
    while candidate in taken:
        candidate, number = f"{path}_{number}", number + 1
    taken.add(candidate)
    return candidate
