"""Copies objects from gs:// to a local folder before training, and never twice.

A copy is named by a hash of where it comes from and of what it is, not by the object: so no object's name reaches out
of the folder, is too long for a disk or meets another one that differs in case, and an object that was replaced gets a
copy of its own. A file gets its name when it is whole and its checksum right.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from trainer.data.file_source import FileSource, PathsUnder
from trainer.data.names import Names
from trainer.errors import UserError
from trainer.every_few_seconds import EveryFewSeconds
from trainer.storage import absolute, reading_or_writing
from trainer.storage_bucket import Bucket, split_address

_FLAG = "--stage_to"

_PARTIAL = "partial"
"""Where files are that are being copied."""

_ABANDONED_SECONDS = 3600.0
"""A partial file that nobody has written to for so long was left behind by a run that is no more."""

_COPIES_AT_ONCE = 8

_ATTEMPTS = 3
"""How often an object is fetched that arrives damaged."""

_READ_BYTES = 2**20


@dataclass(frozen=True)
class RemoteFiles:
    """Objects of one bucket, as a listing told them; row i of every field is the same object.

    Attributes:
      addresses: "gs://BUCKET/NAME" [n].
      sizes: int64 [n], bytes.
      checksums: int64 [n], CRC32C, or -1 where it is not known.
      generations: uint64 [n], or 0 where it is not known.
    """

    addresses: Sequence[str]
    sizes: NDArray[np.int64]
    checksums: NDArray[np.int64]
    generations: NDArray[np.uint64]

    def local_name(self, index: int) -> str:
        """The name of an object's copy, "ab/…": 39 characters, the same for the same content."""
        checksum = int(self.checksums[index])
        content = f"crc32c {checksum}" if checksum >= 0 else f"generation {self.generations[index]}"
        text = f"{self.addresses[index]}\0{self.sizes[index]}\0{content}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"{digest[:2]}/{digest[2:38]}"


def staged(source: FileSource, folder: str, report: Callable[[str], None], bucket: Bucket | None = None) -> FileSource:
    """The same images with the same names, read from local copies; see `stage`.

    Args:
      source: on gs://.
      folder: a local folder, made if need be.
      report: called with sentences on progress.
      bucket: an open one; by default with this user's credentials.

    Raises:
      UserError: see `stage`.
    """
    count = len(source)
    if source.sizes is None:
        raise ValueError(f"the listing of {source.name} has no sizes")
    files = RemoteFiles(
        addresses=source.paths,
        sizes=source.sizes,
        checksums=np.full(count, -1) if source.checksums is None else source.checksums,
        generations=np.zeros(count, np.uint64) if source.listed_versions is None else source.listed_versions,
    )
    folder = absolute(folder)
    return replace(source, paths=PathsUnder(folder, stage(files, folder, report, bucket)))


def stage(files: RemoteFiles, folder: str, report: Callable[[str], None], bucket: Bucket | None = None) -> Names:
    """Makes sure that a folder has a copy of each object.

    Copies that are there already count if their size and checksum are right; so what was interrupted goes on. Several
    processes may stage into one folder at once.

    Args:
      files: what to copy.
      folder: absolute path of a local folder, made if need be.
      report: called every few seconds with a sentence on the progress.
      bucket: an open one; by default with this user's credentials.

    Returns:
      The copies' names inside the folder, in the order of `files`.

    Raises:
      UserError: the folder cannot be written, the disk is or would be full, or an object cannot be fetched, is gone, or
        arrives damaged again and again.
    """
    names = Names.of(files.local_name(index) for index in range(len(files.addresses)))
    if not len(names):
        return names
    bucket = bucket or Bucket(split_address(files.addresses[0])[0], _FLAG)
    with reading_or_writing(folder, _FLAG):
        _make_folders(folder)
        _check_room(files, names, folder)
        progress = _Progress(files, folder, report)

        def ensure(index: int) -> int:
            _ensure(files, index, os.path.join(folder, names[index]), os.path.join(folder, _PARTIAL), bucket)
            return index

        with ThreadPoolExecutor(_COPIES_AT_ONCE, thread_name_prefix="staging") as threads:
            order = _order(len(names))
            while block := list(islice(order, 8 * _COPIES_AT_ONCE)):
                for index in threads.map(ensure, block):
                    progress.add(index)
    progress.end()
    return names


class _Progress:
    """Says now and then how much is there, and at the end if that was needed."""

    def __init__(self, files: RemoteFiles, folder: str, report: Callable[[str], None]) -> None:
        self._files, self._folder, self._report = files, folder, report
        self._count, self._bytes = 0, 0
        self._reports = EveryFewSeconds()

    def add(self, index: int) -> None:
        self._count += 1
        self._bytes += int(self._files.sizes[index])
        if self._reports.due():
            self._say()

    def end(self) -> None:
        if self._reports.was_due:
            self._say()

    def _say(self) -> None:
        total = int(self._files.sizes.sum())
        self._report(
            f"Staging to {self._folder}: {self._count:,} of {len(self._files.addresses):,} files, "
            f"{self._bytes / 1e9:.2f} of {total / 1e9:.2f} GB."
        )


def _order(count: int) -> Iterator[int]:
    """All indices, from a place of this process's own: several processes then share the work."""
    first = random.SystemRandom().randrange(count)
    yield from range(first, count)
    yield from range(first)


def _make_folders(folder: str) -> None:
    partial = os.path.join(folder, _PARTIAL)
    os.makedirs(partial, exist_ok=True)
    for number in range(256):
        os.makedirs(os.path.join(folder, f"{number:02x}"), exist_ok=True)
    for name in os.listdir(partial):
        path = os.path.join(partial, name)
        try:
            if time.time() - os.stat(path).st_mtime > _ABANDONED_SECONDS:
                os.remove(path)
        except FileNotFoundError:
            continue  # Another process has finished or removed it.


def _check_room(files: RemoteFiles, names: Names, folder: str) -> None:
    """Raises UserError if what is missing is more than the disk has room for."""
    missing = sum(int(size) for name, size in zip(names, files.sizes) if _size(os.path.join(folder, name)) != size)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise UserError(
            f"{missing / 1e9:.2f} GB are to be copied to {folder}, and its disk has {free / 1e9:.2f} GB free: "
            f"free some space or give another {_FLAG}."
        )


def _ensure(files: RemoteFiles, index: int, path: str, partial: str, bucket: Bucket) -> None:
    """Fetches an object unless there is a right copy already."""
    if _is_right(path, int(files.sizes[index]), int(files.checksums[index])):
        return
    address = files.addresses[index]
    for _ in range(_ATTEMPTS):
        temporary = os.path.join(partial, f"{os.path.basename(path)}.{secrets.token_hex(4)}")
        try:
            with open(temporary, "xb") as file:
                bucket.download(split_address(address)[1], int(files.generations[index]), file)
            if _is_right(temporary, int(files.sizes[index]), int(files.checksums[index])):
                os.replace(temporary, path)
                return
        finally:
            if os.path.lexists(temporary):
                os.remove(temporary)
    raise UserError(
        f"{address} arrived {_ATTEMPTS} times with another size or checksum than the bucket lists: check the network, "
        "or write the object anew."
    )


def _is_right(path: str, size: int, checksum: int) -> bool:
    """Whether a file is there with this size and, where it is known, this CRC32C."""
    return _size(path) == size and (checksum < 0 or _crc32c(path) == checksum)


def _size(path: str) -> int:
    """Of a file in bytes; -1 if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def _crc32c(path: str) -> int:
    import google_crc32c

    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            checksum = google_crc32c.extend(checksum, block)
    return checksum
