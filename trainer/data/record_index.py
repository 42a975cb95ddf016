"""Which image is where in a set of TFRecord files: found by reading them all once, in parallel, and then kept.

The converter writes the index beside the records, as index.npz. Of other records it is kept in the user's cache folder
and holds as long as no file of the set changes its size or time.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.folders import SkippedImage
from trainer.data.names import Names
from trainer.data.record_framing import FRAME_BYTES

_FORMAT = 1
"""Counts up when an index of today could not be read tomorrow."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordIndex:
    """Row i of every array is the same image; rows are sorted by key.

    Attributes:
      files: the files' names, below one folder.
      file_sizes: their bytes.
      image_feature: the feature that holds the encoded image.
      class_names: what the labels mean.
      keys: [n], unique.
      labels: int32 [n], positions in `class_names`.
      file_numbers: int32 [n], positions in `files`.
      offsets: int64 [n], where a record begins in its file.
      lengths: int64 [n], bytes of its data.
      image_sizes: int64 [n], bytes of the encoded image in it.
      damaged: records whose checksum is wrong; not among the rows.
    """

    files: tuple[str, ...]
    file_sizes: tuple[int, ...]
    image_feature: str
    class_names: tuple[str, ...]
    keys: Names
    labels: NDArray[np.int32]
    file_numbers: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    image_sizes: NDArray[np.int64]
    damaged: tuple[SkippedImage, ...] = ()

    def rows(self, chosen: NDArray[np.int64]) -> RecordIndex:
        """The same index with these rows alone."""
        return replace(
            self,
            keys=self.keys.take(chosen),
            **{name: getattr(self, name)[chosen] for name in _COLUMNS},
        )

    def relabelled(self, class_names: tuple[str, ...], new_labels: NDArray[np.int32]) -> RecordIndex:
        """The same index with other classes.

        Args:
          class_names: the new ones.
          new_labels: int32 [classes], for each class of today its position in the new ones.
        """
        return replace(self, class_names=class_names, labels=new_labels[self.labels])

    def to_bytes(self, stamp: str) -> bytes:
        """The index as an .npz file, always the same bytes for the same index.

        Args:
          stamp: what the index holds for; `from_bytes` wants the same.
        """
        head = {
            "format": _FORMAT,
            "stamp": stamp,
            "files": self.files,
            "file_sizes": self.file_sizes,
            "image_feature": self.image_feature,
            "class_names": self.class_names,
            "damaged": [[image.key, image.reason] for image in self.damaged],
        }
        texts = {"head": json.dumps(head), "keys": self.keys.joined.decode()}
        arrays: dict[str, Any] = {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
        file = io.BytesIO()
        np.savez(file, **arrays, **{name: getattr(self, name) for name in _COLUMNS})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, stamp: str) -> RecordIndex | None:
        """Reads what `to_bytes` wrote; None if that was for something else, or is damaged or not to be believed."""
        try:
            index = cls._read(content, stamp)
            return index if index and index._is_sound() else None
        except (ValueError, KeyError, TypeError, EOFError, OSError, MemoryError, AttributeError, zipfile.BadZipFile):
            return None

    @classmethod
    def _read(cls, content: bytes, stamp: str) -> RecordIndex | None:
        file = io.BytesIO(content)
        if any(member.file_size > len(content) for member in zipfile.ZipFile(file).infolist()):
            return None  # Nothing that we write is compressed: this would unpack to something much larger.
        with np.load(file, allow_pickle=False) as arrays:
            head: dict[str, Any] = json.loads(arrays["head"].tobytes())
            if (head["format"], head["stamp"]) != (_FORMAT, stamp):
                return None
            return cls(
                files=tuple(head["files"]),
                file_sizes=tuple(head["file_sizes"]),
                image_feature=head["image_feature"],
                class_names=tuple(head["class_names"]),
                keys=Names(arrays["keys"].tobytes(), len(arrays["labels"])),
                damaged=tuple(SkippedImage(key, reason) for key, reason in head["damaged"]),
                **{name: arrays[name].astype(kind, casting="safe") for name, kind in _COLUMNS.items()},
            )

    def _is_sound(self) -> bool:
        """Whether every row names a record that can be there, under a key of its own."""
        columns = [getattr(self, name) for name in _COLUMNS]
        if any(column.shape != (len(self.keys),) for column in columns) or len(self.files) != len(self.file_sizes):
            return False
        in_files = ((self.file_numbers >= 0) & (self.file_numbers < len(self.files))).all()
        in_classes = ((self.labels >= 0) & (self.labels < len(self.class_names))).all()
        if not (in_files and in_classes):
            return False
        ends = np.array(self.file_sizes, np.int64)[self.file_numbers] - FRAME_BYTES
        inside = (
            (self.offsets >= 0) & (self.lengths >= 0) & (self.lengths <= ends) & (self.offsets <= ends - self.lengths)
        )
        ordered = all(before < after for before, after in itertools.pairwise(self.keys))
        return bool(inside.all()) and ordered


_COLUMNS = {
    "labels": np.int32,
    "file_numbers": np.int32,
    "offsets": np.int64,
    "lengths": np.int64,
    "image_sizes": np.int64,
}
