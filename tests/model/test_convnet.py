"""The built-in network: sizes, seeds, precision, and that it learns."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.model.convnet import ConvNet


def images(batch: int, size: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    return tf.random.stateless_uniform([batch, size, size, 3], [1, 2], dtype=dtype)


@pytest.mark.parametrize("size", [8, 9, 15, 28, 32, 63, 64, 100])
def test_any_size_from_8_on(size: int) -> None:
    network = ConvNet(size, seed=0)
    traced = tf.function(network, autograph=False).get_concrete_function(tf.TensorSpec([2, size, size, 3]))
    assert traced.output_shapes == (2, network.feature_size)
    assert network.feature_size in (576, 1024)
    features = network(images(2, size))
    assert features.dtype == tf.float32 and np.all(np.isfinite(features)) and np.any(features[0] != features[1])


def test_smaller_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"--image_size=7: .* at least 8"):
        ConvNet(7, seed=0)


def test_weights_derive_from_the_seed_and_differ_by_layer() -> None:
    first, again, other = ConvNet(16, seed=5), ConvNet(16, seed=5), ConvNet(16, seed=6)
    for mine, same in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), same.numpy())
    kernels = [variable.numpy() for variable in first.variables if variable.name == "kernel"]
    other_kernels = [variable.numpy() for variable in other.variables if variable.name == "kernel"]
    assert all(np.any(mine != theirs) for mine, theirs in zip(kernels, other_kernels, strict=True))
    assert kernels[2].shape == kernels[3].shape
    assert np.any(kernels[2] != kernels[3])


def test_all_of_it_is_trainable_under_unique_paths() -> None:
    network = ConvNet(8, seed=0)
    paths = [variable.path for variable in network.trainable_variables]
    assert len(set(paths)) == len(paths) == len(network.variables) == 12
    assert "backbone/conv_0/kernel" in paths and "backbone/norm_2/gamma" in paths
    assert network.kind == "convnet" and float(network.regularization_loss()) == 0 and not network.moving_statistics


def test_float64_throughout() -> None:
    network = ConvNet(8, seed=0, dtype="float64")
    pixels = images(4, 8, tf.float64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(pixels) ** 2)
    gradients = tape.gradient(loss, [variable.value for variable in network.trainable_variables])
    assert {loss.dtype, *(gradient.dtype for gradient in gradients)} == {tf.float64}
    assert all(np.any(gradient != 0) for gradient in gradients)
    halves = tf.concat([network(pixels[:1]), network(pixels[1:])], 0)
    np.testing.assert_allclose(halves, network(pixels), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_float32_features_near_the_exact_ones(policy: str) -> None:
    network, exact = ConvNet(8, seed=0, dtype=policy), ConvNet(8, seed=0)
    features = network(images(2, 8))
    assert features.dtype == tf.float32 and {variable.dtype for variable in network.variables} == {"float32"}
    assert 0 < np.max(np.abs(features - exact(images(2, 8)))) < 0.1


def test_a_mirrored_checkpoint_fits_one_device(tmp_path: Path) -> None:
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        mirrored = ConvNet(8, seed=0)
    path = tf.train.Checkpoint(backbone=mirrored).save(str(tmp_path / "checkpoint"))
    other = ConvNet(8, seed=1)
    tf.train.Checkpoint(backbone=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(images(2, 8)), mirrored(images(2, 8)))


def test_it_learns_the_digits() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.repeat(digits.images[..., None].astype(np.float32) / 16, 3, axis=-1)
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    training, test = order[:1347], order[1347:]

    network = ConvNet(8, seed=0)
    head = keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    head.build((None, network.feature_size))
    variables = network.trainable_variables + head.trainable_variables
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train(batches: tf.Tensor) -> None:
        for rows in batches:
            with tf.GradientTape() as tape:
                logits = head(network(tf.gather(pixels, rows), training=True))
                loss = cross_entropy(tf.gather(labels, rows), logits)
            optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)

    epochs = [np.random.default_rng(epoch).permutation(training)[:1344].reshape(42, 32) for epoch in range(4)]
    train(tf.constant(np.concatenate(epochs)))
    predictions = np.argmax(head(network(tf.constant(pixels[test]))), axis=-1)
    assert np.mean(predictions == labels[test]) >= 0.96
