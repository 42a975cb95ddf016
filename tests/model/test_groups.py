"""Which variables learn, and how fast."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from equivalence import train

from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import UserError
from trainer.model.groups import Group, parameter_groups
from trainer.model.optimizer import Optimizer
from trainer.model.schedule import Schedule
from trainer.preparation import build, prepare
from trainer.records.console import Console


def variables(*paths: str) -> list[keras.Variable]:
    made = []
    for path in paths:
        *scopes, name = path.split("/")
        with ExitStack() as inside:
            for scope in scopes:
                inside.enter_context(keras.name_scope(scope))
            made.append(keras.Variable([1.0], name=name))
    return made


PATHS = ["backbone/block_1/w", "backbone/block_12/w", "backbone/norm/b", "head/kernel"]


def groups(**fields: Any) -> list[tuple[float, list[str]]]:
    found = parameter_groups(Config.parse(fields), variables(*PATHS))
    return [(group.rate_scale, [variable.path for variable in group.variables]) for group in found]


def test_without_patterns_all_learn_at_the_rate() -> None:
    assert groups() == [(1.0, PATHS)]


def test_frozen_variables_are_in_no_group() -> None:
    assert groups(freeze="block_1[0-4]/") == [(1.0, [PATHS[0], PATHS[2], PATHS[3]])]
    assert groups(freeze="^backbone/") == [(1.0, ["head/kernel"])]


def test_the_first_pattern_that_fits_counts() -> None:
    found = groups(lr_scale="norm:0.5,backbone:0.1")
    assert found == [(0.5, [PATHS[2]]), (0.1, PATHS[:2]), (1.0, [PATHS[3]])]
    assert groups(lr_scale="backbone:0") == [(1.0, [PATHS[3]])]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"freeze": "blok"}, "--freeze=blok fits none of the 4 trainable variables, such as backbone/block_1/w"),
        ({"lr_scale": "haed:2"}, "--lr_scale=haed:2 fits none of the 4 trainable variables"),
        ({"freeze": "."}, "leaves nothing to train"),
        ({"lr_scale": ".:0"}, "leaves nothing to train"),
    ],
)
def test_patterns_that_do_not_fit_are_named(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        groups(**fields)
    assert sentence in str(raised.value)


def test_each_group_moves_at_its_multiple_of_the_rate() -> None:
    config = Config(optimizer="sgd")
    cluster = connect(config)
    with cluster.strategy.scope():
        slow, fast = variables("slow", "fast")
        optimizer = Optimizer(config, Schedule("constant", 1.0, 0, 10), [Group(0.1, [slow]), Group(2.0, [fast])])
    cluster.strategy.run(tf.function(lambda: optimizer.apply([tf.ones([1]), tf.ones([1])])))
    np.testing.assert_allclose([slow.numpy()[0], fast.numpy()[0]], [0.9, -1.0], rtol=1e-6)


def test_a_frozen_layer_of_the_built_in_network_keeps_every_bit_and_is_not_decayed() -> None:
    config = Config(data="synthetic:2", batch_size=8, freeze="conv_0", weight_decay=0.1)
    cluster = connect(config)
    initial = build(prepare(config, cluster, Console(quiet=True))).model.variables
    _, built = train(config, cluster, steps=2)
    for before, after in zip(initial, built.model.variables):
        assert np.array_equal(before.numpy(), after.numpy()) == ("conv_0" in after.path), after.path
