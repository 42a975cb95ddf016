from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_folders import encoded, gradient, write_classes, write_image

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.source import ArraySource, SkippedImage, Source
from trainer.data.sources import open_source
from trainer.errors import UserError


def open_folder(path: object, **fields: object) -> FileSource:
    source = open_source(Config(data=f"folder:{path}", **fields))  # type: ignore[arg-type]
    assert isinstance(source, FileSource)
    return source


def open_array(data: str, **fields: object) -> ArraySource:
    source = open_source(Config(data=data, **fields))  # type: ignore[arg-type]
    assert isinstance(source, ArraySource)
    return source


def test_digits_are_all_there_in_key_order() -> None:
    digits = open_array("digits")
    assert digits.pixels.shape == (1797, 8, 8, 3) and digits.native_size == 8
    assert digits.class_names == tuple("0123456789")
    assert list(digits.keys) == sorted(set(digits.keys)) and digits.keys[0] == "0/0000"
    assert digits.pixels.min() == 0 and digits.pixels.max() == 255
    assert [key.split("/")[0] for key in digits.keys] == [str(label) for label in digits.labels]


def test_digits_keep_their_pixels_when_sorted() -> None:
    from sklearn.datasets import load_digits

    original = load_digits()
    digits = open_array("digits")
    for index in (0, 500, 1796):
        at = int(digits.keys[index].split("/")[1])
        assert original.target[at] == digits.labels[index]
        for channel in range(3):
            assert np.abs(digits.pixels[index, :, :, channel] / 255 * 16 - original.images[at]).max() < 0.05


def test_chosen_classes_of_digits_are_numbered_anew() -> None:
    digits = open_array("digits", classes="7,5")
    assert digits.class_names == ("5", "7")
    assert {(key[0], int(label)) for key, label in zip(digits.keys, digits.labels)} == {("5", 0), ("7", 1)}
    assert len(digits.pixels) == len(digits.keys) == len(digits)


def test_synthetic_images_are_the_same_every_time_and_can_be_told_apart() -> None:
    source, again = open_array("synthetic:3"), open_array("synthetic:3")
    assert (source.pixels == again.pixels).all() and source.fingerprint() == again.fingerprint()
    assert source.native_size == source.pixels.shape[1] == 32
    averages = [source.pixels[source.labels == label].mean(axis=0) for label in range(3)]
    assert min(np.abs(averages[a] - averages[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 10
    assert len(open_array("synthetic").class_names) == 4
    assert np.bincount(open_array("synthetic:300").labels).min() >= 10


def test_folder_lists_images_of_class_folders_in_key_order(tmp_path: Path) -> None:
    # "a b/" sorts before "a/" as part of a key, and after it as a class name.
    for name in ("a/2.PNG", "a/10.jpeg", "a b/x y.jpg", "Zoë/ü.png"):
        write_image(tmp_path / name)
    for litter in ("LICENSE.txt", ".hidden/x.txt", "a/.DS_Store", "a/Thumbs.db", "a b/desktop.ini", "__MACOSX/a/x.txt"):
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_text("litter")
    source = open_folder(tmp_path)
    assert source.class_names == ("Zoë", "a", "a b")
    assert list(source.keys) == ["Zoë/ü.png", "a b/x y.jpg", "a/10.jpeg", "a/2.PNG"] == sorted(source.keys)
    assert source.labels.tolist() == [0, 2, 1, 1] and source.labels.dtype == np.int32
    assert [Path(path).exists() for path in source.paths] == [True] * 4
    assert source.native_size is None and source.skipped == ()


def test_unicode_forms_give_one_key_and_the_file_is_still_found(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Blüte/rosé 1.png")
    write_image(tmp_path / decomposed)
    write_image(tmp_path / "other/1.png")
    source = open_folder(tmp_path, classes=(unicodedata.normalize("NFD", "Blüte"), "other"))
    assert source.keys[0] == unicodedata.normalize("NFC", decomposed) != decomposed
    assert source.reader(np.array([0]))(tf.constant(0, tf.int64)).shape == (12, 18, 3)


@pytest.mark.parametrize("colliding", ["roses/é.png", "é/1.png"])
def test_names_that_differ_in_unicode_form_alone_are_refused(tmp_path: Path, colliding: str) -> None:
    write_classes(tmp_path, {"roses": 1, "tulips": 1})
    write_image(tmp_path / unicodedata.normalize("NFC", colliding))
    write_image(tmp_path / unicodedata.normalize("NFD", colliding))
    if len(set(os.listdir((tmp_path / colliding).parent.parent))) < 2:
        pytest.skip("this file system joins Unicode forms itself")
    with pytest.raises(UserError, match="Unicode form"):
        open_folder(tmp_path)


def test_home_and_slash_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "photos", {"a": 1, "b": 1})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_folder("~/photos/").paths[0] == str(tmp_path / "photos/a/000.png")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["x.png"], "no class folders but images"),
        ([], "no class folders:"),
        (["roses/1.png"], "only one class folder, roses"),
        (
            ["train/roses/1.png", "train/tulips/1.png", "test/roses/1.png", "test/LICENSE.txt"],
            "test holds folders and no image",
        ),
        (["roses/1.png", "tulips/.hidden.png"], "Class tulips .*has no usable"),
        (["roses/1.png", "tulips/1.png", "notes/a.txt"], "Class notes .*has no usable"),
    ],
)
def test_folders_of_another_layout_are_explained(tmp_path: Path, files: list[str], sentence: str) -> None:
    for name in files:
        write_image(tmp_path / name)
    with pytest.raises(UserError, match=sentence):
        open_folder(tmp_path)


def test_missing_folder_and_file_as_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no folder {tmp_path}/none"):
        open_folder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        open_folder(tmp_path / "file")


def test_unknown_class_suggests_the_nearest(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 1, "tulips": 1, "daisy": 1})
    with pytest.raises(UserError, match="tulpis, which folder .* does not have; did you mean tulips"):
        open_folder(tmp_path, classes="roses,tulpis")
    with pytest.raises(UserError, match="12, which digits does not have; did you mean"):
        open_array("digits", classes="1,12")
    assert open_folder(tmp_path, classes="tulips,daisy").class_names == ("daisy", "tulips")


def test_unusable_files_stop_the_run_by_name(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 2, "tulips": 2})
    (tmp_path / "roses/notes.txt").write_text("buy more")
    with pytest.raises(UserError, match=r"roses/notes.txt cannot be used: not a JPEG.*\. .*--on_bad_image=skip"):
        open_folder(tmp_path)
    (tmp_path / "roses/empty.png").touch()
    (tmp_path / "tulips/modern.webp").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"roses/empty.png cannot be used: empty file \(2 more files like it\)"):
        open_folder(tmp_path)


def test_skip_leaves_bad_files_out_and_lists_them(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 3, "tulips": 2})
    (tmp_path / "roses/001.png").write_bytes(encoded(gradient(), "JPEG")[:-40])
    (tmp_path / "roses/notes.txt").write_text("buy more")
    (tmp_path / "tulips/gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_folder(tmp_path, on_bad_image="skip")
    assert list(source.keys) == ["roses/000.png", "roses/002.png", "tulips/000.png", "tulips/001.png"]
    assert [Path(path).name for path in source.paths] == ["000.png", "002.png", "000.png", "001.png"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.skipped == (
        SkippedImage("roses/001.png", "the JPEG is truncated or damaged"),
        SkippedImage("roses/notes.txt", "not a JPEG, PNG, BMP or GIF image"),
        SkippedImage("tulips/gone.png", "a link to a file that does not exist"),
    )


def test_skip_does_not_lose_a_whole_class(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 2, "tulips": 1})
    (tmp_path / "tulips/000.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="Class tulips .*has no usable"):
        open_folder(tmp_path, on_bad_image="skip")


def test_a_name_that_is_no_unicode_is_a_bad_image(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 1, "tulips": 1})
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/roses/\xff.png")).write_bytes(encoded(gradient()))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    with pytest.raises(UserError, match="not valid UTF-8") as raised:
        open_folder(tmp_path)
    str(raised.value).encode()  # Can be printed.


def test_folders_inside_a_class_are_passed_over_and_reported(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 1, "tulips": 1, "roses/small": 1})
    reports: list[str] = []
    source = open_source(Config(data=f"folder:{tmp_path}"), reports.append)
    assert list(source.keys) == ["roses/000.png", "tulips/000.png"]
    assert len(reports) == 1 and "roses" in reports[0]


def test_a_folder_behind_a_scheme_is_listed_the_same(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 2, "tulips": 1})
    root = "ram://sources/photos"
    for name in ("roses/000.png", "roses/001.png", "tulips/000.png", "LICENSE.txt", "tulips/.hidden"):
        tf.io.gfile.makedirs(os.path.dirname(f"{root}/{name}"))
        local = tmp_path / name
        with tf.io.gfile.GFile(f"{root}/{name}", "wb") as file:
            file.write(local.read_bytes() if local.exists() else b"text")
    local_source, source = open_folder(tmp_path), open_folder(root + "/")
    assert list(source.keys) == list(local_source.keys) and source.paths[0] == f"{root}/roses/000.png"
    one = tf.constant(1, tf.int64)
    places = np.arange(3)
    assert (source.reader(places)(one).numpy() == local_source.reader(places)(one).numpy()).all()
    with pytest.raises(UserError, match="no folder ram://sources/none"):
        open_folder("ram://sources/none")


def test_fingerprint_changes_with_names_labels_and_content(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return open_folder(tmp_path).fingerprint()

    write_classes(tmp_path, {"a": 2, "b": 2})
    fingerprints = [fingerprint()]
    assert fingerprint() == fingerprints[0] and len(fingerprints[0]) == 16
    (tmp_path / "a/000.png").rename(tmp_path / "a/x.png")
    fingerprints.append(fingerprint())
    (tmp_path / "a").rename(tmp_path / "c")
    fingerprints.append(fingerprint())
    (tmp_path / "b/000.png").write_bytes(encoded(gradient()) + b" ")
    fingerprints.append(fingerprint())
    assert len(set(fingerprints)) == len(fingerprints)


def test_fingerprint_does_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    first, second = (write_classes(tmp_path / name, {"a": 2, "b": 2}) for name in ("here", "there"))
    assert open_folder(first).fingerprint() == open_folder(second).fingerprint()


def test_fingerprint_of_arrays_covers_pixels() -> None:
    def fingerprint(pixels: np.ndarray, labels: list[int]) -> str:
        source: Source = ArraySource(
            name="x", class_names=("a", "b"), labels=np.array(labels, np.int32), keys=("k", "l"), pixels=pixels
        )
        return source.fingerprint()

    black = np.zeros((2, 2, 2, 3), np.uint8)
    assert len({fingerprint(black, [0, 1]), fingerprint(black, [1, 0]), fingerprint(black + 1, [0, 1])}) == 3
