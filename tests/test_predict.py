"""`python -m trainer.predict`: what it prints, how it ends, and that it says what the export says."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import exports
import image_folders
import modules
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from trainer import predict
from trainer.errors import EXIT_DONE, EXIT_USER, UserError
from trainer.predict import Request
from trainer.serving.classification import BATCH_SIZE

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {"blue tit": 5, "größe": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of two classes."""
    return image_folders.write_classes(tmp_path_factory.mktemp("photos"), CLASSES)


@pytest.fixture(scope="module")
def run_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the export of an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    exports.untrained_export(photos, folder / "export", image_size=8)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def printed(request: Request, code: int = EXIT_DONE) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    assert predict.predict(request, out, err) == code
    return out.getvalue(), err.getvalue()


def asked(*arguments: str) -> Request:
    values = flags.FlagValues()
    predict.define_flags(values)
    values.set_gnu_getopt(True)
    return predict.request_from_flags(values, values(["predict", *arguments])[1:])


def test_every_image_gets_a_line_in_every_form(run_dir: Path, photos: Path) -> None:
    paths = [str(path) for path in sorted(photos.glob("*/*.png"))]
    lines, err = printed(Request(str(run_dir), (str(photos),), json=True))
    found = [json.loads(line) for line in lines.splitlines()]
    assert [each["path"] for each in found] == paths and err == ""
    served = tf.saved_model.load(str(run_dir / "export")).signatures["serving_default"]
    answers = served(image_bytes=tf.constant([Path(path).read_bytes() for path in paths]))
    for each, probabilities, label in zip(found, answers["probabilities"].numpy(), answers["label"].numpy()):
        assert each["top"][0]["label"] == label.decode()
        assert {top["label"] for top in each["top"]} == set(CLASSES)
        for top in each["top"]:
            assert np.float32(top["probability"]) == probabilities[top["class_id"]]
    first = found[0]["top"]
    text, _ = printed(Request(str(run_dir / "export"), (str(photos),)))
    assert text.splitlines()[0] == f"{paths[0]}  " + ", ".join(f"{t['label']} {t['probability']:.3f}" for t in first)
    table, _ = printed(Request(str(run_dir), (str(photos),), csv=True, top=1))
    label, probability = first[0]["label"], first[0]["probability"]
    assert table.splitlines()[:2] == ["path,label_1,probability_1", f"{paths[0]},{label},{probability}"]


def test_damaged_images_are_named_and_counted_and_the_exit_code_is_2(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    bad = tmp_path / "photos/blue tit/\x1b[31m.png"
    bad.write_bytes(b"x")
    out, err = printed(Request(str(run_dir), (str(tmp_path / "photos"),)), EXIT_USER)
    assert len(out.splitlines()) == 9
    name = str(bad).replace("\x1b", "\\x1b")
    assert err.splitlines() == [
        f"warning: {name}: not a JPEG, PNG, BMP or GIF image",
        "error: 1 of 10 images could not be read.",
    ]


def test_the_grid_shows_the_pictures(run_dir: Path, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "grid.png"
    _, err = printed(Request(str(run_dir), (str(photos),), grid=str(file)))
    assert err == f"{file} shows the first 9 of 9 pictures.\n"
    width, height = Image.open(file).size
    assert width > height > 100


def test_labels_replace_those_of_the_export(run_dir: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("first\nsecond\n", encoding="utf-8")
    out, _ = printed(Request(str(run_dir), (str(photos),), labels=str(tmp_path / "labels.txt"), top=1))
    assert {line.split("  ")[1].split()[0] for line in out.splitlines()} <= {"first", "second"}


def test_a_folder_without_images_is_an_error(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=f"There is no JPEG, PNG, BMP or GIF image in {tmp_path}"):
        printed(Request(str(run_dir), (str(tmp_path),)))


def test_a_model_that_gives_nan_is_refused(tmp_path: Path, photos: Path) -> None:
    module = modules.computing(tmp_path / "module", modules.images_spec(), lambda images: images[:, 0, 0] * np.nan)
    with pytest.raises(UserError, match=f"{module} gives no finite probabilities for {photos}/blue tit/000.png"):
        printed(Request(str(module), (str(photos),)))


def test_flags_may_stand_anywhere(photos: Path) -> None:
    assert asked("--top=3", "model", str(photos), "--json") == Request("model", (str(photos),), top=3, json=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model"], "Give a model and at least one image or folder"),
        (["model", "nowhere"], "There is no file or folder nowhere"),
        (["model", ".", "--json", "--csv"], "--json and --csv exclude each other"),
        (["model", ".", "--grid=a.jpg"], "--grid=a.jpg must end in .png"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        asked(*arguments)


def test_the_program_starts_without_tensorflow_and_ends_with_a_sentence() -> None:
    program = (
        "import sys, atexit; atexit.register(lambda: print('tensorflow' in sys.modules))\n"
        "from trainer import predict, program\n"
        "sys.argv = ['predict', 'model', '.', '--json', '--csv']\n"
        "program.start(predict.main, predict.define_flags)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (
        EXIT_USER,
        "False\n",
        "error: --json and --csv exclude each other: give one of them.\n",
    )


def test_a_pipe_that_nobody_reads_ends_a_program_quietly() -> None:
    program = (
        "import sys; from trainer import predict, program\n"
        "sys.argv = ['predict']; program.start(lambda _: print('line', flush=True), predict.define_flags)\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.slow
def test_it_agrees_with_the_export_on_real_photos_bit_for_bit(
    hub_module: Callable[[str], Path], flower_photos: Path, tmp_path: Path
) -> None:
    module = hub_module("mobilenet_v2_035_224_feature_vector")
    export = exports.untrained_export(flower_photos, tmp_path / "export", str(module))
    paths = sorted(flower_photos.glob("*/*.jpg"))[::36][:100]
    lines, _ = printed(Request(str(export), tuple(map(str, paths)), json=True))
    found = [json.loads(line) for line in lines.splitlines()]
    assert [each["path"] for each in found] == [str(path) for path in paths] and len(found) == 100
    served = tf.saved_model.load(str(export)).signatures["serving_default"]
    encoded = [path.read_bytes() for path in paths]
    expected = np.concatenate(
        [
            served(image_bytes=tf.constant(encoded[first : first + BATCH_SIZE]))["probabilities"].numpy()
            for first in range(0, 100, BATCH_SIZE)
        ]
    )
    actual = np.zeros_like(expected)
    for row, each in enumerate(found):
        for top in each["top"]:
            actual[row, top["class_id"]] = top["probability"]
    np.testing.assert_array_equal(actual, expected)
    assert len({tuple(row) for row in actual.tolist()}) > 90
    for each, content in zip(found, encoded):
        alone = served(image_bytes=tf.constant([content]))
        assert each["top"][0]["label"] == alone["label"].numpy()[0].decode()
        assert each["top"][0]["class_id"] == alone["class_id"].numpy()[0]


@pytest.mark.slow
def test_grace_hopper_wears_a_military_uniform(
    hub_module: Callable[[str], Path], test_data: Path, tmp_path: Path
) -> None:
    feature_vector = hub_module("tf2-preview_mobilenet_v2_feature_vector_4")
    head = test_data / "mobilenet_v2_100_224_logits_uint8.npz"
    module = exports.imagenet_module(feature_vector, head, tmp_path / "imagenet")
    photo = str(test_data / "grace_hopper.jpg")
    out, _ = printed(Request(str(module), (photo,), labels=str(test_data / "ImageNetLabels.txt")))
    assert out.startswith(f"{photo}  military uniform 0.7")
    without_labels, _ = printed(Request(str(module), (photo,), top=1))
    assert without_labels.startswith(f"{photo}  653 0.7")
