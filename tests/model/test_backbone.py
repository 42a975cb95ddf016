"""The layer that owns a module's variables: trained, frozen, replicated, saved, exported and reloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import modules
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import Config
from trainer.errors import UserError
from trainer.model.backbone import Backbone, build_backbone

KINDS: dict[str, Callable[[Path], Path]] = {
    "training": modules.with_training,
    "tensor_training": modules.with_tensor_training,
    "momentum": modules.with_momentum,
    "inference": modules.inference_only,
    "signature": modules.signatures_only,
    "tf1": modules.tf1_format,
}
TRAINABLE = [name for name in KINDS if name != "tf1"]
WITH_STATISTICS = ["training", "tensor_training", "momentum"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tiny module by its name in KINDS; saves each once."""
    saved: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in saved:
            saved[name] = KINDS[name](tmp_path_factory.mktemp(name) / "module")
        return saved[name]

    return get


@pytest.fixture(scope="module")
def mirrored() -> tf.distribute.MirroredStrategy:
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def build(path: Path | str, **fields: Any) -> Backbone:
    return build_backbone(Config(backbone=str(path), **fields), None)


def images(batch: int, size: int = modules.IMAGE_SIZE) -> tf.Tensor:
    return tf.random.stateless_uniform([batch, size, size, 3], [1, 2])


def values(backbone: Backbone) -> list[np.ndarray]:
    return [variable.numpy() for variable in backbone.variables]


def training_step(
    strategy: tf.distribute.Strategy, backbone: Backbone, pixels: tf.Tensor
) -> tuple[list[Any], list[Any]]:
    """One compiled step, each replica with its rows of `pixels`: features and gradients of their square, by replica."""
    replicas = strategy.num_replicas_in_sync
    rows = len(pixels) // replicas
    variables = [variable.value for variable in backbone.trainable_variables]

    def replica_step(mine: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            features = backbone(mine, training=True)
            loss = tf.reduce_sum(features**2)
        return features, tape.gradient(loss, variables)

    step = tf.function(lambda batch: strategy.run(replica_step, args=(batch,)), autograph=False)
    share = strategy.experimental_distribute_values_from_function(
        lambda context: pixels[context.replica_id_in_sync_group * rows :][:rows]
    )
    features, gradients = step(share)
    return list(strategy.experimental_local_results(features)), [
        strategy.experimental_local_results(gradient) for gradient in gradients
    ]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_computes_on_two_replicas(
    name: str, folder: Callable[[str], Path], mirrored: tf.distribute.MirroredStrategy
) -> None:
    with mirrored.scope():
        backbone = build(folder(name), train_backbone=name != "tf1")
    pixels = images(4)
    features, gradients = training_step(mirrored, backbone, pixels)
    expected = np.mean(pixels, axis=(1, 2)) @ modules.kernel() - 0.5
    np.testing.assert_allclose(np.concatenate(features), expected, atol=1e-6)
    means = np.mean(pixels, axis=(1, 2))
    for by_replica in gradients:
        for half, gradient in zip((slice(0, 2), slice(2, 4)), by_replica, strict=True):
            np.testing.assert_allclose(gradient, 2 * means[half].T @ expected[half], rtol=1e-5, atol=1e-6)
    assert len(gradients) == (0 if name == "tf1" else 1)


def test_each_replica_reads_its_own_copy(
    folder: Callable[[str], Path], mirrored: tf.distribute.MirroredStrategy
) -> None:
    for name in KINDS:
        with mirrored.scope():
            backbone = build(folder(name))
        (kernel,) = [variable for variable in backbone.variables if variable.name == "kernel"]
        second = mirrored.experimental_local_results(kernel.value)[1]
        second.assign(tf.zeros_like(second))
        features, _ = training_step(mirrored, backbone, tf.concat([images(2)] * 2, 0))
        assert np.any(features[0] != features[1]), name
        np.testing.assert_allclose(features[1], np.full([2, 4], -0.5), atol=1e-6)


def test_variables_are_the_modules_own(folder: Callable[[str], Path]) -> None:
    backbone = build(folder("training"), train_backbone=True)
    assert [v.path for v in backbone.trainable_variables] == ["backbone/tiny/dense/kernel"]
    assert sorted(v.path for v in backbone.non_trainable_variables) == [
        "backbone/tiny/calls",
        "backbone/tiny/norm/moving_mean",
    ]
    own = {id(variable) for variable in backbone.hub_module.variables}
    assert {id(variable.value) for variable in backbone.variables} == own
    before = backbone(images(2))
    backbone.trainable_variables[0].assign(tf.zeros([3, 4]))
    assert np.any(backbone(images(2)) != before)


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    backbone = build(modules.same_names(tmp_path / "module"))
    assert sorted(v.path for v in backbone.variables) == [
        "backbone/layer/w",
        "backbone/layer/w_1",
        "backbone/layer/w_2",
    ]


@pytest.mark.parametrize("name", KINDS)
def test_a_frozen_backbone_never_changes(name: str, folder: Callable[[str], Path]) -> None:
    backbone = build(folder(name), backbone_statistics="update")
    before = values(backbone)
    backbone(images(4), training=True)
    assert not backbone.trainable_variables and not backbone.moving_statistics
    assert float(backbone.regularization_loss()) == 0
    for old, new in zip(before, values(backbone), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_statistics_are_kept_unless_they_are_to_be_updated(name: str, folder: Callable[[str], Path]) -> None:
    kept = build(folder(name), train_backbone=True)
    updated = build(folder(name), train_backbone=True, backbone_statistics="update")
    pixels = images(4)
    np.testing.assert_array_equal(kept(pixels, training=True), kept(pixels))
    assert np.any(updated(pixels, training=True) != kept(pixels))
    assert not kept.moving_statistics
    (moving_mean,) = updated.moving_statistics
    assert moving_mean.path == "backbone/tiny/norm/moving_mean"
    batch_mean = np.mean(pixels, axis=(0, 1, 2)) @ modules.kernel()
    decay = 0.25 if name == "momentum" else modules.DECAY
    np.testing.assert_allclose(moving_mean.numpy(), decay * 0.5 + (1 - decay) * batch_mean, rtol=1e-6)
    before = values(updated)
    updated(pixels, training=False)
    for old, new in zip(before, values(updated), strict=True):
        np.testing.assert_array_equal(old, new)


def test_statistics_of_replicas_can_be_made_equal(
    folder: Callable[[str], Path], mirrored: tf.distribute.MirroredStrategy
) -> None:
    with mirrored.scope():
        backbone = build(folder("training"), train_backbone=True, backbone_statistics="update")
    training_step(mirrored, backbone, images(4))
    (moving_mean,) = backbone.moving_statistics
    first, second = mirrored.experimental_local_results(moving_mean.value)
    assert np.any(first != second)

    @tf.function(autograph=False)
    def average() -> None:
        def replica() -> None:
            context = tf.distribute.get_replica_context()
            mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, moving_mean.value.read_value())
            context.merge_call(
                lambda strategy, value: strategy.extended.update(
                    moving_mean.value, lambda variable, new: variable.assign(new), args=(value,), group=False
                ),
                args=(mean,),
            )

        mirrored.run(replica)

    middle = (first + second) / 2
    average()
    for copy in mirrored.experimental_local_results(moving_mean.value):
        np.testing.assert_allclose(copy, middle, rtol=1e-6)


def test_regularization_counts_when_trained(folder: Callable[[str], Path]) -> None:
    backbone = build(folder("training"), train_backbone=True)
    loss = backbone.regularization_loss()
    assert loss.dtype == tf.float32 and loss.shape == ()
    np.testing.assert_allclose(loss, modules.L2_RATE * np.sum(modules.kernel() ** 2) / 2, rtol=1e-6)
    assert float(build(folder("momentum"), train_backbone=True).regularization_loss()) == 0


def test_the_module_computes_in_float32_under_any_policy(folder: Callable[[str], Path]) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = build(folder("training"))
        features = backbone(images(2))
        low = backbone(tf.cast(images(2), tf.bfloat16))
    finally:
        keras.config.set_dtype_policy(policy)
    assert features.dtype == low.dtype == tf.float32
    np.testing.assert_array_equal(features, build(folder("training"))(images(2)))


@pytest.mark.parametrize("name", KINDS)
def test_a_mirrored_checkpoint_fits_one_device(
    name: str, folder: Callable[[str], Path], mirrored: tf.distribute.MirroredStrategy, tmp_path: Path
) -> None:
    with mirrored.scope():
        trained = build(folder(name), train_backbone=name != "tf1")
    for variable in trained.variables:
        variable.assign(variable.value.read_value() + tf.ones([], variable.dtype))
    path = tf.train.Checkpoint(backbone=trained).save(str(tmp_path / "checkpoint"))
    stored = [key for key, _ in tf.train.list_variables(path) if key.startswith("backbone/")]
    assert len(stored) == len(trained.variables)

    frozen = build(folder(name))
    tf.train.Checkpoint(backbone=frozen).restore(path).assert_consumed()
    assert [v.path for v in frozen.variables] == [v.path for v in trained.variables]
    for mine, theirs in zip(values(frozen), values(trained), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    expected = np.mean(images(2), axis=(1, 2)) @ (modules.kernel() + 1) - 1.5
    np.testing.assert_allclose(frozen(images(2)), expected, atol=1e-5)


def export(backbone: Backbone, path: Path) -> Path:
    """Publishes the backbone as a reusable module. It must hold the module's own variables, not the Keras layer,
    which would be saved as copies of them that the functions do not read."""
    module = tf.train.Checkpoint()

    @tf.function
    def features(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return backbone.publisher_call(inputs, training)

    size = backbone.image_size
    for training in (False, True):
        features.get_concrete_function(tf.TensorSpec([None, size, size, 3], name="inputs"), training=training)
    module.__call__ = features
    module.variables = [variable.value for variable in backbone.variables]
    module.trainable_variables = [variable for variable in module.variables if variable.trainable]
    module.regularization_losses = [tf.function(loss, input_signature=[]) for loss in backbone.publisher_losses]
    return modules.save(module, path)


@pytest.mark.parametrize("name", KINDS)
def test_an_exported_backbone_is_a_module_again(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    first = build(folder(name))
    again = build(
        export(first, tmp_path / "export"),
        train_backbone=name != "tf1",
        backbone_statistics="update" if name in WITH_STATISTICS else "keep",
    )
    np.testing.assert_array_equal(again(images(3)), first(images(3)))
    assert sorted(v.path for v in again.variables) == sorted(v.path for v in first.variables)
    assert [v.path for v in again.trainable_variables] == ([] if name == "tf1" else ["backbone/tiny/dense/kernel"])
    assert len(again.moving_statistics) == (name in WITH_STATISTICS)
    assert len(again.publisher_losses) == (name == "training")
    _, gradients = training_step(tf.distribute.get_strategy(), again, images(4))
    assert all(np.any(by_replica[0] != 0) for by_replica in gradients)


def test_the_built_in_network_is_exported_too(tmp_path: Path) -> None:
    first = build_backbone(Config(seed=3), 8)
    again = build(export(first, tmp_path / "export"), train_backbone=True)
    np.testing.assert_allclose(again(images(3)), first(images(3)), atol=1e-6)
    assert sorted(v.path for v in again.trainable_variables) == sorted(v.path for v in first.trainable_variables)
    _, gradients = training_step(tf.distribute.get_strategy(), again, images(4))
    assert all(np.any(by_replica[0] != 0) for by_replica in gradients)


def test_one_folder_serves_two_layers(folder: Callable[[str], Path]) -> None:
    first, second = build(folder("training")), build(folder("training"))
    before = second(images(2))
    first.variables[0].assign(tf.zeros([3, 4]))
    np.testing.assert_array_equal(second(images(2)), before)


def test_what_cannot_be_trained_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="TF1 format, which can only be used frozen"):
        build(folder("tf1"), train_backbone=True)
    bare = modules.computing(tmp_path / "bare", modules.images_spec(), lambda pixels: tf.reduce_mean(pixels, [1, 2]))
    with pytest.raises(UserError, match="no trainable variables"):
        build(bare, train_backbone=True)
    with pytest.raises(UserError, match=r"--backbone_statistics=update.*Take keep"):
        build(folder("inference"), train_backbone=True, backbone_statistics="update")


def test_the_built_in_network_takes_the_size_that_is_asked_or_native() -> None:
    assert build_backbone(Config(image_size=16), 8).image_size == 16
    assert build_backbone(Config(), 8).image_size == 8
    assert build_backbone(Config(), None).image_size == 64


@pytest.mark.slow
@pytest.mark.parametrize("update", [False, True])
def test_every_trainable_variable_of_the_real_module_gets_a_gradient(
    hub_module: Callable[[str], Path], mirrored: tf.distribute.MirroredStrategy, update: bool
) -> None:
    with mirrored.scope():
        backbone = build(
            hub_module("tf2-preview_mobilenet_v2_feature_vector_4"),
            train_backbone=True,
            backbone_statistics="update" if update else "keep",
        )
    assert (len(backbone.trainable_variables), len(backbone.variables)) == (156, 260)
    assert len({variable.path for variable in backbone.variables}) == 260
    before = [v.numpy() for v in backbone.non_trainable_variables]
    _, gradients = training_step(mirrored, backbone, images(4, 224))
    assert len(gradients) == 156
    assert all(np.any(gradient != 0) for by_replica in gradients for gradient in by_replica)
    after = [v.numpy() for v in backbone.non_trainable_variables]
    moved = [np.any(old != new) for old, new in zip(before, after, strict=True)]
    assert moved == [update] * 104
    assert len(backbone.moving_statistics) == 104 * update
    assert float(backbone.regularization_loss()) > 0
