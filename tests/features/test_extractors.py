"""All engines give the module's features, and of each image the same ones whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import modules
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.data.images import unit_range
from trainer.features import engine as engine_module
from trainer.features import extractors, tflite
from trainer.features.engine import Engine
from trainer.features.extractors import (
    CPU_BATCH,
    LEAST_COSINE,
    ConstantsExtractor,
    Extractor,
    Features,
    Pixels,
    StrategyExtractor,
    cosines,
    extract_all,
    traced,
)
from trainer.features.tflite import NotConvertibleError, TfliteExtractor, converted
from trainer.model.backbone import HubBackbone, build_backbone
from trainer.model.hub import HubModule, load_module
from trainer.storage import RunDirectory

SMALL_MOBILENET = "mobilenet_v2_035_224_feature_vector"


def load(folder: Path) -> HubModule:
    with tf.device("/cpu:0"):
        return load_module(str(folder), str(folder), 0)


def noise(size: int, batch: int = CPU_BATCH, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3), np.uint8)


def said_by(module: HubModule, pixels: Pixels) -> NDArray[np.float32]:
    """What the module itself says."""
    features: NDArray[np.float32] = module.apply(unit_range(tf.constant(pixels)), False).numpy()
    return features


def assert_is_the_module(extractor: Extractor, module: HubModule, atol: float = 1e-5) -> None:
    """Right features, the same in any order and beside any others."""
    assert module.image_size
    pixels = noise(module.image_size, extractor.batch)
    features = extractor(pixels)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, said_by(module, pixels), atol=atol)
    order = np.random.default_rng(1).permutation(extractor.batch)
    np.testing.assert_array_equal(extractor(pixels[order]), features[order])
    alone = np.zeros_like(pixels)
    alone[2] = pixels[5]
    np.testing.assert_array_equal(extractor(alone)[2], features[5])


@pytest.mark.parametrize(
    "build", [modules.with_training, modules.inference_only, modules.signatures_only, modules.tf1_format]
)
def test_constants_say_what_the_module_says(build: Callable[[Path], Path], tmp_path: Path) -> None:
    module = load(build(tmp_path / "module"))
    assert_is_the_module(ConstantsExtractor(module, ["/cpu:0"], 6), module)


@pytest.mark.parametrize("build", [modules.with_training, modules.inference_only, modules.signatures_only])
def test_tflite_says_what_the_module_says(build: Callable[[Path], Path], tmp_path: Path) -> None:
    module = load(build(tmp_path / "module"))
    model = converted(module, traced(module, CPU_BATCH), RunDirectory(str(tmp_path / "cache")))
    assert_is_the_module(TfliteExtractor(model, 2), module)


@pytest.mark.slow
def test_a_real_module(hub_module: Callable[[str], Path], tmp_path: Path) -> None:
    module = load(hub_module(SMALL_MOBILENET))
    pixels = noise(224)
    expected = said_by(module, pixels)
    order = np.random.default_rng(1).permutation(CPU_BATCH)
    for extractor in (
        ConstantsExtractor(module, ["/cpu:0"], CPU_BATCH),
        TfliteExtractor(converted(module, traced(module, CPU_BATCH), RunDirectory(str(tmp_path))), 2),
    ):
        features = extractor(pixels)
        np.testing.assert_allclose(features, expected, atol=1e-4)
        assert cosines(features, expected).min() > 0.999999
        np.testing.assert_array_equal(extractor(pixels[order]), features[order])


def test_several_devices_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    device = tf.device

    def noting(name: str) -> Any:
        used.append(name)
        return device(name)

    module = load(modules.with_training(tmp_path / "module"))
    extractor = ConstantsExtractor(module, ["/cpu:0", "/cpu:1"], 2)
    assert extractor.calls_at_once == 2
    monkeypatch.setattr(extractors.tf, "device", noting)
    batches = [noise(8, 2, seed) for seed in range(4)]
    features: list[Features] = []
    extract_all(extractor, batches, features.append)
    assert sorted(used) == ["/cpu:0", "/cpu:0", "/cpu:1", "/cpu:1"]
    for pixels, said in zip(batches, features, strict=True):
        np.testing.assert_allclose(said, said_by(module, pixels), atol=1e-6)


def test_results_come_in_the_order_of_the_batches() -> None:
    class Slow:
        name, batch, calls_at_once = "slow", 1, 3

        def __call__(self, pixels: Pixels) -> Features:
            number = int(pixels[0, 0, 0, 0])
            time.sleep(0.02 * (number % 3 == 0))
            return np.full((1, 1), number, np.float32)

    taken: list[float] = []
    batches = (np.full((1, 1, 1, 3), number, np.uint8) for number in range(10))
    extract_all(Slow(), batches, lambda features: taken.append(float(features[0, 0])))
    assert taken == list(range(10))


def test_the_strategy_computes_on_all_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "ACCELERATOR_BATCH", 3)
    cluster, backbone = on_replicas(modules.with_training(tmp_path / "module"), 2)
    extractor = StrategyExtractor(backbone, cluster)
    assert extractor.batch == 6
    assert_is_the_module(extractor, backbone.hub_module)


def on_replicas(module: Path, replicas: int) -> tuple[Cluster, HubBackbone]:
    """A frozen backbone under mirrored CPU replicas, or on one device."""
    several: dict[str, Any] = {"strategy": "mirrored", "virtual_devices": replicas} if replicas > 1 else {}
    config = Config.parse({"data": "synthetic:2", "backbone": str(module), "batch_size": 8} | several)
    cluster = connect(config)
    with cluster.strategy.scope():
        backbone = build_backbone(config, native_size=8)
    assert isinstance(backbone, HubBackbone)
    return cluster, backbone


class Choice:
    """Lets an `Engine` choose for a module, and keeps what it says."""

    def __init__(self, module: Path, folder: Path) -> None:
        cluster, backbone = on_replicas(module, 1)
        self.reports: list[str] = []
        self.engine = Engine(cluster, backbone, lambda: load(module), RunDirectory(str(folder)), self.reports.append)
        self.probe = noise(8)
        self.extractor = self.engine.extractor(self.probe)


def test_a_cpu_takes_tflite_where_it_agrees(tmp_path: Path) -> None:
    choice = Choice(modules.with_training(tmp_path / "module"), tmp_path / "cache")
    assert isinstance(choice.extractor, TfliteExtractor)
    assert choice.reports == []
    assert choice.engine.name == "TFLite" and choice.engine.batch == choice.extractor.batch
    assert choice.engine.extractor(choice.probe) is choice.extractor


def test_an_engine_that_disagrees_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TfliteExtractor.__call__

    def skewed(self: TfliteExtractor, pixels: Pixels) -> Features:
        features = honest(self, pixels).copy()
        features[3] += [0.2, -0.2, 0.0, 0.0]  # One image of the probe is enough.
        return features

    monkeypatch.setattr(TfliteExtractor, "__call__", skewed)
    choice = Choice(modules.with_training(tmp_path / "module"), tmp_path / "cache")
    assert isinstance(choice.extractor, ConstantsExtractor)
    assert len(choice.reports) == 1
    assert choice.reports[0].startswith("TensorFlow computes the features, because TFLite's differ too much (cosine")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_engine_that_gives_no_numbers_is_not_taken(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TfliteExtractor, "__call__", lambda self, pixels: np.full((len(pixels), 4), value, np.float32))
    choice = Choice(modules.with_training(tmp_path / "module"), tmp_path / "cache")
    assert isinstance(choice.extractor, ConstantsExtractor) and len(choice.reports) == 1


def test_a_module_that_tflite_does_not_take_is_computed_by_tensorflow(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def by_strings(images: tf.Tensor) -> tf.Tensor:
        means = tf.reduce_mean(images, [1, 2])
        return tf.strings.to_number(tf.strings.as_string(means, precision=6))

    folder = modules.computing(tmp_path / "module", modules.images_spec(), by_strings)
    capfd.readouterr()
    choice = Choice(folder, tmp_path / "cache")
    assert isinstance(choice.extractor, ConstantsExtractor)
    (report,) = choice.reports
    assert report.startswith("TensorFlow computes the features, because TFLite does not take this module (")
    assert "\n" not in report
    assert capfd.readouterr().err == ""


def test_the_old_format_is_not_even_tried(tmp_path: Path) -> None:
    choice = Choice(modules.tf1_format(tmp_path / "module"), tmp_path / "cache")
    assert choice.reports == [
        "TensorFlow computes the features, because TFLite does not take this module (the old TF1 format)."
    ]


def test_a_conversion_is_kept_and_a_damaged_one_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, folder = load(modules.with_training(tmp_path / "module")), RunDirectory(str(tmp_path / "cache"))
    conversions: list[HubModule] = []
    convert = tflite._convert

    def counted(module: HubModule, function: tf.types.experimental.ConcreteFunction) -> bytes:
        conversions.append(module)
        return convert(module, function)

    monkeypatch.setattr(tflite, "_convert", counted)
    function = traced(module, CPU_BATCH)
    model = converted(module, function, folder)
    assert converted(module, function, folder) == model
    assert len(conversions) == 1
    file = tmp_path / "cache" / "module.tflite"
    file.write_bytes(file.read_bytes()[:-1])
    assert converted(module, function, folder) == model
    assert len(conversions) == 2
    assert converted(module, function, folder) == model
    assert len(conversions) == 2


def test_a_model_that_this_machine_cannot_run_is_not_convertible() -> None:
    with pytest.raises(NotConvertibleError):
        TfliteExtractor(b"no model at all", 2)


def test_gpus_get_constants_in_large_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice alone: no GPU is here to compute."""
    made: dict[str, Any] = {}

    def note(module: HubModule, devices: list[str], batch: int) -> object:
        made.update(devices=devices, batch=batch)
        return made

    cluster, backbone = on_replicas(modules.with_training(tmp_path / "module"), 1)
    cluster = dataclasses.replace(cluster, device_type="GPU")
    monkeypatch.setattr(engine_module, "ConstantsExtractor", note)
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{number}", "GPU") for number in range(2)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus if kind == "GPU" else [])
    engine = Engine(cluster, backbone, lambda: backbone.hub_module, RunDirectory(str(tmp_path / "c")), print)
    assert cast(object, engine.extractor(noise(8))) is made
    assert made == {"devices": ["/device:GPU:0", "/device:GPU:1"], "batch": extractors.ACCELERATOR_BATCH}
    assert engine.batch == extractors.ACCELERATOR_BATCH


def test_cosines() -> None:
    one = np.array([[1.0, 0], [0, 0], [1, 1], [3, 4], [0, 0]], np.float32)
    other = np.array([[2.0, 0], [0, 0], [1, -1], [4, 3], [1, 0]], np.float32)
    np.testing.assert_allclose(cosines(one, other), [1, 1, 0, 0.96, 0])
    assert 0 < LEAST_COSINE < 1
