"""The strategy never changes the result: five ways to share a global batch train the same losses and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equivalence
import modules
import numpy as np
import pytest
from equivalence import BUILT_IN, CASES, HUB_MODULE, ONE_REPLICA, SETUPS, STEPS, UPDATED_STATISTICS, Inputs, Trained
from numpy.typing import NDArray

from trainer.cluster import connect
from trainer.config import Config
from trainer.preparation import Built, build, prepare
from trainer.records.console import Console

pytestmark = pytest.mark.strategies

SAMPLE: dict[tuple[str, str], list[pytest.MarkDecorator]] = {
    ("all with sgd", "2 of 4"): [],
    ("all with momentum", "4 of 2"): [],
    ("all with adam", "2 processes of 4"): [pytest.mark.slow],
    ("all with adamw", "2 processes x 2 of 2"): [],
    ("groups", "2 of 4"): [],
    ("mixed images", "2 processes x 2 of 2"): [],
}
"""A sample of the matrix, and how its tests are marked; all of it takes a quarter of an hour."""

TIGHT = 1e-9
"""Largest relative difference of a loss, and absolute one of a weight, in float64."""

LOOSE = 1e-4
"""Largest relative difference of a loss in float32."""


def matrix() -> list[Any]:
    """Every case under every setup; what is not in the sample is marked as long."""
    setups = [name for name in SETUPS if name != ONE_REPLICA]
    pairs = [(case, setup) for case in [*BUILT_IN, *HUB_MODULE] for setup in setups]
    return [pytest.param(*pair, marks=SAMPLE.get(pair, [pytest.mark.long])) for pair in pairs]


class Lab:
    """Trains what is asked for, each case once under each setup; processes train all their cases in one go."""

    def __init__(self, chosen: set[tuple[str, str]], inputs: Callable[[], Inputs]) -> None:
        self._chosen = chosen
        self._inputs = inputs
        self._found: dict[tuple[str, str], list[Trained]] = {}

    def trained(self, case: str, setup_name: str) -> list[Trained]:
        """What each process got."""
        if (case, setup_name) not in self._found:
            setup = SETUPS[setup_name]
            inputs = Inputs() if case in BUILT_IN else self._inputs()
            if setup.processes == 1:
                self._found[case, setup_name] = [equivalence.train_here(case, inputs, setup)]
            else:
                cases = [each for each in CASES if (each, setup_name) in self._chosen]
                alike = [each for each in cases if (each in BUILT_IN) == (case in BUILT_IN)]
                for each, trained in equivalence.train_in_processes(alike, inputs, setup).items():
                    self._found[each, setup_name] = trained
        return self._found[case, setup_name]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Lab:
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    here = [item for item in functions if item.path == request.path]  # Other files have a `lab` of their own.
    rows = [item.callspec.params for item in here if "lab" in item.fixturenames]
    chosen = {(str(row["case"]), str(row["setup"])) for row in rows}

    def inputs() -> Inputs:
        module = request.getfixturevalue("hub_module")("mobilenet_v2_035_224_feature_vector")
        return Inputs(str(module), str(request.getfixturevalue("flower_photos")))

    return Lab(chosen, inputs)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("case", "setup"), matrix())
def test_the_replicas_change_nothing(lab: Lab, case: str, setup: str) -> None:
    (reference,) = lab.trained(case, ONE_REPLICA)
    assert np.abs(reference.losses[0] - reference.losses[-1]) > 0.1  # It did learn something to compare.
    for trained in lab.trained(case, setup):
        losses, weights = reference.largest_difference(trained)
        assert len(trained.losses) == STEPS[case]
        assert losses <= (TIGHT if case in BUILT_IN else LOOSE)
        assert weights <= (TIGHT if case in BUILT_IN else LOOSE)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("case", "setup"), [(UPDATED_STATISTICS, "2 processes x 2 of 2")])
def test_updated_statistics_never_differ_between_replicas(lab: Lab, case: str, setup: str) -> None:
    """The replicas of a process are compared where it trains."""
    first, *others = lab.trained(case, setup)
    for other in others:
        assert first.weights.keys() == other.weights.keys()
        for path, value in first.weights.items():
            np.testing.assert_array_equal(value, other.weights[path], err_msg=path)


TWO_REPLICAS: dict[str, Any] = {"strategy": "mirrored", "virtual_devices": 2}


def train(steps: int = 20, **fields: Any) -> tuple[NDArray[np.float64], Built]:
    """The losses of some steps on generated images, and the model after them."""
    config = Config.parse({"data": "synthetic:3", "image_size": 8, "batch_size": 8} | fields)
    trained, built = equivalence.train(config, connect(config), steps)
    return trained.losses, built


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_two_replicas_equal_one_that_computes_in_two_pieces_to_the_last_bit(optimizer: str) -> None:
    """What differs between 1 replica of 8 and 2 of 4 is the rounding of 8 images at once or of 4: take that away."""
    fields: dict[str, Any] = {"optimizer": optimizer, "dropout": 0.3, "clip_norm": 0.5, "augment": ("flip",)}
    pieces, one = train(**fields, accumulation_steps=2)
    replicas, two = train(**fields, **TWO_REPLICAS)
    np.testing.assert_array_equal(pieces, replicas)
    for mine, theirs in zip(one.model.trainable_variables, two.model.trainable_variables):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_fine_tuned_module_drifts_on_two_replicas_as_it_does_in_two_pieces(
    hub_module: Callable[[str], Path], flower_photos: Path
) -> None:
    """At a rate at which float32 does tell 1 replica of 8 from 2 of 4: by rounding, and by nothing else."""
    fields: dict[str, Any] = {
        "data": f"folder:{flower_photos}",
        "backbone": str(hub_module("mobilenet_v2_035_224_feature_vector")),
        **HUB_MODULE["fine-tuned module"],
        "optimizer": "momentum",
        "learning_rate": 1e-3,
        "lr_scale": (),
    }
    whole, _ = train(50, **fields)
    pieces, _ = train(50, **fields, accumulation_steps=2)
    replicas, _ = train(50, **fields, **TWO_REPLICAS)
    assert np.max(np.abs(whole - replicas) / whole) > LOOSE  # Otherwise the next line would say little.
    np.testing.assert_array_equal(pieces, replicas)


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
    published = build(prepare(config, connect(config), Console(quiet=True))).model.backbone.variables
    before = [variable.numpy() for variable in published]
    _, frozen = train(3, backbone=str(module), weight_decay=0.1)
    for value, variable in zip(before, frozen.model.backbone.variables):
        np.testing.assert_array_equal(value, variable.numpy())
    _, tuned = train(3, backbone=str(module), train_backbone=True)
    for value, variable in zip(before, tuned.model.backbone.variables):
        moved = not np.array_equal(value, variable.numpy())
        assert moved == variable.trainable, variable.path
