"""The head: hidden layers between the feature vector and the logits."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.config import Config
from trainer.model.classifier import BatchRows, Classifier
from trainer.model.convnet import ConvNet


def _classifier(hidden_units: tuple[int, ...], seed: int = 0) -> Classifier:
    config = Config(hidden_units=hidden_units, seed=seed)
    return Classifier(ConvNet(8, seed=config.seed, dtype="float32"), 3, config)


def test_hidden_layers_compute_what_numpy_does() -> None:
    model = _classifier((6, 6))
    names = [variable.path for layer in [*model.hidden, model.head] for variable in layer.variables]
    assert [name.split("/")[-2] for name in names] == ["hidden_0"] * 2 + ["hidden_1"] * 2 + ["head"] * 2
    features = np.random.default_rng(0).normal(size=(4, model.backbone.feature_size)).astype(np.float32)
    expected = features
    for layer in model.hidden:
        layer.bias.assign(np.linspace(-1, 1, 6))
        expected = np.maximum(expected @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    expected = expected @ model.head.kernel.numpy() + model.head.bias.numpy()
    np.testing.assert_allclose(model.logits(tf.constant(features)), expected, rtol=1e-5, atol=1e-6)
    rows = BatchRows(tf.constant(0), tf.constant(0), 4)
    np.testing.assert_allclose(model.training_logits(tf.constant(features), rows), expected, rtol=1e-5, atol=1e-6)


def test_hidden_layers_of_one_shape_start_apart_and_the_seed_decides() -> None:
    width = ConvNet(8, seed=0, dtype="float32").feature_size
    first, again, other = (_classifier((width, width), seed) for seed in (0, 0, 1))
    kernels = [layer.kernel.numpy() for layer in first.hidden]
    assert not np.array_equal(*kernels)
    assert all(np.array_equal(one, layer.kernel.numpy()) for one, layer in zip(kernels, again.hidden))
    assert not np.array_equal(kernels[0], other.hidden[0].kernel.numpy())
