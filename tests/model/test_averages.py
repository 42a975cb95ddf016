"""The moving average of the weights: its values, its place in checkpoints, and that it is what gets published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import EXIT_DONE
from trainer.model.averages import WeightAverages
from trainer.model.groups import Group
from trainer.model.optimizer import Optimizer
from trainer.model.schedule import Schedule
from trainer.storage import RunDirectory
from trainer.training.checkpoint import CheckpointStore

pytestmark = pytest.mark.strategies


def average_after(steps: int, decay: float, **where: Any) -> tuple[np.ndarray, WeightAverages]:
    """The average of a weight that SGD moves down by 1 a step, from 10."""
    config = Config.parse({"optimizer": "sgd", "ema_decay": decay} | where)
    cluster = connect(config)
    with cluster.strategy.scope():
        weight = keras.Variable([10.0], name="weight")
        averages = WeightAverages(decay, [weight])
        optimizer = Optimizer(config, Schedule("constant", 1.0, 0, 10), [Group(1.0, [weight])], averages)

    @tf.function
    def step() -> None:
        share = tf.fill([1], 1.0 / cluster.replicas)
        cluster.strategy.run(lambda: optimizer.apply([share]))

    for _ in range(steps):
        step()
    return averages.averages[0].numpy(), averages


@pytest.mark.parametrize("where", [{}, {"strategy": "mirrored", "virtual_devices": 2}], ids=["one", "two replicas"])
@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_the_average_forgets_as_documented(decay: float, where: dict[str, Any]) -> None:
    expected = 10.0
    for update in range(1, 6):
        forget = min(decay, update / (update + 9))
        expected = forget * expected + (1 - forget) * (10.0 - update)
    average, _ = average_after(5, decay, **where)
    np.testing.assert_allclose(average, [expected], rtol=1e-6)


def test_averages_stand_in_for_the_weights_and_leave_again() -> None:
    average, averages = average_after(3, 0.9)
    (weight,) = averages._weights
    with averages.in_place():
        np.testing.assert_array_equal(weight.numpy(), average)
    np.testing.assert_allclose(weight.numpy(), [7.0])


def test_without_a_decay_there_are_none() -> None:
    assert not WeightAverages(0.0, [keras.Variable([1.0])])


@pytest.mark.long
def test_the_average_is_validated_tested_and_exported(tmp_path: Path) -> None:
    config = Config(data="synthetic:2", epochs=1, batch_size=256, ema_decay=0.5, run_dir=str(tmp_path / "r"))
    assert run.execute(config, quiet=True) == EXIT_DONE
    status = json.loads((tmp_path / "r" / "status.json").read_text(encoding="utf-8"))
    store = CheckpointStore(RunDirectory(config.run_dir))
    tensors = store.load(store.steps()[-1]).tensors
    kernel_name = next(name for name in tensors if name.startswith("averages/") and name.endswith("head/kernel"))
    average, trained = tensors[kernel_name], tensors[kernel_name.replace("averages/", "model/")]
    exported = tf.saved_model.load(str(tmp_path / "r" / "export"))
    (kernel,) = [variable for variable in exported.variables if variable.shape == average.shape]
    np.testing.assert_array_equal(kernel.numpy(), average)
    assert not np.array_equal(kernel.numpy(), trained)
    assert status["test"]["accuracy"] > 0
