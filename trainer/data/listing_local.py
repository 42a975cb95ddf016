"""Lists class folders of this machine; those of large sets again from a cache, as far as they are as they were."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from trainer.data.listing import Entry, ListedFolder, ListingProgress, sort_out
from trainer.data.listing_cache import FolderState, ListingCache
from trainer.errors import UserError

CACHED_FROM = 100_000
"""Sets of fewer files are listed anew every time, sizes and all: that takes less than a second."""

SPOT_CHECKS = 10_000
"""How many files of a cached listing are asked whether size and time are still the same."""

_QUIET_SECONDS = 2.0
"""How long a folder must have been unchanged before its listing is kept: the time that some disks tell is as coarse."""


class LocalLister:
    """Lists the class folders of one root.

    Attributes:
      from_cache: whether sizes and versions of the last `list` are, in part or all, those of an earlier listing.
    """

    def __init__(self, root: str, report: Callable[[str], None], cache: ListingCache | None = None) -> None:
        """Chooses the cache.

        Args:
          root: the folder of the class folders.
          report: called with sentences on progress.
          cache: where listings are kept; by default that of this user.
        """
        self._root, self._report = root, report
        self._cache = cache or ListingCache(root)
        self._progress = ListingProgress(root, report)
        self.from_cache = False

    def list(self, folders: Sequence[str]) -> list[ListedFolder]:
        """The content of each of these class folders.

        Raises:
          UserError: one cannot be read.
        """
        known = self._cache.read()
        unchanged = {name: known[name] for name in folders if name in known and self._state(name) == known[name][0]}
        if not self._spot_check({name: listed for name, (_, listed) in unchanged.items()}):
            self._report(f"Files in {self._root} have changed since it was listed last: listing it anew.")
            known, unchanged = {}, {}
        self.from_cache = bool(unchanged)
        listed = {name: listed for name, (_, listed) in unchanged.items()}
        fresh: dict[str, tuple[FolderState, ListedFolder]] = {}
        for name in folders:
            if name not in listed:
                state = self._state(name)
                listed[name] = sort_out(self._progress.counted(local_entries(f"{self._root}/{name}")))
                if self._was_quiet(name, state):
                    fresh[name] = state, listed[name]
        if fresh and sum(len(folder.names) for folder in listed.values()) >= CACHED_FROM:
            self._keep(known | fresh)
        return [listed[name] for name in folders]

    def _state(self, name: str) -> FolderState:
        """What tells a folder from another or a changed one: itself, its time, and all the names in it."""
        folder = f"{self._root}/{name}"
        with _reading(folder):
            status = os.stat(folder)
            names = os.listdir(os.fsencode(folder))
        return FolderState(status.st_ino, status.st_mtime_ns, hashlib.sha256(b"\0".join(names)).hexdigest())

    def _was_quiet(self, name: str, before: FolderState) -> bool:
        """Whether a listing that is done is of the folder as it was before, and would tell a change from now on."""
        return before.mtime_ns < (time.time() - _QUIET_SECONDS) * 1e9 and self._state(name) == before

    def _spot_check(self, listed: dict[str, ListedFolder]) -> bool:
        """Whether some files, drawn at random, still have the size and time that the listing says.

        A file that is written anew under its old name leaves its folder as it was.
        """
        for name, folder, index in _drawn(listed):
            size, version = _size_and_version(f"{self._root}/{name}/{folder.names[index]}")
            if size != folder.sizes[index] or version != folder.versions[index]:
                return False
        return True

    def _keep(self, folders: dict[str, tuple[FolderState, ListedFolder]]) -> None:
        try:
            self._cache.write(folders)
        except OSError as error:
            self._report(f"The listing of {self._root} could not be kept for the next run ({error}).")


def local_entries(folder: str) -> Iterator[Entry]:
    """What lies directly in a folder, links followed.

    Raises:
      UserError: it is not there or cannot be read.
    """
    with _reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            yield _entry(entry)


def versions_now(paths: Sequence[str]) -> NDArray[np.uint64]:
    """The time of change of each file in nanoseconds since 1970, as `ListedFolder.versions`, asked anew.

    Returns:
      uint64 [n]; 0 for a file that is gone.
    """
    return np.fromiter((_size_and_version(path)[1] for path in paths), np.uint64, len(paths))


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return Entry(entry.name, False, problem="a link to a file that does not exist")
    except OSError as error:
        return Entry(entry.name, False, problem=f"it cannot be read ({error.strerror})")
    if stat.S_ISDIR(status.st_mode):
        return Entry(entry.name, True)
    # A pipe or socket would make the first read wait forever.
    problem = "" if stat.S_ISREG(status.st_mode) else "not a regular file"
    return Entry(entry.name, False, status.st_size, _version(status), problem=problem)


def _size_and_version(path: str) -> tuple[int, int]:
    """As a listing tells them; -1 and 0 of what is no file any more."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return (status.st_size, _version(status)) if stat.S_ISREG(status.st_mode) else (-1, 0)


def _version(status: os.stat_result) -> int:
    return max(status.st_mtime_ns, 0)  # Some archives hold files from before 1970.


def _drawn(listed: dict[str, ListedFolder]) -> Iterator[tuple[str, ListedFolder, int]]:
    """`SPOT_CHECKS` images, drawn at random from all folders together: folder name, folder, place in it."""
    names = list(listed)
    ends = np.cumsum([len(folder.names) for folder in listed.values()])
    total = int(ends[-1]) if names else 0
    for drawn in sorted(random.SystemRandom().sample(range(total), min(SPOT_CHECKS, total))):
        number = int(np.searchsorted(ends, drawn, side="right"))
        folder = listed[names[number]]
        yield names[number], folder, drawn - int(ends[number]) + len(folder.names)


@contextmanager
def _reading(folder: str) -> Iterator[None]:
    """Turns what the operating system says of a folder into a sentence.

    Raises:
      UserError: in place of the error.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"There is no folder {folder}: give an existing one as --data=folder:PATH.") from None
    except NotADirectoryError:
        raise UserError(f"{folder} is not a folder: give one that holds a folder of images for each class.") from None
    except PermissionError:
        raise UserError(f"Folder {folder} may not be read: change its permissions.") from None
    except OSError as error:
        raise UserError(f"Folder {folder} cannot be read ({error.strerror}): give another or mend it.") from None
