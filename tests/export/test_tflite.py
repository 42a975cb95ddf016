"""TFLite files: what they are, how accurate, and what is not published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import modules
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from runs import status_of

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.data.sources import open_source
from trainer.data.splits import split_examples
from trainer.errors import EXIT_DONE, UserError
from trainer.export import tflite as export_tflite
from trainer.export.fresh_process import Probe
from trainer.export.publish import is_published
from trainer.export.tflite import TfliteFiles, Yardstick
from trainer.export.tflite_classifier import TfliteClassifier
from trainer.export.tflite_conversion import image_input_of
from trainer.features.tflite import quietly
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.storage import RunDirectory

KINDS = ("float16", "int8")
TINY: dict[str, Any] = {"data": "synthetic:3", "image_size": 8, "epochs": 1, "batch_size": 64}


def interpreter_of(path: Path) -> Any:
    with quietly():
        interpreter = tf.lite.Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def tensors(path: Path) -> list[tuple[Any, tuple[int, ...]]]:
    """Type and shape of all tensors in a file, without those that the interpreter's own delegate would add."""
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with quietly():
        interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=resolver)
    return [(tensor["dtype"], tuple(tensor["shape"])) for tensor in interpreter.get_tensor_details()]


def classified(path: Path, pictures: Iterator[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """What a file takes each picture for, as an app would ask it: one after the other, uint8 `[S, S, 3]`."""
    interpreter = interpreter_of(path)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for picture in pictures:
        interpreter.set_tensor(taken["index"], picture[np.newaxis])
        interpreter.invoke()
        found.append(int(np.argmax(interpreter.get_tensor(given["index"]))))
    return np.array(found)


@pytest.fixture(scope="module", autouse=True)
def _no_gate() -> Iterator[None]:
    """The SavedModel's parity gate has its own tests, and starts a process for each export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.export.saved_model.FreshProcess", lambda: mock.MagicMock())
        patch.setattr("trainer.export.saved_model.compare", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run on the digits that exported TFLite files."""
    run_dir = tmp_path_factory.mktemp("tflite") / "run"
    config = Config(data="digits", epochs=3, batch_size=32, export=("saved_model", "tflite"), run_dir=str(run_dir))
    assert run.execute(config, quiet=True) == EXIT_DONE
    return run_dir


class TestFiles:
    """What a run leaves behind."""

    def test_status_says_how_large_and_how_accurate_each_form_is(self, digits: Path) -> None:
        config = Config(data="digits")
        source = open_source(config)
        test = split_examples(source.keys, source.labels, source.class_names, config.splits).test
        pictures = np.stack([tf.io.decode_png(source.encoded(int(index))).numpy() for index in test])
        status = status_of(digits)
        forms = status["exports"]
        assert list(forms) == ["saved_model", "tflite_float16", "tflite_int8"]
        for form in forms.values():
            assert (form["examples"], form["split"], form["refused"]) == (len(test), "test", "")
        assert forms["saved_model"]["accuracy"] == status["test"]["accuracy"]
        assert forms["saved_model"]["path"] == status["export"] == str(digits / "export")
        served = [digits / "export" / name for name in ("saved_model.pb", "fingerprint.pb", "assets/labels.txt")]
        served += (digits / "export" / "variables").iterdir()
        assert forms["saved_model"]["bytes"] == sum(path.stat().st_size for path in served)
        for kind in KINDS:
            path, form = digits / "export" / "tflite" / f"{kind}.tflite", forms[f"tflite_{kind}"]
            assert (form["path"], form["bytes"]) == (str(path), path.stat().st_size)
            right = classified(path, pictures) == source.labels[test]
            assert form["accuracy"] == np.mean(right)
            assert abs(form["accuracy"] - status["test"]["accuracy"]) <= 0.02

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_takes_bytes_and_gives_probabilities(self, digits: Path, kind: str) -> None:
        interpreter = interpreter_of(digits / "export" / "tflite" / f"{kind}.tflite")
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert (taken["dtype"], taken["shape"].tolist()) == (np.uint8, [1, 8, 8, 3])
        assert (given["dtype"], given["shape"].tolist()) == (np.float32, [1, 10])
        interpreter.set_tensor(taken["index"], np.full([1, 8, 8, 3], 200, np.uint8))
        interpreter.invoke()
        assert np.sum(interpreter.get_tensor(given["index"])) == pytest.approx(1, abs=0.03)

    def test_weights_are_of_16_and_of_8_bits(self, digits: Path) -> None:
        folder = digits / "export" / "tflite"
        weights = {"head": 1024 * 10, "convolutions": 9 * (3 * 32 + 32 * 64 + 64 * 64)}
        for kind, dtype in (("float16", np.float16), ("int8", np.int8)):
            sizes = [int(np.prod(shape)) for found, shape in tensors(folder / f"{kind}.tflite") if found == dtype]
            assert sum(sizes) >= sum(weights.values()), kind

    def test_labels_stand_beside_them(self, digits: Path) -> None:
        labels = (digits / "export" / "tflite" / "labels.txt").read_text(encoding="utf-8")
        assert labels == (digits / "export" / "assets" / "labels.txt").read_text(encoding="utf-8")
        assert labels.split() == [str(digit) for digit in range(10)]


def test_tflite_is_added_to_a_run_that_is_done_and_told(
    tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "r"
    config = Config(**TINY, run_dir=str(run_dir))
    assert run.execute(config, quiet=True) == EXIT_DONE
    monkeypatch.undo()
    more = config.model_copy(update={"export": ("tflite",)})
    assert run.execute(more) == EXIT_DONE
    told = capsys.readouterr().out
    assert (run_dir / "export" / "saved_model.pb").is_file()
    for kind in KINDS:
        path = run_dir / "export" / "tflite" / f"{kind}.tflite"
        form = status_of(run_dir)["exports"][f"tflite_{kind}"]
        assert form["bytes"] == path.stat().st_size
        assert f"tflite   {path}, accuracy {form['accuracy']:.4f}, {form['bytes'] / 1e6:.2f} MB\n" in told
    assert run.execute(more) == EXIT_DONE
    assert capsys.readouterr().out.startswith(f"{run_dir} is done")


class TestMinAccuracy:
    """What is not good enough is not published."""

    @pytest.mark.parametrize(("splits", "split"), [((75, 15, 10), "test"), ((75, 25, 0), "validation")])
    def test_a_model_below_it_is_not_published_and_can_be_later(
        self, tmp_path: Path, no_export: None, splits: tuple[int, int, int], split: str
    ) -> None:
        values = TINY | {"learning_rate": 1e-9, "splits": splits, "run_dir": str(tmp_path)}
        with pytest.raises(UserError, match=rf"on the \d+ {split} images is 0\.\d+, below --min_accuracy=0\.9"):
            run.execute(Config(**values, min_accuracy=0.9), quiet=True)
        status = status_of(tmp_path)
        assert (status["state"], status["export"], status["exports"]) == ("failed", None, {})
        assert not (tmp_path / "export").exists()
        checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert checkpoints
        assert run.execute(Config(**values, min_accuracy=0.01), quiet=True) == EXIT_DONE
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == checkpoints
        form = status_of(tmp_path)["exports"]["saved_model"]
        assert (form["path"], form["split"]) == (str(tmp_path / "export"), split)
        assert 0.01 <= form["accuracy"] < 0.9 and form["examples"] > 0

    def test_a_file_below_it_is_left_out_and_the_rest_is_published(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        accuracies = iter([0.97, 0.6])  # Of float16 and of int8.
        monkeypatch.setattr(TfliteClassifier, "accuracy", lambda *_: next(accuracies))
        config = Config(**TINY, export=("tflite",), min_accuracy=0.8, run_dir=str(tmp_path))
        assert run.execute(config, quiet=True) == EXIT_DONE
        assert sorted(path.name for path in (tmp_path / "export" / "tflite").iterdir()) == [
            "float16.tflite",
            "labels.txt",
        ]
        status = status_of(tmp_path)
        form = status["exports"]["tflite_int8"]
        assert (form["path"], form["accuracy"]) == (None, 0.6)
        assert form["refused"].startswith("int8.tflite was not published: its accuracy on the ")
        assert "test images is 0.6, below --min_accuracy=0.8; the model's is" in form["refused"]
        assert status["warnings"] == [form["refused"]] and status["state"] == "done"
        assert f"warning: {form['refused']}" in capsys.readouterr().err
        directory = RunDirectory(str(tmp_path))
        assert is_published(config, directory)
        assert not is_published(config.model_copy(update={"min_accuracy": 0.6}), directory)
        (tmp_path / "export" / "tflite" / "float16.tflite").unlink()
        assert not is_published(config, directory)


def made(model_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TfliteFiles:
    """The files of a model without images to test on, where `model_of` changes what is converted."""
    config = Config(**TINY)
    prepared = prepare(config, connect(config), Console(quiet=True))
    model = build(prepared).model
    size = image_input_of(model).size
    pixels = (np.random.default_rng(1).integers(0, 256, [8, size, size, 3]) / 255).astype(np.float32)
    model.head.kernel.assign(model.head.kernel * 20.0)  # Untrained, it takes all for much the same.
    probe = Probe([], pixels, tf.nn.softmax(model(pixels)).numpy(), np.zeros([8, 1], np.float32))
    convert = export_tflite.converted
    monkeypatch.setattr(export_tflite, "converted", lambda model, *rest: convert(model_of(model), *rest))
    nothing = Yardstick("", np.zeros(0, np.int64), None)
    files = TfliteFiles(prepared, model, nothing, RunDirectory(str(tmp_path / "run")), Console(quiet=True))
    files(str(tmp_path), probe)
    return files


def test_without_images_to_test_on_accuracy_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = made(lambda model: model, monkeypatch, tmp_path)
    for kind in KINDS:
        result = files.results[f"tflite_{kind}"]
        assert (result.accuracy, result.examples, result.split, result.refused) == (None, 0, "", "")
        assert result.path == str(tmp_path / "run" / "export" / "tflite" / f"{kind}.tflite")
        assert (tmp_path / "tflite" / f"{kind}.tflite").stat().st_size == result.bytes


def test_files_whose_answers_are_unlike_the_models_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(model: Any) -> Any:
        model.head.kernel.assign(tf.roll(model.head.kernel, 1, axis=1))
        return model

    files = made(another, monkeypatch, tmp_path)
    for kind in KINDS:
        result = files.results[f"tflite_{kind}"]
        assert result.path is None
        assert result.refused.startswith(f"{kind}.tflite was not published: its probabilities are unlike the model's")
    assert not (tmp_path / "tflite").exists()


@pytest.fixture(scope="module")
def not_for_tflite(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run on a module that computes what TFLite cannot."""
    folder = tmp_path_factory.mktemp("betainc")

    def features(images: tf.Tensor) -> tf.Tensor:
        means = tf.reduce_mean(images, [1, 2])
        return tf.concat([means, tf.math.betainc(means + 1, 2 * means + 1, means)], axis=-1)

    module = modules.computing(folder / "module", modules.images_spec(), features)
    values: dict[str, Any] = TINY | {"backbone": str(module), "feature_cache": str(folder / "cache")}
    return Config(**values, export=("tflite",))


class TestNotConvertible:
    """What is said of a module that TFLite does not take."""

    def test_is_refused_before_training(self, not_for_tflite: Config, tmp_path: Path) -> None:
        run_dir = tmp_path / "run"
        with pytest.raises(UserError, match=r"cannot make float16\.tflite of --backbone=.* \(it has no operation Beta"):
            run.execute(not_for_tflite.model_copy(update={"run_dir": str(run_dir)}), quiet=True)
        assert not run_dir.exists()

    def test_found_at_the_end_costs_no_more_than_the_files(
        self, not_for_tflite: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainer.run.check_convertible", lambda *_: None)
        with pytest.raises(UserError, match=r"no operation Betainc\).*--export=saved_model.* SavedModel was published"):
            run.execute(not_for_tflite.model_copy(update={"run_dir": str(tmp_path)}), quiet=True)
        status = status_of(tmp_path)
        assert (status["state"], status["export"]) == ("failed", str(tmp_path / "export"))
        assert (tmp_path / "export" / "saved_model.pb").is_file() and not (tmp_path / "export" / "tflite").exists()
        assert status["exports"]["tflite_int8"]["path"] is status["exports"]["tflite_int8"]["bytes"] is None
        without = not_for_tflite.model_copy(update={"run_dir": str(tmp_path), "export": ("saved_model",)})
        monkeypatch.setattr("trainer.export.publish.export_model", lambda *_: str(tmp_path / "export"))
        assert run.execute(without, quiet=True) == EXIT_DONE
        assert status_of(tmp_path)["state"] == "done"

    def test_the_old_tf1_format_is_named(self, tmp_path: Path) -> None:
        module = modules.tf1_format(tmp_path / "module")
        config = Config(**TINY, backbone=str(module), export=("tflite",), run_dir=str(tmp_path / "run"))
        with pytest.raises(UserError, match=r"\(it is in the old TF1 format.*leave tflite out"):
            run.execute(config, quiet=True)


@pytest.mark.long
def test_int8_is_within_two_points_of_the_float_model_on_flowers(
    flower_photos: Path, hub_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.export.tflite_conversion.REPRESENTATIVE_IMAGES", 30)  # Half of the time is theirs.
    photos = tmp_path / "photos"
    for folder in sorted(path for path in flower_photos.iterdir() if path.is_dir()):
        (photos / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:50]:
            shutil.copy(photo, photos / folder.name)
    config = Config(
        data=f"folder:{photos}",
        splits=(30, 0, 70),
        backbone=str(hub_module("mobilenet_v2_035_224_feature_vector")),
        export=("tflite",),
        run_dir=str(tmp_path / "run"),
    )
    assert run.execute(config, quiet=True) == EXIT_DONE
    source = open_source(config)
    test = split_examples(source.keys, source.labels, source.class_names, config.splits).test
    encoded = [source.encoded(int(index)) for index in test]
    serve = tf.saved_model.load(str(tmp_path / "run" / "export")).signatures["serving_default"]
    answers = serve(image_bytes=tf.constant(encoded))["class_id"].numpy()
    float32 = np.mean(answers == source.labels[test])
    image_input = ImageInput(224, config.resize)
    pictures = np.stack([image_input.from_encoded(tf.constant(image)).numpy() for image in encoded])
    accuracy = {}
    for kind in KINDS:
        path = tmp_path / "run" / "export" / "tflite" / f"{kind}.tflite"
        accuracy[kind] = np.mean(classified(path, pictures) == source.labels[test])
        assert status_of(tmp_path / "run")["exports"][f"tflite_{kind}"]["accuracy"] == accuracy[kind]
    assert float32 > 0.7
    assert abs(accuracy["float16"] - float32) <= 0.005
    assert accuracy["int8"] >= float32 - 0.02
    floats = [shape for dtype, shape in tensors(path) if dtype == np.float32]
    assert floats == [(1, 5)]  # All of int8 is integers, but the probabilities.
