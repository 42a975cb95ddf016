from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import encoded, gradient, write_classes

from trainer.config import Config
from trainer.data.bad_images import find_bad_images
from trainer.data.file_source import FileSource
from trainer.data.sources import open_source

PIXELS = gradient(12, 18)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path, {"a": 12, "b": 2})


def opened(folder: Path) -> FileSource:
    source = open_source(Config(data=f"folder:{folder}"))
    assert isinstance(source, FileSource)
    return source


def test_bad_images_are_found_and_explained(folder: Path) -> None:
    contents = {
        "000": encoded(PIXELS, "JPEG")[:-60],
        "001": encoded(PIXELS, "PNG")[:-30],
        "002": encoded(PIXELS, "GIF", "P")[:-60],
        "003": encoded(PIXELS, "BMP")[:-60],
        "004": b"<!DOCTYPE html><p>404",
        "005": b"GIF? No.",
        "006": encoded(PIXELS, "TIFF"),
        "007": b"\0\0\0\x18ftypheic",
        "008": encoded(PIXELS, "BMP", "1"),
    }
    source = opened(folder)
    for name, content in contents.items():
        (folder / f"a/{name}.png").write_bytes(content)
    (folder / "a/009.png").write_bytes(b"")
    (folder / "a/010.png").unlink()
    (folder / "b/001.png").unlink()
    (folder / "b/001.png").mkdir()
    bmp = "the BMP is damaged, compressed, or has fewer than 8 bits a pixel"
    reasons = {bad.key: bad.reason for bad in find_bad_images(source)}
    assert reasons.pop("b/001.png").startswith("the file cannot be read")
    assert list(reasons.values()) == [
        "the JPEG is truncated or damaged",
        "the PNG is truncated or damaged",
        "the GIF is truncated or damaged",
        bmp,
        "a web page or other markup, not an image",
        "not a JPEG, PNG, BMP or GIF image",
        "TIFF is not supported, convert it to JPEG or PNG",
        "HEIC and AVIF are not supported, convert it to JPEG or PNG",
        bmp,
        "empty file",
        "the file does not exist any more",
    ]
    assert list(reasons) == [f"a/{number:03d}.png" for number in range(11)]
    assert [bad.key for bad in find_bad_images(source, [11, 4, 12])] == ["a/004.png"]


def test_a_file_that_may_not_be_read_is_bad(folder: Path) -> None:
    source = opened(folder)
    (folder / "a/003.png").chmod(0)
    try:
        (folder / "a/003.png").read_bytes()
    except PermissionError:
        assert [bad.reason for bad in find_bad_images(source)] == ["no permission to read the file"]
    else:
        pytest.skip("this user may read everything")


def test_a_long_look_reports_its_progress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.every_few_seconds.SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr("trainer.data.bad_images._SCAN_BLOCK", 5)
    source = opened(folder)
    (folder / "b/000.png").write_bytes(b"x")
    reports: list[str] = []
    assert [bad.key for bad in find_bad_images(source, report=reports.append)] == ["b/000.png"]
    assert [report.split(";")[0] for report in reports] == [f"Looked through {n} of 14 images" for n in (5, 10, 14)]
    reports.clear()
    monkeypatch.undo()
    find_bad_images(source, report=reports.append)
    assert reports == []
