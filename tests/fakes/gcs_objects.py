"""What lies in the buckets of the fake Cloud Storage, and how it is listed."""

from __future__ import annotations

import base64
import bisect
import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

_FIRST_GENERATION = 1_700_000_000_000_000


@dataclass
class StoredObjects:
    """Objects with content, by name.

    Attributes:
      contents: their bytes.
      generations: another number, larger than all before, whenever an object is written.
      updated: when that was, by the clock of this machine.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    updated: dict[str, str] = field(default_factory=dict)
    _last_generation: int = _FIRST_GENERATION

    def put(self, name: str, content: bytes) -> None:
        self._last_generation += 1
        self.contents[name] = content
        self.generations[name] = self._last_generation
        self.updated[name] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def delete(self, name: str) -> None:
        for facts in (self.contents, self.generations, self.updated):
            del facts[name]  # type: ignore[attr-defined]

    def names(self) -> Sequence[str]:
        return sorted(self.contents)

    def content(self, name: str, generation: str | None = None) -> bytes | None:
        """An object's bytes; None if there is no such object or generation."""
        if name not in self.contents or (generation and int(generation) != self.generations[name]):
            return None
        return self.contents[name]

    def item(self, name: str) -> dict[str, str]:
        """What the JSON API tells of an object."""
        content = self.contents[name]
        return {
            "kind": "storage#object",
            "name": name,
            "size": str(len(content)),
            "generation": str(self.generations[name]),
            "metageneration": "1",
            "crc32c": encoded_crc32c(content),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": self.updated[name],
            "updated": self.updated[name],
        }


class GeneratedObjects:
    """FOLDER/class_0001/photo_0000001.jpg and so on, all of one content, named when they are listed; for reading."""

    def __init__(self, folder: str, classes: int, per_class: int, shared_content: bytes = b"photo") -> None:
        self.folder, self.classes, self.per_class = folder, classes, per_class
        self._content = shared_content
        self._crc32c = encoded_crc32c(shared_content)

    def names(self) -> Sequence[str]:
        return _GeneratedNames(self)

    def item(self, name: str) -> dict[str, str]:
        """What the JSON API tells of an object."""
        return {
            "name": name,
            "size": str(len(self._content)),
            "generation": str(_FIRST_GENERATION),
            "crc32c": self._crc32c,
            "updated": "2026-11-01T00:00:00.000Z",
        }

    def content(self, name: str, generation: str | None = None) -> bytes | None:
        """An object's bytes; None if there is no such object."""
        names = self.names()
        place = bisect.bisect_left(names, name)
        return self._content if place < len(names) and names[place] == name else None


class _GeneratedNames(Sequence[str]):
    def __init__(self, objects: GeneratedObjects) -> None:
        self._objects = objects

    def __len__(self) -> int:
        return self._objects.classes * self._objects.per_class

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number, place = divmod(index, self._objects.per_class)
        return f"{self._objects.folder}/class_{number:04d}/photo_{place:07d}.jpg"


def encoded_crc32c(content: bytes) -> str:
    """The checksum as the API writes it."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def page(objects: StoredObjects | GeneratedObjects, query: dict[str, str]) -> dict[str, Any]:
    """A page of a listing: what begins with "prefix", up to the next "delimiter" after it."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = min(int(query.get("maxResults") or 1000), 1000)
    names = objects.names()
    place = bisect.bisect_left(names, max(prefix, query.get("pageToken", "")))
    items: list[dict[str, str]] = []
    folders: list[str] = []
    while place < len(names) and names[place].startswith(prefix) and len(items) + len(folders) < limit:
        name = names[place]
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            folders.append(name[: cut + len(delimiter)])
            place = bisect.bisect_left(names, folders[-1] + "\U0010ffff")
        else:
            items.append(objects.item(name))
            place += 1
    found: dict[str, Any] = {"kind": "storage#objects", "items": items, "prefixes": folders}
    if place < len(names) and names[place].startswith(prefix):
        found["nextPageToken"] = names[place]
    return found
