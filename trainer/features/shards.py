"""A shard: some images' features in one file, named by the checksum of its content.

    "HUBFEAT1"                          what it is, and the version of this layout
    rows, feature size                  uint32 each, little-endian
    ids                                 rows x 16 bytes, see `content_ids`
    features                            rows x feature size, float32, little-endian

The name says what must be inside, so a damaged shard is never believed, and two runs that write the same one at the
same time write the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 16
"""Length of an image's id."""

SUFFIX = ".features"

_MAGIC = b"HUBFEAT1"
_SIZES = struct.Struct("<II")
HEADER_BYTES = len(_MAGIC) + _SIZES.size


class DamagedShardError(Exception):
    """The content is not what the name says."""


@dataclass(frozen=True)
class Shard:
    """The content of one file.

    Attributes:
      ids: uint8 `[rows, 16]`.
      features: float32 `[rows, feature size]`.
    """

    ids: NDArray[np.uint8]
    features: NDArray[np.float32]

    def encode(self) -> tuple[str, bytes]:
        """The file's name and content."""
        rows, size = self.features.shape
        content = b"".join(
            (_MAGIC, _SIZES.pack(rows, size), self.ids.tobytes(), self.features.astype("<f4", copy=False).tobytes())
        )
        return _name(content), content


def decode_shard(name: str, content: bytes, feature_size: int) -> Shard:
    """Reads a shard.

    Args:
      name: the file's.
      content: of the file.
      feature_size: length of the feature vectors that it must hold.

    Raises:
      DamagedShardError: the content is another than was written, or is no shard for this module.
    """
    if _name(content) != name:
        raise DamagedShardError(f"the content of {name} has another checksum")
    if content[: len(_MAGIC)] != _MAGIC or len(content) < HEADER_BYTES:
        raise DamagedShardError(f"{name} is no shard of this version")
    rows, size = _SIZES.unpack_from(content, len(_MAGIC))
    if size != feature_size or len(content) != first_feature(rows) + rows * size * 4:
        raise DamagedShardError(f"{name} has {rows} rows of {size} and {len(content)} bytes")
    ids = np.frombuffer(content, np.uint8, rows * ID_BYTES, HEADER_BYTES).reshape(rows, ID_BYTES)
    features = np.frombuffer(content, "<f4", rows * size, first_feature(rows)).reshape(rows, size)
    return Shard(ids, features)


def comparable(ids: NDArray[np.uint8]) -> NDArray:
    """Ids, uint8 `[n, 16]`, as strings of 16 bytes, `[n]`, which NumPy can sort and compare."""
    return np.ascontiguousarray(ids).view(f"S{ID_BYTES}").reshape(-1)


def first_feature(rows: int) -> int:
    """Where the features begin in a shard of so many rows, in bytes."""
    return HEADER_BYTES + rows * ID_BYTES


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32] + SUFFIX
