"""What training changes: taken out under names that do not depend on the strategy, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modules
import numpy as np
import pytest

from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import UserError
from trainer.preparation import Built, build, prepare
from trainer.records.console import Console
from trainer.training.checkpoint import Checkpoint, Position
from trainer.training.state import TrainingState, restore_weights, weights

pytestmark = pytest.mark.strategies

SMALL: dict[str, Any] = {"data": "synthetic:2", "image_size": 8, "batch_size": 32}


def built(**fields: Any) -> Built:
    config = Config(**(SMALL | fields))
    return build(prepare(config, connect(config), Console(quiet=True)))


def state_of(model_and_optimizer: Built) -> TrainingState:
    return TrainingState(model_and_optimizer.model, model_and_optimizer.optimizer)


def checkpoint_of(state: TrainingState) -> Checkpoint:
    tensors = {name: tensor.numpy() for name, tensor in state.snapshot().items()}
    position = Position(7, 0, {}, 0, {}, None, "c", "d", state.frozen_fingerprint)
    return Checkpoint(position, tensors, "PLACE")


def disturb(model_and_optimizer: Built) -> None:
    """Gives all variables other values."""
    optimizer = model_and_optimizer.optimizer
    every = [
        *(variable.value for variable in model_and_optimizer.model.variables),
        *(variable.value for variable in optimizer.rule.variables),
        *optimizer.averages.averages,
        *optimizer.loss_scale.by_name().values(),
    ]
    for variable in every:
        variable.assign(np.ones(variable.shape, variable.dtype.as_numpy_dtype) * 3)


@pytest.mark.parametrize("strategy", [{}, {"strategy": "mirrored", "virtual_devices": 2}], ids=["one", "mirrored"])
def test_all_of_it_comes_back(strategy: dict[str, Any]) -> None:
    one = built(ema_decay=0.9, precision="mixed_float16", **strategy)
    state = state_of(one)
    saved = checkpoint_of(state)
    kinds = {name.partition("/")[0] for name in saved.tensors}
    assert kinds == {"model", "averages", "optimizer", "loss_scale"}
    assert {"loss_scale/factor", "loss_scale/good_steps", "optimizer/adam/iteration"} <= saved.tensors.keys()
    disturb(one)
    changed = checkpoint_of(state)
    assert all(not np.array_equal(changed.tensors[name], value) for name, value in saved.tensors.items())
    state.restore(saved)
    for name, value in checkpoint_of(state).tensors.items():
        np.testing.assert_array_equal(value, saved.tensors[name], err_msg=name)


def test_the_names_are_those_of_every_strategy_and_every_process() -> None:
    one, again = (state_of(built(optimizer="momentum")).snapshot().keys() for _ in range(2))
    mirrored = state_of(built(optimizer="momentum", strategy="mirrored", virtual_devices=2)).snapshot().keys()
    assert one == again == mirrored


@pytest.mark.parametrize("strategy", [{}, {"strategy": "mirrored", "virtual_devices": 2}], ids=["one", "mirrored"])
def test_later_steps_do_not_touch_a_snapshot(strategy: dict[str, Any]) -> None:
    """It is written while training goes on, and shares its memory with the variables until they change."""
    one = built(**strategy)
    snapshot = state_of(one).snapshot()
    before = {name: tensor.numpy().copy() for name, tensor in snapshot.items()}
    for variable in one.model.variables:
        variable.value.assign_add(np.ones(variable.shape, np.float32))
    for name, tensor in snapshot.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)


def test_another_model_is_refused_and_left_as_it_is() -> None:
    saved = checkpoint_of(state_of(built()))
    other = state_of(built(data="synthetic:3"))
    before = checkpoint_of(other)
    with pytest.raises(
        UserError, match=r"PLACE does not fit this model, which differs in model/head/bias, model/head/"
    ):
        other.restore(saved)
    with pytest.raises(UserError, match="differs in optimizer/adam/"):
        state_of(built(optimizer="sgd")).restore(saved)
    for name, value in checkpoint_of(other).tensors.items():
        np.testing.assert_array_equal(value, before.tensors[name])


def test_a_frozen_module_is_not_saved_and_must_be_the_same_again(tmp_path: Path) -> None:
    module = modules.with_training(tmp_path / "module")
    one = built(backbone=str(module))
    saved = checkpoint_of(state_of(one))
    assert [name for name in saved.tensors if name.startswith("model/")] == ["model/head/kernel", "model/head/bias"]
    state_of(built(backbone=str(module))).restore(saved)
    another = built(backbone=str(module))
    kernel = next(variable for variable in another.model.backbone.variables if "kernel" in variable.path)
    kernel.assign(kernel + 1)
    with pytest.raises(UserError, match="The frozen weights are not those that PLACE was saved with"):
        state_of(another).restore(saved)
    with pytest.raises(UserError, match="The frozen weights are not those that PLACE was saved with"):
        restore_weights(saved, another.model)


def test_what_training_calls_move_is_saved_counters_too(tmp_path: Path) -> None:
    module = modules.with_training(tmp_path / "module")
    trained = built(backbone=str(module), train_backbone=True, backbone_statistics="update")
    names = state_of(trained).snapshot().keys()
    assert {"model/backbone/tiny/calls", "model/backbone/tiny/norm/moving_mean"} <= names


def test_a_model_for_use_gets_the_averages(tmp_path: Path) -> None:
    one = built(ema_decay=0.9)
    for average in one.optimizer.averages.averages:
        average.assign_add(np.ones(average.shape, np.float32))
    saved = checkpoint_of(state_of(one))
    other = built().model
    restore_weights(saved, other)
    assert weights(saved).keys() == {variable.path for variable in other.variables}
    for variable in other.variables:
        np.testing.assert_array_equal(variable.numpy(), saved.tensors[f"averages/{variable.path}"])
        assert not np.array_equal(variable.numpy(), saved.tensors[f"model/{variable.path}"])
