"""What features depend on is in the name of their folder, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import modules
import pytest

from trainer.config import Config
from trainer.data.images import PREPROCESSING_VERSION, ImageInput
from trainer.features.recipe import Recipe, View, module_digest, recipes

RECIPE = Recipe(module="abc", image_size=224, resize="crop", view=View(0, 7, ("crop", "flip"), 0.5))


def config(**fields: Any) -> Config:
    return Config.parse({"data": "synthetic:3", "backbone": "/somewhere"} | fields)


@pytest.mark.parametrize(
    "change",
    [
        {"module": "abd"},
        {"image_size": 192},
        {"resize": "squash"},
        {"preprocessing": PREPROCESSING_VERSION + 1},
        {"precision": "bfloat16"},
        {"view": None},
        {"view": View(1, 7, ("crop", "flip"), 0.5)},
        {"view": View(0, 8, ("crop", "flip"), 0.5)},
        {"view": View(0, 7, ("flip",), 0.5)},
        {"view": View(0, 7, ("crop", "flip"), 0.25)},
    ],
    ids=str,
)
def test_every_ingredient_changes_the_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(RECIPE, **change).key != RECIPE.key


def test_the_same_recipe_has_the_same_key_in_every_process() -> None:
    assert dataclasses.replace(RECIPE).key == RECIPE.key
    assert len(RECIPE.key) == 32 and int(RECIPE.key, 16)
    assert json.loads(RECIPE.to_json())["view"] == {
        "number": 0,
        "seed": 7,
        "augment": ["crop", "flip"],
        "randaugment": 0.5,
    }


def test_head_optimizer_split_and_seed_are_not_in_the_recipe() -> None:
    image_input = ImageInput(8, "crop")
    plain, views = recipes(config(), "m", image_input)
    assert views == []
    other = config(optimizer="sgd", learning_rate=1.0, dropout=0.5, seed=9, splits="50,25,25", epochs=99)
    assert recipes(other, "m", image_input)[0] == plain


def test_each_view_has_a_recipe_of_its_own_and_the_order_of_operations_does_not_count() -> None:
    image_input = ImageInput(8, "squash")
    plain, views = recipes(config(augment="flip,crop", feature_cache_views=3, seed=5), "m", image_input)
    assert plain.view is None and plain.resize == "squash"
    assert [view.view for view in views] == [View(number, 5, ("crop", "flip"), 0.0) for number in range(3)]
    assert len({recipe.key for recipe in [plain, *views]}) == 4
    assert recipes(config(augment="crop,flip", feature_cache_views=3, seed=5), "m", image_input)[1] == views


def test_a_module_is_its_files_and_not_its_place(tmp_path: Path) -> None:
    folder = modules.with_training(tmp_path / "module")
    digest = module_digest(str(folder))
    assert module_digest(f"{shutil.copytree(folder, tmp_path / 'copy')}/") == digest
    data = folder / "variables" / "variables.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert module_digest(str(folder)) != digest
    data.write_bytes(content)
    assert module_digest(str(folder)) == digest
    (folder / "saved_model.pb").rename(folder / "saved_model.pb2")
    assert module_digest(str(folder)) != digest
