"""Whatever the user does wrong ends in one sentence on standard error, exit code 2, and nothing written over."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import image_folders
import modules
import numpy as np
import pytest
from runs import pretend_to_export, run_task

from trainer import task
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER
from trainer.export import publish
from trainer.features import fill
from trainer.features.cache import FeatureCache
from trainer.storage import RunDirectory
from trainer.training.actions import SaveCheckpoint
from trainer.training.checkpoint import CheckpointStore
from trainer.training.loop import Boundary

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = (
    "--data=synthetic:2",
    "--splits=98,1,1",
    "--examples_per_class=8",
    "--image_size=8",
    "--epochs=2",
    "--batch_size=8",
)


@pytest.fixture(autouse=True)
def tensorflow_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `main` from changing log levels for all tests."""
    monkeypatch.setattr(task, "import_tensorflow_quietly", lambda **_: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of every kind of bad data, each named after what is wrong with it."""
    root = tmp_path_factory.mktemp("photos")
    (root / "empty").mkdir()
    (root / "file").write_text("x", encoding="utf-8")
    image_folders.write_image(root / "loose" / "000.png")
    image_folders.write_classes(root / "one", {"cat": 8})
    image_folders.write_classes(root / "few", {"cat": 8, "dog": 2})
    image_folders.write_classes(root / "good", {"cat": 8, "dog": 8})
    (image_folders.write_classes(root / "hollow", {"cat": 8, "dog": 8}) / "bird").mkdir()
    text = image_folders.write_classes(root / "text", {"cat": 8, "dog": 8}) / "dog" / "notes.txt"
    text.write_text("hello", encoding="utf-8")
    image_folders.write_classes(root / "nested" / "animals", {"cat": 8, "dog": 8})
    image_folders.write_classes(root / "line", {"cat\nlion": 8, "dog": 8})
    image_folders.write_classes(root / "colour", {"\x1b[31mcat": 8, "dog": 8})
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("folder:{}/none", "There is no folder {}/none: give an existing one as --data=folder:PATH."),
        ("folder:{}/a\nb\x1b[31m", r"There is no folder {}/a\nb\x1b[31m:"),
        ("folder:{}/" + "n" * 300, "cannot be read (File name too long)"),
        ("folder:{}/loop", "Folder {}/loop cannot be read (Too many levels of symbolic links)"),
        ("folder:{}/file", "{}/file is not a folder"),
        ("folder:{}/empty", "Folder {}/empty has no class folders: put the images of each class into a folder"),
        ("folder:{}/loose", "Folder {}/loose has no class folders but images"),
        ("folder:{}/one", "Folder {}/one has only one class folder, cat; a classifier needs at least two"),
        ("folder:{}/few", "Class dog has 2 images, and --splits=75,15,10 needs at least 3"),
        ("folder:{}/hollow", "Class bird of folder {}/hollow has no usable JPEG, PNG, BMP or GIF image"),
        ("folder:{}/text", "{}/text/dog/notes.txt cannot be used: not a JPEG, PNG, BMP or GIF image."),
        ("folder:{}/nested", "{}/nested/animals holds folders and no image: --data=folder:PATH takes the folder whose"),
        ("folder:{}/line", r"The name of folder {}/line/cat\nlion has a line end or control code in it: rename it."),
        ("folder:{}/colour", r"The name of folder {}/colour/\x1b[31mcat has a line end or control code"),
        ("tfrecord:{}/none", "There is no TFRecord file {}/none: give a file, a folder with *.tfrecord files or a"),
        ("tfrecord:{}/file", "{}/file is not a TFRecord file, or its beginning is damaged"),
        ("tfds:tf_flowrs", "TensorFlow Datasets has no data set tf_flowrs; did you mean tf_flowers?"),
        (
            "tfds:a/b/c",
            "--data=tfds:a/b/c: must name a data set of TensorFlow Datasets as tfds:NAME[/CONFIG][:VERSION].",
        ),
        ("{}/good", "--data={}/good: a folder of images is given as folder:{}/good."),
        ("", "--data=: must be digits, folder:PATH, tfrecord:PATTERN, tfds:NAME, csv:FILE or synthetic[:CLASSES]."),
    ],
)
def test_bad_data(data: str, sentence: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "r"
    assert run_task(f"--data={data.replace('{}', str(photos))}", f"--run_dir={run_dir}") == EXIT_USER
    _check_sentence(capsys, sentence.replace("{}", str(photos)))
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epoch=3"], "Unknown command line flag 'epoch'. Did you mean: epochs?"),
        (["--epochs=abc"], "--epochs=abc: must be a whole number."),
        (["--epochs="], "--epochs=: must be a whole number."),
        (["--epochs", "--dry_run"], "--epochs=--dry_run: must be a whole number."),
        (["--epochs=\x1b[31m\n"], r"--epochs=\x1b[31m\n: must be a whole number."),
        (["--epochs=99999999999"], "--epochs=99999999999: must be less than or equal to 1000000."),
        (["--batch_size=99999999999"], "--batch_size=99999999999: must be auto or a whole number from 1 to 1048576."),
        (["--clip_norm=inf"], "--clip_norm=inf: must be a finite number."),
        (["--learning_rate=nan"], "--learning_rate=nan: must be"),
        (["--splits=a,b,c"], "--splits=a,b,c: each must be a whole number."),
        (["--train_backbone=maybe"], "--train_backbone=maybe: must be true or false."),
        (["--data"], "Missing value for flag --data"),
        (["mirrored"], "mirrored is not a flag: every argument starts with --"),
        (["--backbone=caf\udce9"], r"--backbone=caf\udce9: must be valid UTF-8 without NUL characters."),
        (
            ["--strategy=mirrored", "--virtual_devices=2", "--batch_size=1"],
            "--batch_size=1 cannot be shared by 2 replicas; take 2.",
        ),
        (["--image_size=4"], "--image_size=4: the built-in network needs at least 8 pixels."),
        (["--classes=class_000,rose"], "--classes names rose, which synthetic with 2 classes does not have"),
        (["--resume=s3://bucket/run"], "--resume=s3://bucket/run: must be a local folder or gs://BUCKET/FOLDER."),
        (["--resume=nonsense"], "--resume=nonsense has no checkpoint; give a run directory that has."),
    ],
)
def test_bad_flags(arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "r"
    assert run_task("--data=synthetic:2", f"--run_dir={run_dir}", *arguments) == EXIT_USER
    _check_sentence(capsys, sentence)
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file or directory): give a JSON file"),
        (b"{epochs: 3}", "is not JSON (Expecting property name"),
        (b"", "is not JSON (Expecting value"),
        (b"[" * 100_000, "is not JSON (maximum recursion depth"),
        (b"[1]", "must be a JSON object of fields"),
        (b"\xff\xfe", "cannot be read (it is no text)"),
        (b'{"epoch": 3}', ": There is no field epoch. Did you mean epochs?"),
        (b'{"epochs": "many"}', ": --epochs=many: must be a whole number."),
        (b'{"data": "folder:/a\\u0000b"}', r": --data=folder:/a\x00b: must be valid UTF-8 without NUL"),
    ],
)
def test_a_bad_config_file(
    content: bytes | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    assert run_task(f"--config={file}") == EXIT_USER
    _check_sentence(capsys, f"--config={file}", sentence)


def test_a_folder_as_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_task(f"--config={tmp_path}") == EXIT_USER
    _check_sentence(capsys, f"--config={tmp_path} cannot be read (Is a directory)")


@pytest.mark.parametrize(
    ("build", "arguments", "sentence"),
    [
        (modules.text_input, [], "it takes string [batch] and gives float32 [batch, 4], where float [batch, height"),
        (modules.rank_4, [], "gives float32 [batch, 4, 4, 3], where float [batch, features] is expected."),
        (modules.no_callable, [], "is no module: it can neither be called nor does it have signatures."),
        (modules.with_training, ["--image_size=16"], "takes images of 8 pixels only."),
        (modules.tf1_format, ["--train_backbone"], "old TF1 format, which can only be used frozen. Leave the flag out"),
        (
            lambda folder: _without_variables(modules.with_training(folder)),
            [],
            "variables.data-00000-of-00001 is missing",
        ),
        (lambda folder: _halved_variables(modules.with_training(folder)), [], "): take a fresh copy."),
        (lambda folder: folder.write_text("x"), [], "is a file: give its folder."),
        (lambda folder: folder.mkdir(), [], "is no complete SavedModel: saved_model.pb is missing or empty."),
        (lambda folder: None, [], "there is no folder"),
    ],
)
def test_a_bad_module(
    build: Callable[[Path], object],
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, run_dir = tmp_path / "module", tmp_path / "r"
    build(folder)
    capfd.readouterr()  # What TensorFlow says while it saves.
    assert run_task("--data=synthetic:2", f"--run_dir={run_dir}", f"--backbone={folder}", *arguments) == EXIT_USER
    _check_sentence(capfd, f"--backbone={folder}", sentence)
    assert not run_dir.exists()  # So that the same --run_dir takes the corrected command.


def _without_variables(module: Path) -> None:
    (module / "variables" / "variables.data-00000-of-00001").unlink()


def _halved_variables(module: Path) -> None:
    file = module / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 4])


@pytest.mark.parametrize(
    ("run_dir", "sentence"),
    [
        ("{}/file", "{}/file is a file where a folder is needed: move it away or give another --run_dir."),
        ("{}/file/r", "{}/file is a file where a folder is needed"),
        ("{}/" + "n" * 300, "is too long for this file system: give another --run_dir."),
        ("{}/loop/r", "is a link that leads back to itself: give another --run_dir."),
        ("{}/a[b]", "{}/a[b] has one of * ? [ ] \\ in it"),
        ("{}/good", "--run_dir={}/good is not empty and not a run directory (it holds cat)"),
        ("s3://bucket/run", "--run_dir=s3://bucket/run: must be a local folder or gs://BUCKET/FOLDER."),
        ("gs://", "--run_dir=gs://: must be a local folder or gs://BUCKET/FOLDER."),
    ],
)
def test_a_bad_run_directory(run_dir: str, sentence: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _hashes(photos)
    assert run_task(*TINY, "--quiet", f"--run_dir={run_dir.replace('{}', str(photos))}") == EXIT_USER
    _check_sentence(capsys, sentence.replace("{}", str(photos)))
    assert _hashes(photos) == before


def test_a_run_directory_among_the_images(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_task(f"--data=folder:{photos}/good", f"--run_dir={photos}/good/run") == EXIT_USER
    _check_sentence(capsys, f"--run_dir={photos}/good/run would lie among the images", "give another folder")
    monkeypatch.chdir(photos / "good")
    assert run_task("--data=folder:.") == EXIT_USER
    _check_sentence(capsys, f"{photos}/good/runs/", "would lie among the images")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that is done, with two checkpoints."""
    folder = tmp_path_factory.mktemp("finished") / "r"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish, "export_model", pretend_to_export)
        patched.setattr(task, "import_tensorflow_quietly", lambda **_: None)
        assert run_task(*TINY, "--quiet", f"--run_dir={folder}") == EXIT_DONE
    return folder


def _newest(folder: Path) -> Path:
    return sorted((folder / "checkpoints").iterdir())[-1]


def _set_running(folder: Path) -> None:
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}), encoding="utf-8")


def _cut_all_checkpoints(folder: Path) -> None:
    for file in (folder / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:100])


def _misname_the_only_checkpoint(folder: Path) -> None:
    newest = _newest(folder)
    for file in (folder / "checkpoints").iterdir():
        if file != newest:
            file.unlink()
    newest.rename(newest.with_name("step-00000099.safetensors"))


@pytest.mark.parametrize(
    ("damage", "arguments", "sentence"),
    [
        (lambda r: None, ["--seed=1"], "holds another run: --seed is 1 here and 0 there. Give another --run_dir"),
        (lambda r: None, ["--seed=1", "--dry_run"], "holds another run: --seed is 1 here and 0 there."),
        (lambda r: None, ["--resume=never"], "holds a run; give another, or --resume=auto to go on with it."),
        (
            lambda r: (r / "config.json").write_bytes(b"{"),
            [],
            "config.json is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)). It "
            "is damaged or of another version: give another --run_dir.",
        ),
        (lambda r: (r / "config.json").write_bytes(b"\xff\0"), [], "config.json is not JSON"),
        (lambda r: (r / "config.json").write_bytes(b'{"foo": 1}'), [], "There is no field foo. It is damaged or of"),
        (lambda r: (r / "config.json").unlink(), [], "is not empty and not a run directory"),
        (lambda r: (r / "status.json").write_bytes(b"{"), [], "status.json is damaged: delete it, and the run goes on"),
        (lambda r: (r / "status.json").write_bytes(b"[]\xff"), [], "status.json is damaged: delete it"),
        (_cut_all_checkpoints, [], "is damaged (it is cut off), and there is none before it: put back a copy, or give"),
        (_misname_the_only_checkpoint, [], "step-00000099.safetensors is damaged (it is of step 4), and there is none"),
    ],
)
def test_a_damaged_run_directory_is_left_as_it_is(
    damage: Callable[[Path], object],
    arguments: list[str],
    sentence: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "r"
    shutil.copytree(finished, run_dir)
    _set_running(run_dir)
    damage(run_dir)
    before = _hashes(run_dir)
    assert run_task(*TINY, f"--run_dir={run_dir}", *arguments) == EXIT_USER
    _check_sentence(capsys, str(run_dir), sentence)
    assert _hashes(run_dir) == before


def test_a_finished_run_without_its_export_exports_again_and_forgets_nothing(
    finished: Path, tmp_path: Path, no_export: None
) -> None:
    run_dir = tmp_path / "r"
    shutil.copytree(finished, run_dir)
    shutil.rmtree(run_dir / "export")
    assert run_task(*TINY, "--quiet", f"--run_dir={run_dir}") == EXIT_DONE
    assert (run_dir / "export").exists()
    before, after = (json.loads((each / "status.json").read_text(encoding="utf-8")) for each in (finished, run_dir))
    for field in ("state", "step", "epoch", "train", "validation", "best", "test"):
        assert after[field] == before[field], field


def test_a_finished_run_whose_checkpoints_were_deleted_is_left_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "r"
    shutil.copytree(finished, run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    before = _hashes(run_dir)
    assert run_task(*TINY, f"--run_dir={run_dir}") == EXIT_DONE
    assert "is done" in capsys.readouterr().out
    assert _hashes(run_dir) == before


def test_another_run_that_does_not_fit_leaves_no_run_directory(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*TINY, f"--run_dir={tmp_path / 'r'}", f"--resume={finished}", "--epochs=3")
    assert run_task(*arguments, "--optimizer=sgd") == EXIT_USER
    _check_sentence(capsys, "does not fit this model, which differs in optimizer/adam/")
    assert not (tmp_path / "r").exists()


def test_names_with_spaces_quotes_markup_and_other_scripts_come_through(tmp_path: Path, no_export: None) -> None:
    names = ["[red]do'g\"<b>", "ca t ünï 猫"]
    folder = image_folders.write_classes(tmp_path / "ph[o]to*s", dict.fromkeys(names, 6))
    bad = folder / names[0] / "\x1b[31mbad\n[bold].png"
    bad.write_text("no image", encoding="utf-8")
    run_dir = tmp_path / "r 'ü' <b>\n猫"
    arguments = (f"--data=folder:{folder}", "--image_size=8", "--batch_size=4", "--epochs=1", f"--run_dir={run_dir}")
    assert run_task(*arguments, "--on_bad_image=skip") == EXIT_DONE
    status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    assert [image["key"] for image in status["skipped_images"]] == [f"{names[0]}/{bad.name}"]
    assert status["test"]["examples"] >= len(names)


def test_a_file_that_is_no_image_can_be_skipped_in_the_run_directory_where_it_stopped(
    tmp_path: Path, no_export: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = image_folders.write_classes(tmp_path / "photos", {"cat": 6, "dog": 6})
    (folder / "dog" / "page.png").write_text("<html>", encoding="utf-8")
    arguments = (f"--data=folder:{folder}", "--image_size=8", "--batch_size=4", "--epochs=1", "--quiet")
    assert run_task(*arguments, f"--run_dir={tmp_path / 'r'}") == EXIT_USER
    _check_sentence(capsys, f"{folder}/dog/page.png cannot be used: a web page", "--on_bad_image=skip")
    assert run_task(*arguments, f"--run_dir={tmp_path / 'r'}", "--on_bad_image=skip") == EXIT_DONE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize("phase", ["start", "checkpoint", "export"])
def test_a_full_disk(
    phase: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = small_disk / "r"
    with monkeypatch.context() as patched:
        if phase == "start":
            _fill(small_disk)
        elif phase == "checkpoint":
            save = SaveCheckpoint.__call__

            def fill_and_save(self: SaveCheckpoint, boundary: Boundary) -> None:
                if boundary.progress.epoch == 2:
                    _fill(small_disk)
                save(self, boundary)

            patched.setattr(SaveCheckpoint, "__call__", fill_and_save)
        else:
            export = publish.export_model

            def fill_and_export(*arguments: object) -> str:
                _fill(small_disk)
                return export(*arguments)  # type: ignore[arg-type]

            patched.setattr(publish, "export_model", fill_and_export)
        assert run_task(*TINY, "--quiet", f"--run_dir={run_dir}") == EXIT_USER
    _check_sentence(capfd, f"The disk of {run_dir} is full: free some space or give another --run_dir")
    assert not list(run_dir.rglob(".*tmp-*"))
    latest = CheckpointStore(RunDirectory(str(run_dir))).newest(pytest.fail)
    assert (latest.position.epoch if latest else 0) == {"start": 0, "checkpoint": 1, "export": 2}[phase]
    assert not (run_dir / "export").exists()
    (small_disk / "filler").unlink()
    monkeypatch.setattr(publish, "export_model", pretend_to_export)
    assert run_task(*TINY, "--quiet", f"--run_dir={run_dir}") == EXIT_DONE


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Hub module."""
    return modules.with_training(tmp_path_factory.mktemp("module") / "module")


@pytest.mark.parametrize(
    ("cache", "sentence"),
    [
        ("{}/file", "{}/file is a file where a folder is needed: move it away or give another --feature_cache."),
        ("{}/file/c", "{}/file is a file where a folder is needed: move it away or give another --feature_cache."),
        ("{}/loop/c", "is a link that leads back to itself: give another --feature_cache."),
        ("/proc/features", "There is no /proc/features"),
        ("s3://bucket/c", "--feature_cache=s3://bucket/c: must be"),
        ("{}/good/features", "--feature_cache={}/good/features would lie among the images of folder {}/good: give"),
    ],
)
def test_a_bad_feature_cache(
    cache: str,
    sentence: str,
    photos: Path,
    module: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    no_export: None,
) -> None:
    before = _hashes(photos)
    flags = [f"--data=folder:{photos}/good", f"--backbone={module}", "--epochs=1", "--batch_size=4", "--quiet"]
    flags.append(f"--run_dir={tmp_path / 'r'}")
    assert run_task(*flags, f"--feature_cache={cache.replace('{}', str(photos))}") == EXIT_USER
    _check_sentence(capfd, sentence.replace("{}", str(photos)))
    assert _hashes(photos) == before
    assert run_task(*flags, f"--feature_cache={tmp_path / 'cache'}") == EXIT_DONE


def test_a_full_disk_while_features_are_computed(
    small_disk: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "export_model", pretend_to_export)
    monkeypatch.setattr(fill, "SHARD_ROWS", 8)
    photos = image_folders.write_classes(tmp_path / "photos", {"cat": 16, "dog": 16})
    flags = [f"--data=folder:{photos}", f"--backbone={module}", "--epochs=1", "--batch_size=4"]
    flags += [f"--run_dir={tmp_path / 'r'}", f"--feature_cache={small_disk / 'cache'}"]
    write, shards = FeatureCache.write, list[int]()

    def write_until_full(self: FeatureCache, ids: np.ndarray, features: np.ndarray) -> None:
        shards.append(len(ids))
        if len(shards) == 3:
            _fill(small_disk)
        write(self, ids, features)

    with monkeypatch.context() as patched:
        patched.setattr(FeatureCache, "write", write_until_full)
        assert run_task(*flags, "--quiet") == EXIT_USER
    _check_sentence(
        capfd, f"The disk of {small_disk}/cache", "is full: free some space or give another --feature_cache"
    )
    assert len(list(small_disk.rglob("*.features"))) == 2
    assert not list(small_disk.rglob(".*tmp-*"))
    (small_disk / "filler").unlink()
    capfd.readouterr()
    assert run_task(*flags) == EXIT_DONE
    assert "features of 32 images: 16 computed now by TFLite" in capfd.readouterr().out


def test_a_feature_cache_that_may_only_be_read_serves_what_it_has(
    small_disk: Path, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "export_model", pretend_to_export)
    photos = image_folders.write_classes(tmp_path / "photos", {"cat": 8, "dog": 8})
    cache = small_disk / "cache"
    flags = [f"--data=folder:{photos}", f"--backbone={module}", "--epochs=1", "--batch_size=4"]
    flags.append(f"--feature_cache={cache}")
    assert run_task(*flags, "--quiet", f"--run_dir={tmp_path / 'r'}") == EXIT_DONE
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    capfd.readouterr()
    assert run_task(*flags, f"--run_dir={tmp_path / 's'}") == EXIT_DONE
    assert f"features of 16 images: all found in {cache}" in capfd.readouterr().out
    image_folders.write_image(photos / "cat" / "new.png", shift=99)
    assert run_task(*flags, "--quiet", f"--run_dir={tmp_path / 't'}") == EXIT_USER
    _check_sentence(capfd, "is on a read-only file system: give another --feature_cache.")


def test_temporary_files_without_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_disk: Path
) -> None:
    _fill(small_disk)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    assert run_task(*TINY, "--dry_run") == EXIT_USER
    _check_sentence(capsys, f"Temporary files cannot be written to {small_disk} (No space left on device)", "TMPDIR")


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainer.task", *arguments]


def _environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=str(REPOSITORY), PYTHONUNBUFFERED="1")


def test_the_program_itself_ends_with_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    command = _program("--data=/none", f"--run_dir={tmp_path / 'r'}")
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_USER, "")
    assert done.stderr == "error: --data=/none: a folder of images is given as folder:/none.\n"
    assert not (tmp_path / "r").exists()


def test_help_ends_well_and_quietly_when_nobody_reads_to_its_end() -> None:
    whole = subprocess.run(_program("--help"), env=_environment(), capture_output=True, text=True, check=False)
    assert (whole.returncode, whole.stderr) == (EXIT_DONE, "")
    assert "--train_backbone" in whole.stdout
    with subprocess.Popen(
        _program("--helpxml"), env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as cut:
        assert cut.stdout and cut.stderr
        cut.stdout.close()
        assert cut.stderr.read() == b""


def test_an_interrupted_program_can_be_started_again_and_outlives_its_reader(tmp_path: Path) -> None:
    command = _program(*TINY, "--epochs=500", "--steps_per_loop=1", f"--run_dir={tmp_path / 'r'}")
    with subprocess.Popen(
        command,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:
        assert process.stdout and process.stderr
        while not process.stdout.readline().startswith("epoch "):
            assert process.poll() is None
        process.stdout.close()
        assert process.stderr.readline() == "warning: Nothing more can be printed (Broken pipe); all else goes on.\n"
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait() == EXIT_PREEMPTED
    assert errors == (
        "warning: Interrupted from the keyboard. "
        f"The same command with --run_dir={tmp_path / 'r'} goes on from the last checkpoint.\n"
    )
    assert json.loads((tmp_path / "r" / "status.json").read_text(encoding="utf-8"))["state"] == "preempted"
    assert CheckpointStore(RunDirectory(str(tmp_path / "r"))).newest(pytest.fail)


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _check_sentence(capture: pytest.CaptureFixture[str], *parts: str) -> None:
    """Standard error holds one line, an error with these parts."""
    errors = capture.readouterr().err
    assert errors.startswith("error: ")
    assert errors.endswith("\n")
    assert errors.count("\n") == 1, errors
    assert errors.rstrip("\n").isprintable()
    for part in parts:
        assert part in errors
