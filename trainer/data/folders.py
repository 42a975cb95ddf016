"""Listing a folder of class folders: names, keys and sizes, without opening a single image.

A local folder is read with `os.scandir`; anything with a scheme (`gs://`) through `tf.io.gfile`, by listings alone,
because a question about each single object would cost a request each.
"""

from __future__ import annotations

import difflib
import itertools
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.storage import is_remote

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
"""Lower-case extensions of the files that are taken for images."""

NOT_AN_IMAGE = "not a JPEG, PNG, BMP or GIF image"

_OTHER_FORMATS = {
    ".webp": "WebP",
    ".heic": "HEIC",
    ".heif": "HEIF",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".svg": "SVG",
}

_CONTROL_CODES = ("Cc", "Zl", "Zp")
"""Unicode categories that no class name may have: an export lists its labels line by line."""

# What desktops and archive programs leave behind in folders, in lower case.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class SkippedImage:
    """A file that was left out, and why.

    Attributes:
      key: the file inside the source, as in "roses/a b.jpg".
      reason: a short phrase for a person, such as "empty file".
    """

    key: str
    reason: str


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder of class folders; row i of every field is the same image, sorted by key.

    Attributes:
      class_names: the class folders' names, NFC-normalised, sorted.
      keys: "class/file", NFC-normalised, unique.
      files: the same as they are written on disk, to be opened.
      labels: int32 [n], positions in `class_names`.
      sizes: int64 [n], bytes; None where the listing does not tell.
      unusable: files in class folders that cannot be images, sorted by key; not among the rows.
    """

    class_names: tuple[str, ...]
    keys: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64] | None
    unusable: tuple[SkippedImage, ...]


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    size: int
    """Bytes, or -1 if the listing does not tell."""
    problem: str = ""


class _ClassFolder(NamedTuple):
    """One class folder: row i of each list is the same image, sorted by NFC-normalised name."""

    files: list[str]
    sizes: list[int]
    unusable: list[SkippedImage]


def list_class_folders(root: str, classes: Collection[str], report: Callable[[str], None]) -> FolderListing:
    """Lists the images directly inside the class folders of `root`.

    Hidden files, desktop litter and loose files beside the class folders are passed over.

    Args:
      root: a folder, local or with a scheme, without a slash at its end.
      classes: the class folders to take; empty takes all.
      report: called with a sentence about anything that is passed over and might surprise.

    Raises:
      UserError: no such folder, no or one class folder only, a class that does not exist or holds no image, or two
        names that differ in Unicode normalisation alone.
    """
    folders = _class_folders(root)
    class_names = choose_classes(sorted(folders), classes, f"folder {root}")
    found = {name: _list_class(root, name, folders[name], report) for name in class_names}
    if len(class_names) < 2:
        raise UserError(
            f"Folder {root} has only one class folder, {class_names[0]}; a classifier needs at least two classes."
        )
    # With the slash that follows a class name in every key, because some characters sort before it: this way the
    # keys of all classes together come out sorted.
    in_key_order = sorted(class_names, key=lambda name: name + "/")
    files = [f"{folders[name]}/{file}" for name in in_key_order for file in found[name].files]
    keys = [_normalised(file) for file in files]
    _check_unique(root, keys)
    counts = [len(found[name].files) for name in in_key_order]
    sizes = np.fromiter((size for name in in_key_order for size in found[name].sizes), np.int64, len(files))
    return FolderListing(
        class_names=class_names,
        keys=files if keys == files else keys,  # One list in memory, not two, where the names are plain.
        files=files,
        labels=np.repeat([class_names.index(name) for name in in_key_order], counts).astype(np.int32),
        sizes=None if (sizes < 0).any() else sizes,
        unusable=tuple(bad for name in in_key_order for bad in found[name].unusable),
    )


def choose_classes(available: Sequence[str], wanted: Collection[str], where: str) -> tuple[str, ...]:
    """The classes of `available` that are wanted, in their order there; all if `wanted` is empty.

    Raises:
      UserError: a wanted class is not available; the sentence suggests the nearest.
    """
    normalised = {_normalised(name) for name in wanted}
    for name in sorted(normalised.difference(available)):
        near = difflib.get_close_matches(name, available, 1)
        shown = ", ".join(available[:10]) + (", …" if len(available) > 10 else "")
        hint = f"did you mean {near[0]}?" if near else f"it has {shown}."
        raise UserError(f"--classes names {name}, which {where} does not have; {hint}")
    return tuple(name for name in available if not normalised or name in normalised)


def bad_images_error(root: str, bad: Sequence[SkippedImage]) -> UserError:
    """The error that stops a run for images that cannot be used: names the first, counts the others."""
    others = {1: "", 2: " (one more file like it)"}.get(len(bad), f" ({len(bad) - 1} more files like it)")
    return UserError(
        f"{root}/{bad[0].key} cannot be used: {bad[0].reason}{others}. Mend or remove it, or leave such files out "
        "with --on_bad_image=skip."
    )


def no_image_error(class_name: str, where: str) -> UserError:
    """The error for a class that has no usable image."""
    return UserError(
        f"Class {class_name} of {where} has no usable JPEG, PNG, BMP or GIF image: add some, remove its folder, or "
        "choose others with --classes."
    )


def _class_folders(root: str) -> dict[str, str]:
    """NFC-normalised class names to folder names as on disk."""
    folders: dict[str, str] = {}
    loose_images = 0
    for entry in _visible_entries(root):
        if not entry.is_folder:
            loose_images += _extension(entry.name) in IMAGE_EXTENSIONS
            continue
        if not _is_unicode(entry.name):
            raise UserError(f"The name of folder {root}/{_printable(entry.name)} is not valid UTF-8: rename it.")
        name = _normalised(entry.name)
        if any(unicodedata.category(character) in _CONTROL_CODES for character in name):
            shown = name.encode("unicode_escape").decode()
            raise UserError(f"The name of folder {root}/{shown} has a line end or control code in it: rename it.")
        if name in folders:
            raise UserError(f"Folder {root} has two folders {name} that differ in Unicode form alone: rename one.")
        folders[name] = entry.name
    if not folders:
        beside = " but images" if loose_images else ""
        raise UserError(
            f"Folder {root} has no class folders{beside}: put the images of each class into a folder of its own, "
            "named after the class."
        )
    return folders


def _list_class(root: str, class_name: str, folder: str, report: Callable[[str], None]) -> _ClassFolder:
    """Lists one class folder.

    Raises:
      UserError: it holds no image.
    """
    images: list[tuple[str, str, int]] = []
    unusable: list[SkippedImage] = []
    subfolders = 0
    for entry in _visible_entries(f"{root}/{folder}"):
        if entry.is_folder:
            subfolders += 1
        elif problem := _problem(entry):
            unusable.append(SkippedImage(_normalised(f"{class_name}/{_printable(entry.name)}"), problem))
        else:
            images.append((_normalised(entry.name), entry.name, entry.size))
    if not images and subfolders:
        raise UserError(
            f"{root}/{folder} holds folders and no image: --data=folder:PATH takes the folder whose direct "
            "subfolders are the classes."
        )
    if not images:
        raise no_image_error(class_name, f"folder {root}")
    if subfolders:
        report(f"Only images directly in {root}/{folder} are used; folders in it are passed over ({subfolders}).")
    images.sort()
    unusable.sort(key=lambda bad: bad.key)
    return _ClassFolder([name for _, name, _ in images], [size for _, _, size in images], unusable)


def _problem(entry: _Entry) -> str:
    """Why a file cannot be an image, as far as a listing tells; "" if nothing speaks against it."""
    if entry.problem:
        return entry.problem
    if not _is_unicode(entry.name):
        return "its name is not valid UTF-8"
    extension = _extension(entry.name)
    if extension in _OTHER_FORMATS:
        return f"{_OTHER_FORMATS[extension]} is not supported, convert it to JPEG or PNG"
    if extension not in IMAGE_EXTENSIONS:
        return NOT_AN_IMAGE
    return "empty file" if entry.size == 0 else ""


def _check_unique(root: str, keys: Sequence[str]) -> None:
    """Raises UserError if two neighbours of the sorted keys are equal."""
    for before, key in itertools.pairwise(keys):
        if before == key:
            raise UserError(f"{root} has two files {key} that differ in Unicode form alone: rename or remove one.")


def _visible_entries(folder: str) -> Iterator[_Entry]:
    entries = _remote_entries(folder) if is_remote(folder) else _local_entries(folder)
    return (entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _LITTER)


def _local_entries(folder: str) -> Iterator[_Entry]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield _local_entry(entry)
    except FileNotFoundError:
        raise UserError(f"There is no folder {folder}: give an existing one as --data=folder:PATH.") from None
    except NotADirectoryError:
        raise UserError(f"{folder} is not a folder: give one that holds a folder of images for each class.") from None
    except PermissionError:
        raise UserError(f"Folder {folder} may not be read: change its permissions.") from None
    except OSError as error:
        raise UserError(f"Folder {folder} cannot be read ({error.strerror}): give another or mend it.") from None


def _local_entry(entry: os.DirEntry[str]) -> _Entry:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return _Entry(entry.name, False, -1, "a link to a file that does not exist")
    except OSError as error:
        return _Entry(entry.name, False, -1, f"it cannot be read ({error.strerror})")
    if stat.S_ISDIR(status.st_mode):
        return _Entry(entry.name, True, -1)
    # A pipe or socket would make the first read wait forever.
    problem = "" if stat.S_ISREG(status.st_mode) else "not a regular file"
    return _Entry(entry.name, False, status.st_size, problem)


def _remote_entries(folder: str) -> Iterator[_Entry]:
    import tensorflow as tf

    try:
        names = tf.io.gfile.listdir(folder)
    except tf.errors.NotFoundError:
        raise UserError(f"There is no folder {folder}: give an existing one as --data=folder:PATH.") from None
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        raise UserError(f"Folder {folder} may not be read: {error.message}") from None
    except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{folder} cannot be listed as a folder: {error.message}") from None
    for listed in names:
        name = listed.rstrip("/")
        if not name:  # The object that marks an empty "folder" of a bucket.
            continue
        # Cloud file systems list folders with a slash. Others do not and have to be asked, but not about what bears
        # the extension of an image: that would be a request a file.
        is_folder = listed.endswith("/") or (
            _extension(name) not in IMAGE_EXTENSIONS and tf.io.gfile.isdir(f"{folder}/{name}")
        )
        yield _Entry(name, is_folder, -1)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_unicode(name: str) -> bool:
    """False for the surrogates by which Python stands in for bytes of a file name that are no UTF-8."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
