"""Keeps listings of large sets between runs, in one file for each root.

A file begins with what it is and a checksum; one that is damaged, of another version or of another root counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from trainer.cache_home import cache_home
from trainer.data.listing import ListedFolder
from trainer.data.names import Names

_VERSION = b"hub-trainer listing 1\n"

_DIGEST_BYTES = hashlib.sha256().digest_size


class FolderState(NamedTuple):
    """What a folder was like when it was listed; as long as it is equal, so are the names in it.

    Attributes:
      inode: its number on its disk.
      mtime_ns: when a name in it was last added, removed or given to another file; nanoseconds since 1970.
      names: SHA-256 of all names in it, in the order in which the disk gives them: not all disks keep the time right.
    """

    inode: int
    mtime_ns: int
    names: str


class ListingCache:
    """The kept listing of one root."""

    def __init__(self, root: str, folder: str | None = None) -> None:
        """Names the file; nothing is read or made.

        Args:
          root: absolute path of the folder of the class folders.
          folder: where listings are kept; by default `cache_home` has a folder for them.
        """
        self._root = root
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self.path = os.path.join(folder or cache_home("listings"), name)

    def read(self) -> dict[str, tuple[FolderState, ListedFolder]]:
        """The kept class folders by name; none if there is no file that can be read and is whole."""
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except OSError:
            return {}
        version, body = content[: len(_VERSION)], content[len(_VERSION) + _DIGEST_BYTES :]
        digest = content[len(_VERSION) : len(_VERSION) + _DIGEST_BYTES]
        if version != _VERSION or hashlib.sha256(body).digest() != digest:
            return {}
        header, _, arrays = body.partition(b"\n")
        fields = json.loads(header)
        return (
            _unpacked(fields["folders"], memoryview(arrays)) if fields["root"] == os.fsencode(self._root).hex() else {}
        )

    def write(self, folders: Mapping[str, tuple[FolderState, ListedFolder]]) -> None:
        """Keeps these class folders in place of what was kept; readers see the old file or the new one.

        Raises:
          OSError: the folder cannot be made or written.
        """
        rows = [_row(name, *kept) for name, kept in folders.items()]
        header = json.dumps({"root": os.fsencode(self._root).hex(), "folders": rows}).encode() + b"\n"
        parts = [header, *(part for _, listed in folders.values() for part in _arrays(listed))]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        temporary = f"{self.path}.tmp-{secrets.token_hex(4)}"
        try:
            with open(temporary, "xb") as file:
                file.writelines([_VERSION, digest.digest(), *parts])
            os.replace(temporary, self.path)
        except BaseException:
            if os.path.lexists(temporary):
                os.remove(temporary)
            raise


def _row(name: str, state: FolderState, listed: ListedFolder) -> dict[str, Any]:
    return {
        "name": name,
        "state": list(state),
        "images": len(listed.names),
        "name_bytes": len(listed.names.joined),
        "unusable": listed.unusable,
        "subfolders": listed.subfolders,
    }


def _arrays(listed: ListedFolder) -> list[bytes]:
    """Names, sizes and versions; local files have no checksums."""
    return [listed.names.joined, listed.sizes.astype("<i8").tobytes(), listed.versions.astype("<u8").tobytes()]


def _unpacked(rows: list[dict[str, Any]], arrays: memoryview) -> dict[str, tuple[FolderState, ListedFolder]]:
    folders: dict[str, tuple[FolderState, ListedFolder]] = {}
    for row in rows:
        images, sizes = row["images"], row["name_bytes"]
        versions, end = sizes + 8 * images, sizes + 16 * images
        listed = ListedFolder(
            names=Names(bytes(arrays[:sizes]), images),
            sizes=np.frombuffer(arrays[sizes:versions], "<i8"),
            versions=np.frombuffer(arrays[versions:end], "<u8"),
            checksums=np.full(images, -1),
            unusable=tuple((name, problem) for name, problem in row["unusable"]),
            subfolders=row["subfolders"],
        )
        folders[row["name"]] = FolderState(*row["state"]), listed
        arrays = arrays[end:]
    return folders
