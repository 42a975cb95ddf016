"""What a listing of class folders consists of, wherever they lie, and which of the files count as images."""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.names import Names
from trainer.every_few_seconds import EveryFewSeconds

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

# What desktops and archive programs leave behind in folders, in lower case.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}

_ENTRIES_BETWEEN_LOOKS = 1000
"""How often a listing looks at the clock."""


class Entry(NamedTuple):
    """What a listing tells of a file or folder.

    Attributes:
      name: its own, without the folder's.
      is_folder: whether it is one.
      size: bytes, or -1 if the listing does not tell.
      version: see `ListedFolder.versions`.
      checksum: see `ListedFolder.checksums`.
      problem: why it cannot be read, as a short phrase; "" if nothing speaks against it.
    """

    name: str
    is_folder: bool
    size: int = -1
    version: int = 0
    checksum: int = -1
    problem: str = ""


@dataclass(frozen=True, eq=False)
class ListedFolder:
    """The direct content of a class folder; row i of each array is the same image, sorted by NFC-normalised name.

    Attributes:
      names: of the images, as they are written on disk.
      sizes: int64 [n], bytes, or -1 where the listing does not tell.
      versions: uint64 [n], another one when the file was written again: the time of change of a local file, in
        nanoseconds since 1970; the generation of an object in a bucket; 0 where the listing does not tell.
      checksums: int64 [n], CRC32C of the content, or -1 where the listing does not tell.
      unusable: names, in printable form, of files that cannot be images, and why; sorted.
      subfolders: how many there are.
    """

    names: Names
    sizes: NDArray[np.int64]
    versions: NDArray[np.uint64]
    checksums: NDArray[np.int64]
    unusable: tuple[tuple[str, str], ...] = ()
    subfolders: int = 0


class ListingProgress:
    """Says every few seconds how many files have been listed, by whatever threads."""

    def __init__(self, root: str, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Starts counting.

        Args:
          root: the folder, for the sentence.
          report: takes the sentences.
          clock: seconds.
        """
        self._root, self._report = root, report
        self._files = 0
        self._lock = threading.Lock()
        self._reports = EveryFewSeconds(clock)

    def add(self, files: int) -> None:
        """Counts files that were listed, and reports if it is time to."""
        with self._lock:
            self._files += files
            if self._reports.due():
                self._report(f"Listing {self._root}: {self._files:,} files so far.")

    def counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, counted as they go by."""
        passed = 0
        for passed, entry in enumerate(entries, 1):
            yield entry
            if not passed % _ENTRIES_BETWEEN_LOOKS:
                self.add(_ENTRIES_BETWEEN_LOOKS)
        self.add(passed % _ENTRIES_BETWEEN_LOOKS)


def visible(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries that are neither hidden nor desktop litter."""
    return (entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _LITTER)


def sort_out(entries: Iterable[Entry]) -> ListedFolder:
    """Tells images from what cannot be one, and from folders."""
    images: list[tuple[str, str, int, int, int]] = []
    unusable: list[tuple[str, str]] = []
    subfolders = 0
    for entry in visible(entries):
        if entry.is_folder:
            subfolders += 1
        elif problem := image_problem(entry):
            unusable.append((normalised(printable_name(entry.name)), problem))
        else:
            images.append((normalised(entry.name), entry.name, entry.size, entry.version, entry.checksum))
    images.sort()
    return ListedFolder(
        names=Names.of(image[1] for image in images),
        sizes=np.fromiter((image[2] for image in images), np.int64, len(images)),
        versions=np.fromiter((image[3] for image in images), np.uint64, len(images)),
        checksums=np.fromiter((image[4] for image in images), np.int64, len(images)),
        unusable=tuple(sorted(unusable)),
        subfolders=subfolders,
    )


def extension(name: str) -> str:
    """The lower-case extension of a file name, with its dot; "" if there is none."""
    return os.path.splitext(name)[1].lower()


def normalised(text: str) -> str:
    """The NFC form, in which names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_text(name: str) -> bool:
    """False for the surrogates by which Python stands in for bytes of a file name that are no UTF-8, and for NUL."""
    return "\0" not in name and (name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name))


def printable_name(name: str) -> str:
    """A name with bytes that are no UTF-8, and NUL, as Python escapes."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def image_problem(entry: Entry) -> str:
    """Why a file cannot be an image, as far as a listing tells; "" if nothing speaks against it."""
    if entry.problem:
        return entry.problem
    if not is_text(entry.name):
        return "its name is not valid UTF-8"
    if entry.size and entry.name.lower().endswith(IMAGE_EXTENSIONS):  # A million times: faster than to cut the name.
        return ""
    suffix = extension(entry.name)
    if suffix in _OTHER_FORMATS:
        return f"{_OTHER_FORMATS[suffix]} is not supported, convert it to JPEG or PNG"
    if suffix not in IMAGE_EXTENSIONS:
        return NOT_AN_IMAGE
    return "empty file" if entry.size == 0 else ""
