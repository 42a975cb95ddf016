"""One replica of 8 trains like two of 4: the same losses and weights, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modules
import numpy as np
import pytest
from numpy.typing import NDArray

from trainer import run
from trainer.config import Config
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.loop import Boundary, Progress, TrainLoop
from trainer.training.step import TrainStep

STEPS = 20


def train(steps: int = STEPS, **fields: Any) -> tuple[NDArray[np.float32], run.Built]:
    """The losses of some steps, and the model after them."""
    config = Config.parse({"data": "synthetic:3", "batch_size": 8} | fields)
    prepared = run.prepare(config, Console(quiet=True))
    built = run.build(prepared)
    dataset = run.training_input(prepared, built.model, first_step=0, last_step=steps)
    step = TrainStep(built.model, built.optimizer, config, prepared.cluster.replicas)
    losses: list[NDArray[np.float32]] = []

    def keep(boundary: Boundary) -> None:
        losses.append(boundary.values["loss"])

    loop = TrainLoop(prepared.cluster.strategy, step, dataset, Stopwatch())
    loop.run(Progress(0, 0), [steps], steps_per_loop=7, actions=[keep])
    return np.concatenate(losses), built


TWO_REPLICAS: dict[str, Any] = {"strategy": "mirrored", "virtual_devices": 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "digits", "batch_size": 32},
        {"optimizer": "sgd", "learning_rate": 0.002},
        {"optimizer": "adam"},
        {"optimizer": "adam", "dropout": 0.5},
        {"optimizer": "momentum", "learning_rate": 0.001, "clip_norm": 0.5, "weight_decay": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.1, "label_smoothing": 0.1, "augment": ("flip",)},
    ],
    ids=["defaults", "sgd", "adam", "dropout", "clipped momentum with decay", "adamw"],
)
def test_two_replicas_train_like_one(fields: dict[str, Any]) -> None:
    one, built_one = train(**fields)
    two, built_two = train(**fields, **TWO_REPLICAS)
    np.testing.assert_allclose(one, two, atol=1e-5, rtol=0)
    for mine, theirs in zip(built_one.model.trainable_variables, built_two.model.trainable_variables):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-4)


def test_losses_are_those_of_the_seed_and_fall() -> None:
    first, _ = train()
    again, _ = train()
    other, _ = train(seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert first[-5:].mean() < 0.5 * first[:5].mean()


def test_moving_statistics_move_and_are_equal_on_all_replicas(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"backbone": str(modules.with_training(tmp_path / "module")), "train_backbone": True}
    _, built = train(5, **fields, backbone_statistics="update", **TWO_REPLICAS)
    statistics = built.model.backbone.moving_statistics
    assert statistics
    for variable in statistics:
        on_replicas = [copy.numpy() for copy in variable.value.values]
        np.testing.assert_array_equal(on_replicas[0], on_replicas[1])
    _, untrained = train(1, **fields, backbone_statistics="keep")
    kept = {variable.path: variable.numpy() for variable in untrained.model.backbone.non_trainable_variables}
    assert all(not np.array_equal(variable.numpy(), kept[variable.path]) for variable in statistics)


def test_a_frozen_module_keeps_every_bit_and_a_trained_one_moves_every_variable(tmp_path: Path) -> None:
    module = modules.with_training(tmp_path / "module")
    config = Config(data="synthetic:3", batch_size=8, backbone=str(module))
    published = run.build(run.prepare(config, Console(quiet=True))).model.backbone.variables
    before = [variable.numpy() for variable in published]
    _, frozen = train(3, backbone=str(module), weight_decay=0.1)
    for value, variable in zip(before, frozen.model.backbone.variables):
        np.testing.assert_array_equal(value, variable.numpy())
    _, tuned = train(3, backbone=str(module), train_backbone=True)
    for value, variable in zip(before, tuned.model.backbone.variables):
        moved = not np.array_equal(value, variable.numpy())
        assert moved == variable.trainable, variable.path
