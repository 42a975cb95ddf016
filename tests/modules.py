"""Tiny Hub modules for tests, saved the ways that publishers save theirs, and wrong ones.

Each builder writes a SavedModel into a folder and returns the folder. The right ones compute, for float
`[batch, 8, 8, 3]`, the mean over all pixels by channel, times a `[3, 4]` matrix, minus a moving mean: features
`[batch, 4]`. Weights are small fixed numbers, so that a test can say what must come out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

IMAGE_SIZE = 8
FEATURE_SIZE = 4
DECAY = 0.9
"""How much of the moving mean a training call keeps; modules with `batch_norm_momentum` take it from there."""

L2_RATE = 0.01


def kernel() -> np.ndarray:
    """The modules' matrix, float32 `[3, 4]`."""
    return np.arange(12, dtype=np.float32).reshape(3, 4) / 10


class _Tiny(tf.Module):
    """Variables and arithmetic that all the right modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(kernel(), name="tiny/dense/kernel")
        self.moving_mean = tf.Variable(tf.fill([FEATURE_SIZE], 0.5), trainable=False, name="tiny/norm/moving_mean")
        self.calls = tf.Variable(0, dtype=tf.int64, trainable=False, name="tiny/calls")

    def features(self, images: tf.Tensor, training: bool, momentum: tf.Tensor | float = DECAY) -> tf.Tensor:
        products = tf.reduce_mean(images, [1, 2]) @ self.kernel
        if training:
            self.calls.assign_add(1)
            batch_mean = tf.reduce_mean(products, 0)
            self.moving_mean.assign(momentum * self.moving_mean + (1.0 - momentum) * batch_mean)
            return products - batch_mean
        return products - self.moving_mean

    def add_lists(self) -> None:
        """Adds what the interface of reusable SavedModels asks for; without, loaders must find variables themselves."""
        self.regularization_losses = [tf.function(lambda: L2_RATE * tf.nn.l2_loss(self.kernel), input_signature=[])]


def images_spec(*shape: int | None, dtype: tf.DType = tf.float32) -> tf.TensorSpec:
    """Spec of an image batch; `[batch, 8, 8, 3]` unless told otherwise."""
    return tf.TensorSpec(shape or (None, IMAGE_SIZE, IMAGE_SIZE, 3), dtype, name="images")


def with_training(folder: Path, spec: tf.TensorSpec | None = None) -> Path:
    """A reusable module with a Python argument `training` and one regularization loss."""

    class Module(_Tiny):
        @tf.function
        def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
            return self.features(images, training)

    module = Module()
    module.add_lists()
    for training in (True, False):
        module.__call__.get_concrete_function(spec or images_spec(), training=training)
    return save(module, folder)


def with_tensor_training(folder: Path) -> Path:
    """A reusable module whose `training` was traced as a boolean tensor."""

    class Module(_Tiny):
        @tf.function(input_signature=[images_spec(), tf.TensorSpec([], tf.bool)])
        def __call__(self, images: tf.Tensor, training: tf.Tensor = False) -> tf.Tensor:
            return tf.cond(
                training, lambda: self.features(images, training=True), lambda: self.features(images, training=False)
            )

    return save(Module(), folder)


def with_momentum(folder: Path, *, required: bool = False) -> Path:
    """A reusable module with `training` and `batch_norm_momentum`, default 0.25 or none."""
    scalar = tf.TensorSpec([], tf.float32)

    class WithDefault(_Tiny):
        @tf.function
        def __call__(
            self, images: tf.Tensor, training: bool = False, batch_norm_momentum: float | tf.Tensor = 0.25
        ) -> tf.Tensor:
            return self.features(images, training, batch_norm_momentum)

    class Required(_Tiny):
        @tf.function
        def __call__(self, images: tf.Tensor, training: bool, batch_norm_momentum: float | tf.Tensor) -> tf.Tensor:
            return self.features(images, training, batch_norm_momentum)

    module = Required() if required else WithDefault()
    for training in (True, False):
        module.__call__.get_concrete_function(images_spec(), training=training, batch_norm_momentum=scalar)
    return save(module, folder)


def inference_only(folder: Path, spec: tf.TensorSpec | None = None) -> Path:
    """A reusable module that takes images and nothing else."""

    class Module(_Tiny):
        @tf.function(input_signature=[spec or images_spec()])
        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            return self.features(images, training=False)

    return save(Module(), folder)


def signatures_only(
    folder: Path,
    outputs: Callable[[tf.Tensor], dict[str, tf.Tensor]] = lambda features: {"output_0": features},
    names: tuple[str, ...] = ("serving_default",),
) -> Path:
    """A module that cannot be called; `outputs` makes what its signatures return from the features."""
    module = _Tiny()

    @tf.function(input_signature=[images_spec()])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(module.features(images, training=False))

    return save(module, folder, signatures=dict.fromkeys(names, serve))


def tf1_format(folder: Path) -> Path:
    """A module in the old format: a session's graph, signatures, and the mark that tensorflow_hub left."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3])
        matrix = v1.get_variable("tiny/dense/kernel", initializer=kernel(), use_resource=True)
        moving_mean = v1.get_variable(
            "tiny/norm/moving_mean", initializer=tf.fill([FEATURE_SIZE], 0.5), trainable=False, use_resource=True
        )
        features = tf.reduce_mean(images, [1, 2]) @ matrix - moving_mean
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": features})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [], {"default": signature, "image_feature_vector": signature})
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return folder


def same_names(folder: Path) -> Path:
    """A reusable module whose variables are all called the same."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [tf.Variable(tf.ones([3, 3]), name="layer/w") for _ in range(3)]

        @tf.function(input_signature=[images_spec()])
        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            features = tf.reduce_mean(images, [1, 2])
            for weight in self.weights:
                features = features @ weight
            return features

    return save(Module(), folder)


def computing(folder: Path, spec: tf.TensorSpec, compute: Callable[[tf.Tensor], Any]) -> Path:
    """A reusable module without variables that computes whatever a test likes."""

    class Module(tf.Module):
        @tf.function(input_signature=[spec])
        def __call__(self, inputs: tf.Tensor) -> Any:
            return compute(inputs)

    return save(Module(), folder)


def no_callable(folder: Path) -> Path:
    """Variables and nothing to call."""
    return save(tf.train.Checkpoint(kernel=tf.Variable(kernel())), folder)


def rank_4(folder: Path) -> Path:
    """Gives a feature map."""
    return computing(folder, images_spec(), lambda images: tf.nn.avg_pool2d(images, 2, 2, "VALID"))


def text_input(folder: Path) -> Path:
    """Takes sentences."""
    spec = tf.TensorSpec([None], tf.string, name="sentences")
    return computing(folder, spec, lambda text: tf.cast(tf.strings.length(text), tf.float32)[:, None] * tf.ones([1, 4]))


def integer_input(folder: Path) -> Path:
    """Takes bytes where floats are expected."""
    return computing(
        folder, images_spec(dtype=tf.uint8), lambda images: tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])
    )


def save(module: Any, folder: Path, **options: Any) -> Path:
    """Saves and gives the folder back."""
    tf.saved_model.save(module, str(folder), **options)
    return folder
