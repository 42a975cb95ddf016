"""Which files to classify: those that were named, and those in folders, found while the first are classified already.

What waits to be classified is names alone, so that a folder may hold a million files. No TensorFlow unless a place is
on gs://.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

from trainer.data.listing import NOT_AN_IMAGE, image_problem, visible
from trainer.data.listing_gfile import gfile_entries
from trainer.data.listing_local import local_entries
from trainer.errors import UserError
from trainer.storage import is_remote, reading_or_writing


class ImageFile(NamedTuple):
    """A file to classify.

    Attributes:
      path: local or gs://, as the user would write it.
      problem: why it cannot be read, as a short phrase; "" if nothing speaks against it.
    """

    path: str
    problem: str = ""


def image_files(places: Iterable[str]) -> Iterator[ImageFile]:
    """The files named, and the images in the folders named and in those inside, each folder sorted by name.

    A file that is named is always tried. In a folder, hidden files and those that no extension calls an image are
    passed over; a link to a folder is followed unless it leads back up. A folder that cannot be listed stands for
    itself, with its problem.

    Args:
      places: files and folders, local ("~" is expanded) or gs://.
    """
    for place in places:
        path = place if is_remote(place) else os.path.expanduser(place)
        if _is_folder(path):
            yield from _images_below(path)
        else:
            yield ImageFile(path)


def read_image(path: str) -> bytes | str:
    """The bytes of a file, or why they cannot be read, as a short phrase.

    Raises:
      UserError: it is in a bucket, which does not answer or refuses.
    """
    if is_remote(path):
        return _read_remote(path)
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _read_remote(path: str) -> bytes | str:
    import tensorflow as tf

    with reading_or_writing(path, "image"), tf.io.gfile.GFile(path, "rb") as file:
        try:
            content: bytes = file.read()
        except tf.errors.NotFoundError:
            return "there is no such file"
        return content


class ListedAhead:
    """Files as an iterable, whose names a thread goes on collecting while the first of them are used.

    Attributes:
      total: how many they are; None until all have been found.
    """

    def __init__(self, files: Iterable[ImageFile]) -> None:
        """Starts the thread, which does not keep the program from ending."""
        self.total: int | None = None
        self._found: SimpleQueue[ImageFile | Exception | None] = SimpleQueue()
        threading.Thread(target=self._collect, args=(files,), name="list_images", daemon=True).start()

    def __iter__(self) -> Iterator[ImageFile]:
        """All files in order, once.

        Raises:
          Exception: what looking for them raised.
        """
        while (found := self._found.get()) is not None:
            if isinstance(found, Exception):
                raise found
            yield found

    def _collect(self, files: Iterable[ImageFile]) -> None:
        count = 0
        try:
            for file in files:
                self._found.put(file)
                count += 1
        except Exception as error:
            self._found.put(error)
        else:
            self.total = count
            self._found.put(None)


@dataclass(frozen=True)
class _Folder:
    """A folder that is being gone through.

    Attributes:
      path: its own.
      identity: the same for every path that leads to it.
      names: of the images and folders in it that are still to come, sorted.
      folders: which names are folders.
      problems: by name, of files that cannot be read.
    """

    path: str
    identity: object
    names: Iterator[str]
    folders: frozenset[str]
    problems: dict[str, str]


def _images_below(root: str) -> Iterator[ImageFile]:
    # A list of folders and no recursion: a tree of folders may be deeper than Python's stack.
    inside: list[_Folder] = []
    waiting = root
    while waiting or inside:
        if waiting:
            try:
                inside += _entered(waiting, inside)
            except (UserError, OSError) as error:
                yield ImageFile(waiting, str(error).rstrip("."))
            waiting = ""
            continue
        folder = inside[-1]
        name = next(folder.names, None)
        if name is None:
            inside.pop()
        elif name in folder.folders:
            waiting = _join(folder.path, name)
        else:
            yield ImageFile(_join(folder.path, name), folder.problems.get(name, ""))


def _entered(path: str, above: Sequence[_Folder]) -> list[_Folder]:
    """A folder, listed; none if it is one of those that lead to it.

    Raises:
      UserError, OSError: it cannot be listed.
    """
    identity = _identity(path)
    if any(folder.identity == identity for folder in above):
        return []
    names: list[str] = []
    folders: set[str] = set()
    problems: dict[str, str] = {}
    for entry in visible(gfile_entries(path) if is_remote(path) else local_entries(path)):
        problem = "" if entry.is_folder else image_problem(entry)
        if problem == NOT_AN_IMAGE:
            continue
        names.append(entry.name)
        if entry.is_folder:
            folders.add(entry.name)
        elif problem:
            problems[entry.name] = problem
    return [_Folder(path, identity, iter(sorted(names)), frozenset(folders), problems)]


def _identity(path: str) -> object:
    if is_remote(path):
        return path
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(path: str) -> bool:
    if not is_remote(path):
        return os.path.isdir(path)
    import tensorflow as tf

    return bool(tf.io.gfile.isdir(path))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
