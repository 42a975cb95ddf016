"""Training steps on a real MobileNetV2, on two replicas: fine-tuning moves everything, frozen moves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.cluster import connect
from trainer.config import Config
from trainer.preparation import Built, build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.loop import Progress, Stops, TrainLoop

pytestmark = pytest.mark.strategies

TRAINABLE = 156
STATISTICS = 104


def train_two_steps(module: Path, photos: Path, **fields: Any) -> tuple[dict[str, np.ndarray], Built]:
    """The module's variables before training, by path, and the model after two steps on two replicas."""
    common = {"strategy": "mirrored", "virtual_devices": 2, "batch_size": 4, "data": f"folder:{photos}"}
    config = Config.parse(common | {"backbone": str(module)} | fields)
    prepared = prepare(config, connect(config), Console(quiet=True))
    built = build(prepared)
    before = {variable.path: variable.numpy() for variable in built.model.backbone.variables}
    dataset = training_input(prepared, built.model, first_step=0, last_step=2)
    step = build_step(prepared, built)
    TrainLoop(prepared.cluster, step, dataset, Stopwatch()).run(Progress(0, 0), Stops([2]), 2, [])
    return before, built


@pytest.fixture
def small_mobilenet(hub_module: Callable[[str], Path]) -> Path:
    return hub_module("mobilenet_v2_035_224_feature_vector")


@pytest.mark.long
def test_fine_tuning_moves_every_variable_and_keeps_replicas_equal(small_mobilenet: Path, flower_photos: Path) -> None:
    before, built = train_two_steps(small_mobilenet, flower_photos, train_backbone=True, backbone_statistics="update")
    backbone = built.model.backbone
    assert len(backbone.trainable_variables) == TRAINABLE
    assert len(backbone.moving_statistics) == STATISTICS
    for variable in (*backbone.trainable_variables, *backbone.moving_statistics):
        first, second = (copy.numpy() for copy in variable.value.values)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
        assert not np.array_equal(first, before[variable.path]), variable.path


def test_a_frozen_module_does_not_change_by_one_bit(small_mobilenet: Path, flower_photos: Path) -> None:
    before, built = train_two_steps(small_mobilenet, flower_photos, weight_decay=0.1)
    assert len(before) == TRAINABLE + STATISTICS
    for variable in built.model.backbone.variables:
        for copy in variable.value.values:
            np.testing.assert_array_equal(copy.numpy(), before[variable.path], err_msg=variable.path)
    head = built.model.head.kernel.value.values
    np.testing.assert_array_equal(head[0].numpy(), head[1].numpy())
