"""Runs on features that are computed once: the same classifier, and nothing computed twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image_folders
import modules
import numpy as np
import pytest
import tensorflow as tf
from kill_workers import variables_of
from PIL import Image

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.features.once import RunFeatures
from trainer.features.table import FeatureTable
from trainer.preparation import build, features_once, prepare
from trainer.records.console import Console
from trainer.training.actions import SaveCheckpoint
from trainer.training.loop import Boundary

IMAGES = 60
LONG_AGO_NANOSECONDS = 10**18


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty images, each of its own colour with noise."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    random = np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for image in range(IMAGES // 3):
            pixels = random.integers(0, 120, (10, 14, 3), np.uint8)
            pixels[..., number] += 90
            Image.fromarray(pixels).save(root / name / f"{image:03d}.png")
    return root


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return modules.with_training(tmp_path_factory.mktemp("module") / "module")


@pytest.fixture
def config_of(photos: Path, module: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes the Config of a small run; the cache is in a folder of the test."""

    def config(name: str = "r", **fields: Any) -> Config:
        usual = {
            "data": f"folder:{photos}",
            "backbone": str(module),
            "feature_cache": str(tmp_path / "cache"),
            "run_dir": str(tmp_path / name),
            "epochs": 3,
            "batch_size": 8,
        }
        return Config.parse(usual | fields)

    yield config


def features_of(config: Config) -> RunFeatures | None:
    prepared = prepare(config, connect(config), Console(quiet=True))
    return features_once(prepared, build(prepared).model, Console(quiet=True))


def rows_of(table: FeatureTable, first: int, count: int) -> np.ndarray:
    """Some rows of a table."""
    features: np.ndarray = table.reader()(tf.range(first, first + count, dtype=tf.int64)).numpy()
    return features


def computed_now(config: Config) -> int:
    """How many images go through the module now."""
    features = features_of(config)
    assert features is not None
    _, _, rest = features.summary.partition(": ")
    return 0 if rest.startswith("all found in") else int(rest.split()[0])


def status_of(config: Config) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(config.run_dir, "status.json").read_text(encoding="utf-8"))
    return loaded


def metrics_of(config: Config) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    lines = Path(config.run_dir, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    timed = ("time", "seconds", "examples_per_second")
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]


def numbers(config: Config) -> list[float]:
    return [value for line in metrics_of(config) for key, value in sorted(line.items()) if key in ("loss", "accuracy")]


@pytest.mark.long
@pytest.mark.strategies
def test_the_classifier_is_that_of_a_run_without_cache(config_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    learning = {"epochs": 6, "learning_rate": 0.3}
    cached, uncached = config_of("cached", **learning), config_of("uncached", **learning, feature_cache="off")
    assert run.execute(cached) == EXIT_DONE
    assert f"of {IMAGES} images: {IMAGES} computed now by TFLite, kept in {cached.feature_cache}" in (
        capsys.readouterr().out
    )
    assert run.execute(uncached) == EXIT_DONE
    assert "features computed in every epoch: --feature_cache=off" in capsys.readouterr().out
    assert len(metrics_of(cached)) == len(metrics_of(uncached)) > 3
    np.testing.assert_allclose(numbers(cached), numbers(uncached), atol=1e-4)
    for config in (cached, uncached):
        assert status_of(config)["test"]["accuracy"] > 0.9
    exports = [tf.saved_model.load(f"{config.run_dir}/export") for config in (cached, uncached)]
    pixels = tf.random.stateless_uniform([4, modules.IMAGE_SIZE, modules.IMAGE_SIZE, 3], [1, 2])
    answers = [export.signatures["from_pixels"](pixels=pixels)["probabilities"].numpy() for export in exports]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


def test_another_head_optimizer_split_or_seed_computes_nothing(config_of: Any) -> None:
    assert computed_now(config_of()) == IMAGES
    for fields in (
        {},
        {"optimizer": "sgd", "learning_rate": 0.5, "dropout": 0.5, "epochs": 50},
        {"splits": "50,25,25"},
        {"seed": 9},
        {"examples_per_class": 2},
        {"batch_size": 16, "strategy": "mirrored", "virtual_devices": 2},
        {"classes": "red,blue"},
    ):
        assert computed_now(config_of(**fields)) == 0, fields


def test_what_changes_features_computes_them_anew(config_of: Any, tmp_path: Path) -> None:
    assert computed_now(config_of()) == IMAGES
    assert computed_now(config_of(resize="squash")) == IMAGES
    other = modules.inference_only(tmp_path / "other")
    assert computed_now(config_of(backbone=str(other))) == IMAGES
    assert computed_now(config_of()) == 0


def test_one_changed_or_new_image_computes_one(config_of: Any, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(photos, tmp_path / "copy")
    config = config_of(data=f"folder:{copy}")
    assert computed_now(config_of()) == IMAGES
    assert computed_now(config) == 0  # The same images elsewhere.
    image_folders.write_image(copy / "red" / "005.png", shift=3)
    assert computed_now(config) == 1
    image_folders.write_image(copy / "red" / "new.png", shift=4)
    assert computed_now(config) == 1
    (copy / "red" / "new.png").rename(copy / "red" / "renamed.png")
    assert computed_now(config) == 0


def test_views_are_kept_each_for_itself(config_of: Any) -> None:
    views = {"augment": "flip,crop", "feature_cache_views": 2}
    train = round(IMAGES * 0.75)
    first = features_of(config_of(**views))
    assert first is not None and first.train.views == 2
    trained = first.train.table.rows // 2
    plain = features_of(config_of())
    assert plain is not None
    assert f": {trained} computed now" in plain.summary  # The training images as they are; the others were there.
    variants = [rows_of(first.train.table, view * trained, trained) for view in range(2)]
    for one, other in (
        (variants[0], variants[1]),
        *((each, rows_of(plain.train.table, 0, trained)) for each in variants),
    ):
        assert (np.abs(one - other).max(axis=1) > 1e-3).mean() > 0.8
    assert abs(trained - train) < 12
    assert f"of {IMAGES} images, 2 variants of each training image: {IMAGES + trained} computed" in first.summary
    assert computed_now(config_of(**views)) == 0
    assert computed_now(config_of(**views | {"feature_cache_views": 3})) == trained
    assert computed_now(config_of(**views, learning_rate=0.5)) == 0
    assert computed_now(config_of(**views, seed=1)) == 2 * trained


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"augment": "flip"}, "--augment"),
        ({"randaugment": 0.5}, "--randaugment"),
        ({"train_backbone": True}, "the backbone is trained"),
        ({"feature_cache": "off"}, "--feature_cache=off"),
    ],
)
def test_where_it_would_be_wrong_it_is_off_and_says_why(
    fields: dict[str, Any], reason: str, config_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(**fields)
    prepared = prepare(config, connect(config), Console(quiet=True))
    assert features_once(prepared, build(prepared).model, Console()) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("features") and "computed in every epoch: " in line and reason in line
    assert not (tmp_path / "cache").exists()


def test_one_line_says_what_was_done_and_progress_comes_before(
    config_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for expected in (f"{IMAGES} computed now by TFLite, kept in ", "all found in "):
        config = config_of()
        prepared = prepare(config, connect(config), Console(quiet=True))
        features_once(prepared, build(prepared).model, Console())
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith("features ") and line.endswith(f": {expected}{config.feature_cache}")


def test_a_home_that_cannot_be_written_costs_the_cache_and_not_the_run(
    config_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    config = config_of(feature_cache="auto")
    prepared = prepare(config, connect(config), Console(quiet=True))
    features = features_once(prepared, build(prepared).model, Console())
    assert features is not None and features.summary.endswith(f"{IMAGES} computed now by TFLite, kept for this run")
    said = capsys.readouterr().out
    assert f"kept for this run only, not in {tmp_path}/home/hub-trainer/features (Not a directory)" in said
    assert "--feature_cache names another place" in said


def test_by_default_features_are_kept_in_the_users_cache(
    config_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert computed_now(config_of(feature_cache="auto")) == IMAGES
    assert computed_now(config_of(feature_cache="auto")) == 0
    assert list((tmp_path / "home" / "hub-trainer" / "features" / "v1").iterdir())


@pytest.mark.strategies
def test_replicas_train_alike_on_features(config_of: Any, no_export: None) -> None:
    one, two = config_of("one"), config_of("two", strategy="mirrored", virtual_devices=2)
    for config in (one, two):
        assert run.execute(config, quiet=True) == EXIT_DONE
    assert len(numbers(one)) == len(numbers(two)) > 10
    np.testing.assert_allclose(numbers(one), numbers(two), atol=1e-5)


def test_a_run_on_features_goes_on_where_it_was(
    config_of: Any, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = config_of("whole", dropout=0.3), config_of("stopped", dropout=0.3)
    assert run.execute(whole, quiet=True) == EXIT_DONE
    save = SaveCheckpoint.__call__

    def save_and_stop(self: SaveCheckpoint, boundary: Boundary) -> None:
        save(self, boundary)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SaveCheckpoint, "__call__", save_and_stop)
        assert run.execute(stopped, quiet=True) == EXIT_PREEMPTED
    assert run.execute(stopped, quiet=True) == EXIT_DONE
    assert metrics_of(stopped) == metrics_of(whole)
    one, other = (variables_of(Path(config.run_dir)) for config in (whole, stopped))
    assert one.keys() == other.keys() and len(one) > 3
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_more_features_than_fit_in_memory_give_the_same_run(
    config_of: Any, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = config_of("small"), config_of("large")
    assert run.execute(small, quiet=True) == EXIT_DONE
    monkeypatch.setattr(FeatureTable.__init__, "__defaults__", (16,))
    assert run.execute(large, quiet=True) == EXIT_DONE
    assert metrics_of(large) == metrics_of(small)


def test_an_image_that_cannot_be_decoded_is_named(config_of: Any, photos: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(photos, tmp_path / "copy"))
    good = (copy / "red" / "005.png").read_bytes()
    (copy / "red" / "005.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r"red/005\.png"):
        run.execute(config_of(data=f"folder:{copy}", on_bad_image="fail"), quiet=True)
