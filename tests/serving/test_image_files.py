"""Which files are classified, in which order, and how little is known of them before they are needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import image_folders
import pytest

from trainer.data.listing import Entry
from trainer.errors import UserError
from trainer.serving import image_files as module
from trainer.serving.image_files import ImageFile, ListedAhead, image_files, read_image

PATIENCE_SECONDS = 10.0


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_folders_are_gone_through_sorted_with_all_that_is_inside(tmp_path: Path) -> None:
    write(
        tmp_path, "b/2.jpg", "b/10.JPG", "a.png", "c.gif", "b/.hidden.jpg", "b/notes.txt", "b/Thumbs.db", ".git/x.jpg"
    )
    write(tmp_path.parent, "named.txt")
    named = str(tmp_path.parent / "named.txt")
    found = [file.path for file in image_files([named, f"{tmp_path}/", str(tmp_path / "a.png")])]
    folder = [f"{tmp_path}/{name}" for name in ("a.png", "b/10.JPG", "b/2.jpg", "c.gif")]
    assert found == [named, *folder, str(tmp_path / "a.png")]


def test_what_a_listing_tells_of_files_is_their_problem(tmp_path: Path) -> None:
    write(tmp_path, "a.webp")
    (tmp_path / "b.jpg").touch()
    os.mkfifo(tmp_path / "c.jpg")
    (tmp_path / "d.jpg").symlink_to("nowhere")
    assert [file.problem for file in image_files([str(tmp_path)])] == [
        "WebP is not supported, convert it to JPEG or PNG",
        "empty file",
        "not a regular file",
        "a link to a file that does not exist",
    ]


def test_a_link_back_up_is_not_followed_and_another_is(tmp_path: Path) -> None:
    write(tmp_path, "a/b/1.jpg", "c/2.jpg")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/beside").symlink_to(tmp_path / "c")
    found = [file.path.removeprefix(f"{tmp_path}/") for file in image_files([str(tmp_path)])]
    assert found == ["a/b/1.jpg", "a/beside/2.jpg", "c/2.jpg"]


def test_a_tree_deeper_than_the_stack_is_gone_through(tmp_path: Path) -> None:
    depth = 1500
    start = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("1.jpg").write_bytes(b"x")
        found = list(image_files([str(tmp_path)]))
        os.remove("1.jpg")
        for _ in range(depth):  # pytest, which would delete it, goes down by recursion.
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.fchdir(start)
        os.close(start)
    assert found == [ImageFile(f"{tmp_path}{'/d' * depth}/1.jpg")]


def test_a_folder_that_cannot_be_listed_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    list_folder = module.local_entries

    def refuse(folder: str) -> Iterator[Entry]:
        if folder.endswith("/a"):
            raise UserError("Folder a may not be read: change its permissions.")
        return list_folder(folder)

    monkeypatch.setattr(module, "local_entries", refuse)
    assert list(image_files([str(tmp_path)])) == [
        ImageFile(f"{tmp_path}/a", "Folder a may not be read: change its permissions"),
        ImageFile(f"{tmp_path}/b/2.jpg"),
    ]


def test_folders_are_listed_when_their_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folders.write_classes(tmp_path, {"a": 2, "b": 2})
    listed = []
    list_folder = module.local_entries

    def note(folder: str) -> Iterator[Entry]:
        listed.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(module, "local_entries", note)
    assert len(list(islice(image_files([str(tmp_path)]), 2))) == 2
    assert listed == [str(tmp_path), f"{tmp_path}/a"]


class TestListedAhead:
    def test_files_come_before_all_are_found(self) -> None:
        go_on = threading.Event()

        def files() -> Iterator[ImageFile]:
            yield ImageFile("1")
            assert go_on.wait(PATIENCE_SECONDS)
            yield ImageFile("2")

        listed = ListedAhead(files())
        iterator = iter(listed)
        assert next(iterator) == ImageFile("1")
        assert listed.total is None
        go_on.set()
        assert list(iterator) == [ImageFile("2")]
        assert listed.total == 2

    def test_an_error_reaches_who_takes_the_files(self) -> None:
        def files() -> Iterator[ImageFile]:
            yield ImageFile("1")
            raise UserError("no")

        iterator = iter(ListedAhead(files()))
        assert next(iterator) == ImageFile("1")
        with pytest.raises(UserError, match="no"):
            next(iterator)


def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert read_image(str(tmp_path / "x.jpg")) == "it cannot be read (No such file or directory)"
    write(tmp_path, "x.jpg")
    assert read_image(str(tmp_path / "x.jpg")) == b"x"
