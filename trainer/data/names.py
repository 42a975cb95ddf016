"""Many names in little memory: a million of them take 30 MB, and as a list of strings 80."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65536
"""Names that are taken apart at once when all are gone through."""


class Names(Sequence[str]):
    """Names without NUL characters, such as those of files, kept in one run of UTF-8 bytes."""

    def __init__(self, joined: bytes, count: int) -> None:
        """Takes names that are joined already.

        Args:
          joined: the names in UTF-8, with a NUL between each two.
          count: how many they are: it tells no name from one empty name.
        """
        ends = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0) if count else np.zeros(0, np.int64)
        if len(ends) != max(count - 1, 0):
            raise ValueError(f"{len(ends)} NUL characters do not separate {count} names")
        self.joined = joined
        self.starts: NDArray[np.int64] = np.concatenate([[0], ends + 1]) if count else np.zeros(0, np.int64)

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """The same names, packed.

        Raises:
          ValueError: a name holds a NUL, or a surrogate that no UTF-8 has.
        """
        if isinstance(names, Names):
            return names
        parts = [name.encode() for name in names]
        return cls(b"\0".join(parts), len(parts))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of each name, in bytes of UTF-8; int64 [n]."""
        return np.diff(self.starts, append=len(self.joined) + 1) - 1

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        start = self.starts[index]
        end = self.joined.find(b"\0", start)
        return self.joined[start : end if end >= 0 else None].decode()

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from block.decode().split("\0")

    def blocks(self) -> Iterator[bytes]:
        """All names in order, as joined bytes of some ten thousand names each."""
        for first in range(0, len(self), _BLOCK):
            last = first + _BLOCK
            yield self.joined[self.starts[first] : self.starts[last] - 1 if last < len(self) else None]

    def take(self, indices: NDArray[np.int64]) -> Names:
        """The names at some places (int64 [m]), in that order."""
        parts = self.joined.split(b"\0")
        return Names(b"\0".join([parts[index] for index in indices.tolist()]), len(indices))
