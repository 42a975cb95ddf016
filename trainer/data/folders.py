"""Listing a folder of class folders: names, keys and sizes, without opening a single image.

A local folder is read by `trainer.data.listing_local`, a bucket on `gs://` by `trainer.data.listing_bucket`, any other
scheme through `tf.io.gfile`.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.listing import (
    IMAGE_EXTENSIONS,
    NOT_AN_IMAGE,
    Entry,
    ListedFolder,
    ListingProgress,
    extension,
    is_text,
    normalised,
    printable_name,
    sort_out,
    visible,
)
from trainer.data.listing_gfile import gfile_entries
from trainer.data.listing_local import LocalLister, local_entries
from trainer.data.names import Names
from trainer.errors import UserError
from trainer.storage import is_remote

__all__ = ["IMAGE_EXTENSIONS", "NOT_AN_IMAGE", "FolderListing", "SkippedImage", "list_class_folders"]

CONTROL_CODES = ("Cc", "Zl", "Zp")
"""Unicode categories that no class name may have: an export lists its labels line by line."""


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
      versions: uint64 [n], see `ListedFolder.versions`; None where the listing does not tell.
      checksums: int64 [n], CRC32C or -1; None where the listing tells none.
      from_cache: sizes and versions may be those of an earlier listing; names are as they are.
      unusable: files in class folders that cannot be images, sorted by key; not among the rows.
    """

    class_names: tuple[str, ...]
    keys: Names
    files: Names
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64] | None
    versions: NDArray[np.uint64] | None
    checksums: NDArray[np.int64] | None
    from_cache: bool
    unusable: tuple[SkippedImage, ...]


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
    entries, list_folders = _lister(root, report)
    folders = _class_folders(root, entries)
    class_names = choose_classes(sorted(folders), classes, f"folder {root}")
    # With the slash that follows a class name in every key, because some characters sort before it: this way the
    # keys of all classes together come out sorted.
    in_key_order = sorted(class_names, key=lambda name: name + "/")
    listed, from_cache = list_folders([folders[name] for name in in_key_order])
    for name, content in zip(in_key_order, listed):
        _check_class(root, name, folders[name], content, report)
    if len(class_names) < 2:
        raise UserError(
            f"Folder {root} has only one class folder, {class_names[0]}; a classifier needs at least two classes."
        )
    files = _joined([folders[name] for name in in_key_order], listed)
    keys = _normalised_names(files)
    _check_unique(root, keys)
    places = {name: place for place, name in enumerate(class_names)}
    labels = np.array([places[name] for name in in_key_order], np.int32)
    return FolderListing(
        class_names=class_names,
        keys=keys,
        files=files,
        labels=np.repeat(labels, [len(content.names) for content in listed]),
        sizes=_all_known(np.concatenate([content.sizes for content in listed]), -1),
        versions=_all_known(np.concatenate([content.versions for content in listed]), 0),
        checksums=_any_known(np.concatenate([content.checksums for content in listed]), -1),
        from_cache=from_cache,
        unusable=tuple(
            SkippedImage(f"{name}/{file}", problem)
            for name, content in zip(in_key_order, listed)
            for file, problem in content.unusable
        ),
    )


def choose_classes(available: Sequence[str], wanted: Collection[str], where: str) -> tuple[str, ...]:
    """The classes of `available` that are wanted, in their order there; all if `wanted` is empty.

    Raises:
      UserError: a wanted class is not available; the sentence suggests the nearest.
    """
    chosen = {normalised(name) for name in wanted}
    for name in sorted(chosen.difference(available)):
        near = difflib.get_close_matches(name, available, 1)
        shown = ", ".join(available[:10]) + (", …" if len(available) > 10 else "")
        hint = f"did you mean {near[0]}?" if near else f"it has {shown}."
        raise UserError(f"--classes names {name}, which {where} does not have; {hint}")
    return tuple(name for name in available if not chosen or name in chosen)


def bad_images_error(first: str, bad: Sequence[SkippedImage]) -> UserError:
    """The error that stops a run for images that cannot be used: names the first by its place, counts the others."""
    others = {1: "", 2: " (one more file like it)"}.get(len(bad), f" ({len(bad) - 1} more files like it)")
    return UserError(
        f"{first} cannot be used: {bad[0].reason}{others}. Mend or remove it, or leave such files out "
        "with --on_bad_image=skip."
    )


def no_image_error(class_name: str, where: str) -> UserError:
    """The error for a class that has no usable image."""
    return UserError(
        f"Class {class_name} of {where} has no usable JPEG, PNG, BMP or GIF image: add some, remove its folder, or "
        "choose others with --classes."
    )


def _class_folders(root: str, entries: Iterable[Entry]) -> dict[str, str]:
    """NFC-normalised class names to folder names as on disk."""
    folders: dict[str, str] = {}
    loose_images = 0
    for entry in visible(entries):
        if not entry.is_folder:
            loose_images += extension(entry.name) in IMAGE_EXTENSIONS
            continue
        if not is_text(entry.name):
            raise UserError(f"The name of folder {root}/{printable_name(entry.name)} is not valid UTF-8: rename it.")
        name = normalised(entry.name)
        if any(unicodedata.category(character) in CONTROL_CODES for character in name):
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


def _check_class(root: str, name: str, folder: str, content: ListedFolder, report: Callable[[str], None]) -> None:
    """Raises UserError if a class folder holds no image; reports folders in it."""
    if not len(content.names) and content.subfolders:
        raise UserError(
            f"{root}/{folder} holds folders and no image: --data=folder:PATH takes the folder whose direct "
            "subfolders are the classes."
        )
    if not len(content.names):
        raise no_image_error(name, f"folder {root}")
    if content.subfolders:
        report(
            f"Only images directly in {root}/{folder} are used; folders in it are passed over ({content.subfolders})."
        )


_ListFolders = Callable[[Sequence[str]], tuple[list[ListedFolder], bool]]
"""From names of class folders to their contents, and whether those are, in part, of an earlier listing."""


def _lister(root: str, report: Callable[[str], None]) -> tuple[Iterable[Entry], _ListFolders]:
    """What lies in a root, and a function that lists class folders in it."""
    if root.startswith("gs://"):
        from trainer.data.listing_bucket import BucketLister

        bucket = BucketLister(root, report)
        return bucket.entries(), lambda folders: (bucket.list(folders), False)
    if is_remote(root):
        progress = ListingProgress(root, report)
        return gfile_entries(root), lambda folders: (
            [sort_out(progress.counted(gfile_entries(f"{root}/{folder}"))) for folder in folders],
            False,
        )
    local = LocalLister(root, report)
    return local_entries(root), lambda folders: (local.list(folders), local.from_cache)


def _joined(folders: Iterable[str], listed: Iterable[ListedFolder]) -> Names:
    """The names "folder/file" of all files, in order."""
    parts: list[bytes] = []
    count = 0
    for folder, content in zip(folders, listed):
        prefix = f"{folder}/".encode()
        parts.append(prefix + content.names.joined.replace(b"\0", b"\0" + prefix))
        count += len(content.names)
    return Names(b"\0".join(parts), count)


def _normalised_names(names: Names) -> Names:
    """NFC forms; the same object where they are what the names are."""
    if names.joined.isascii():
        return names
    text = names.joined.decode()
    # A NUL combines with nothing, so the names do not mix.
    return names if unicodedata.is_normalized("NFC", text) else Names(normalised(text).encode(), len(names))


def _check_unique(root: str, keys: Names) -> None:
    """Raises UserError if two neighbours of the sorted keys are equal."""
    before = b""
    for block in keys.blocks():
        for key in block.split(b"\0"):
            if before == key:
                raise UserError(
                    f"{root} has two files {key.decode()} that differ in Unicode form alone: rename or remove one."
                )
            before = key


def _all_known(values: NDArray, unknown: int) -> NDArray | None:
    return None if (values == unknown).any() else values


def _any_known(values: NDArray, unknown: int) -> NDArray | None:
    return None if (values == unknown).all() else values
