"""Exports: served by TensorFlow alone, checked before they are published, and modules for the next run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import image_folders
import modules
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from processes import assert_gone

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.data.images import ImageInput, decode, unit_range
from trainer.errors import EXIT_DONE
from trainer.export import fresh_process, saved_model
from trainer.export.fresh_process import FreshProcess, ParityError, Probe
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.storage import RunDirectory

EMPTY = np.zeros(0, np.float32)

CLASSES = {"blue tit": 12, "größe": 12}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on small photos whose export passed the gate."""
    folder = tmp_path_factory.mktemp("export")
    photos = image_folders.write_classes(folder / "photos", CLASSES)
    config = Config(data=f"folder:{photos}", epochs=1, batch_size=6, image_size=8, run_dir=str(folder / "run"))
    assert run.execute(config, quiet=True) == EXIT_DONE
    return folder / "run"


def encodings() -> dict[str, bytes]:
    """One picture as the four kinds of file that are served."""
    pixels = image_folders.gradient()
    gif = io.BytesIO()
    frames = [Image.fromarray(image_folders.gradient(shift=shift)) for shift in (0, 99)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    kinds = {kind: image_folders.encoded(pixels, kind) for kind in ("JPEG", "PNG", "BMP")}
    return kinds | {"GIF": gif.getvalue()}


def test_serving_default_takes_every_kind_of_file_in_one_batch(finished: Path) -> None:
    served = tf.saved_model.load(str(finished / "export")).signatures["serving_default"]
    answers = served(image_bytes=tf.constant(list(encodings().values())))
    assert set(answers) == {"probabilities", "label", "class_id"}
    probabilities = answers["probabilities"].numpy()
    assert probabilities.shape == (4, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities[1], probabilities[2])  # PNG and BMP have the very same pixels.
    np.testing.assert_allclose(probabilities[3], probabilities[1], atol=0.1)  # The first frame of the GIF.
    names = list(CLASSES)
    assert [label.decode() for label in answers["label"].numpy()] == [names[i] for i in probabilities.argmax(axis=1)]


def test_a_large_jpeg_is_served_as_it_is_trained_on(finished: Path) -> None:
    photo = tf.constant(image_folders.encoded(image_folders.gradient(90, 130), "JPEG"))
    signatures = tf.saved_model.load(str(finished / "export")).signatures
    served = signatures["serving_default"](image_bytes=photo[tf.newaxis])["probabilities"].numpy()

    def of_pixels(pixels: tf.Tensor) -> np.ndarray:
        return np.asarray(signatures["from_pixels"](pixels=unit_range(pixels[tf.newaxis]))["probabilities"])

    image_input = ImageInput(8, "crop")
    np.testing.assert_allclose(served, of_pixels(image_input.from_encoded(photo)), atol=1e-6)
    assert np.abs(served - of_pixels(image_input(decode(photo)))).max() > 1e-4  # At full scale it would be another.


def test_from_pixels_gives_logits_too(finished: Path) -> None:
    loaded = tf.saved_model.load(str(finished / "export"))
    answers = loaded.signatures["from_pixels"](pixels=tf.random.stateless_uniform([3, 8, 8, 3], [1, 2]))
    assert set(answers) == {"probabilities", "label", "class_id", "logits"}
    np.testing.assert_allclose(tf.nn.softmax(answers["logits"]), answers["probabilities"], atol=1e-6)


def test_labels_are_an_asset(finished: Path) -> None:
    assert (finished / "export" / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)


def test_a_process_with_tensorflow_alone_can_serve_it(finished: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encodings()["PNG"])
    code = (
        "import sys, json\n"
        "sys.modules.update(dict.fromkeys(('jax', 'matplotlib', 'sklearn')))\n"  # Keras takes what it finds.
        "import tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "answer = model.signatures['serving_default'](image_bytes=tf.constant([open(sys.argv[2], 'rb').read()]))\n"
        "assert not any(name.split('.')[0] in ('trainer', 'tensorflow_hub') for name in sys.modules)\n"
        "print(json.dumps(answer['probabilities'].numpy().tolist()))\n"
    )
    command = [sys.executable, "-I", "-c", code, str(finished / "export"), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    elsewhere = np.array(json.loads(done.stdout))
    served = tf.saved_model.load(str(finished / "export")).signatures["serving_default"]
    here = served(image_bytes=tf.constant([photo.read_bytes()]))["probabilities"].numpy()
    np.testing.assert_allclose(elsewhere, here, atol=1e-6)


def test_weights_are_stored_once(finished: Path) -> None:
    for folder, head in (("export", 2 * 1024 + 2), ("export/feature_vector", 0)):
        reader = tf.train.load_checkpoint(str(finished / folder / "variables" / "variables"))
        stored = sum(int(np.prod(shape)) for shape in reader.get_variable_to_shape_map().values())
        config = Config(backbone="convnet", image_size=8)
        backbone = sum(int(np.prod(variable.shape)) for variable in _backbone(config).variables)
        assert backbone <= stored - head <= backbone + 10, folder


def _backbone(config: Config) -> Any:
    from trainer.model.backbone import build_backbone

    return build_backbone(config, None)


@pytest.mark.parametrize("train", [False, True])
def test_the_export_is_the_next_runs_backbone(finished: Path, tmp_path: Path, train: bool) -> None:
    handle = str(finished / "export" / "feature_vector")
    config = Config(data="synthetic:2", backbone=handle, train_backbone=train, batch_size=8)
    backbone = _backbone(config)
    original = tf.saved_model.load(handle)
    pixels = tf.random.stateless_uniform([2, 8, 8, 3], [3, 4])
    np.testing.assert_allclose(backbone(pixels), original(pixels), atol=1e-6)
    assert bool(backbone.trainable_variables) == train
    if train:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(backbone(pixels, training=True) ** 2)
        gradients = tape.gradient(loss, [variable.value for variable in backbone.trainable_variables])
        assert all(gradient is not None and np.abs(gradient.numpy()).max() > 0 for gradient in gradients)


def test_a_hub_module_published_again_keeps_its_losses_and_its_training_mode(tmp_path: Path) -> None:
    module = modules.with_training(tmp_path / "module")
    config = Config(data="synthetic:2", backbone=str(module), epochs=1, batch_size=64, run_dir=str(tmp_path / "r"))
    assert run.execute(config, quiet=True) == EXIT_DONE
    again = _backbone(Config(backbone=str(tmp_path / "r" / "export" / "feature_vector"), train_backbone=True))
    first = _backbone(Config(backbone=str(module), train_backbone=True))
    np.testing.assert_allclose(again.regularization_loss(), first.regularization_loss(), rtol=1e-6)
    assert again.hub_module.takes_training


class TestGate:
    """What does not answer like the model in memory is not published."""

    def test_a_model_that_changes_in_saving_fails_the_run_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = saved_model._save_classifier

        def save_something_else(model: Any, names: Any, path: str) -> None:
            model.head.kernel.assign(model.head.kernel * 1.001)
            save(model, names, path)

        monkeypatch.setattr(saved_model, "_save_classifier", save_something_else)
        config = Config(data="synthetic:2", epochs=1, batch_size=64, image_size=8, run_dir=str(tmp_path / "r"))
        with pytest.raises(ParityError, match="probabilities of serving_default differ by"):
            run.execute(config, quiet=True)
        assert not (tmp_path / "r" / "export").exists()
        assert [path.name for path in (tmp_path / "r").iterdir() if "export" in path.name] == []
        status = json.loads((tmp_path / "r" / "status.json").read_text(encoding="utf-8"))
        assert (status["state"], status["export"]) == ("failed", None)

    def test_a_process_that_cannot_load_it_is_quoted(self, tmp_path: Path) -> None:
        probe = Probe([encodings()["PNG"]], np.zeros((1, 8, 8, 3), np.float32), EMPTY, EMPTY)
        with FreshProcess() as fresh:
            fresh.ask("classifier", str(tmp_path), probe)
            with pytest.raises(ParityError, match="could not be loaded in a fresh process: OSError"):
                fresh.answers()

    def test_a_process_that_was_killed_is_no_answer(self, tmp_path: Path) -> None:
        probe = Probe([b""], np.zeros((1, 8, 8, 3), np.float32), EMPTY, EMPTY)
        with FreshProcess() as fresh:
            fresh._process.kill()
            fresh._process.wait()
            fresh.ask("classifier", str(tmp_path), probe)
            with pytest.raises(ParityError, match="could not be loaded in a fresh process: no output"):
                fresh.answers()

    def test_a_process_that_does_not_answer_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fresh_process, "TIMEOUT_SECONDS", 0.1)
        with FreshProcess() as fresh:
            with pytest.raises(ParityError, match=r"gave no answer in a fresh process within 0\.1 s"):
                fresh.answers()
            pid = fresh._process.pid
        assert_gone([pid])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"from_pixels/probabilities": [[0.4, 0.6]]}, "probabilities of from_pixels differ by 0.1"),
            ({"serving_default/class_id": [1]}, "class_id of serving_default is not the most probable"),
            ({"serving_default/label": [b"dog"]}, "label of serving_default is not the name"),
            ({"feature_vector": [[1.0, 2.001]]}, "feature vectors differ by 0.000"),
            ({"from_pixels/probabilities": [[np.nan, 0.5]]}, "probabilities of from_pixels differ by nan"),
        ],
    )
    def test_any_difference_is_named(self, change: dict[str, Any], message: str) -> None:
        pixels, even = np.zeros((1, 8, 8, 3), np.float32), np.full((1, 2), 0.5, np.float32)
        probe = Probe([b""], pixels, even, np.array([[1, 2]], np.float32))
        answers: dict[str, Any] = {"feature_vector": probe.features}
        for signature in ("serving_default", "from_pixels"):
            answers[f"{signature}/probabilities"] = probe.probabilities
            answers[f"{signature}/class_id"] = [0]
            answers[f"{signature}/label"] = [b"cat"]
        saved_model.compare(probe, ["cat", "dog"], answers)
        broken = answers | {name: np.array(value) for name, value in change.items()}
        with pytest.raises(ParityError, match=message):
            saved_model.compare(probe, ["cat", "dog"], broken)


def test_an_earlier_export_stands_until_the_new_one_has_passed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory(str(tmp_path))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "old").write_text("old", encoding="utf-8")

    def fail(self: FreshProcess) -> dict[str, Any]:
        raise ParityError("no")

    monkeypatch.setattr(FreshProcess, "answers", fail)
    config = Config(data="synthetic:2", batch_size=8, image_size=8)
    prepared = prepare(config, connect(config), Console(quiet=True))
    model = build(prepared).model
    with pytest.raises(ParityError):
        saved_model.export_model(model, ["a", "b"], [encodings()["PNG"]], directory)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (tmp_path / "export" / "old").exists()
