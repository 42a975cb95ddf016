"""Images in files, one file each: what a folder of class folders becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from trainer.data.listing_local import versions_now
from trainer.data.names import Names
from trainer.data.source import EncodedSource
from trainer.storage import is_remote

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(EncodedSource):
    """Encoded images in files, one file each.

    Attributes:
      paths: [n], to be opened; on disk a name may have another Unicode form than its key, and a staged copy has
        another name.
      sizes: int64 [n], bytes; None where the listing does not tell.
      listed_versions: uint64 [n], as the listing told them (`ListedFolder.versions`); None where it did not.
      checksums: int64 [n], CRC32C of the files, or -1; None where the listing tells none.
      from_cache: the listing was kept from an earlier run, so that a local file written anew under its old name may
        have another size and version by now.
    """

    paths: PathsUnder
    sizes: NDArray[np.int64] | None = None
    listed_versions: NDArray[np.uint64] | None = None
    checksums: NDArray[np.int64] | None = None
    from_cache: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths and {len(self.labels)} labels do not go together")

    @property
    def is_remote(self) -> bool:
        """Whether the images come from an object store."""
        return is_remote(self.root)

    @cached_property
    def versions(self) -> NDArray[np.uint64] | None:
        """Another number when a file was written again, as `ListedFolder.versions`; uint64 [n] or None.

        After a listing from the cache every file is asked, once: what rests on it, such as a feature cache, must not
        take a new image for the old one.
        """
        return versions_now(self.paths) if self.from_cache else self.listed_versions

    def encoded_reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        import tensorflow as tf

        files = self.paths.files
        # One string and places in it: as many strings would take four times the memory and half a second a million.
        with tf.device("CPU:0"):
            joined = tf.constant(files.joined, tf.string)
            starts, lengths = tf.constant(files.starts[indices]), tf.constant(files.lengths[indices])

        def read(place: tf.Tensor) -> tf.Tensor:
            file = tf.strings.substr(joined, tf.gather(starts, place), tf.gather(lengths, place))
            return tf.io.read_file(tf.strings.join([f"{self.paths.root}/", file]))

        return read

    def encoded(self, index: int) -> bytes:
        import tensorflow as tf

        return bytes(tf.io.read_file(self.paths[index]).numpy())

    def place_of(self, index: int) -> str:
        return f"{self.root}/{self.keys[index]}"

    def _content(self) -> bytes:
        return b"" if self.sizes is None else self.sizes.astype("<i8").tobytes()

    def _taking(self, kept: NDArray[np.int64]) -> FileSource:
        return replace(
            self,
            labels=self.labels[kept],
            keys=Names.of(self.keys).take(kept),
            paths=PathsUnder(self.paths.root, self.paths.files.take(kept)),
            sizes=None if self.sizes is None else self.sizes[kept],
            listed_versions=None if self.listed_versions is None else self.listed_versions[kept],
            checksums=None if self.checksums is None else self.checksums[kept],
        )


class PathsUnder(Sequence[str]):
    """The paths of files under one folder, without a copy of the folder's name for each."""

    def __init__(self, root: str, files: Names) -> None:
        """Puts both together.

        Args:
          root: the folder.
          files: their names in it.
        """
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PathsUnder: ...
    def __getitem__(self, index: int | slice) -> str | PathsUnder:
        if isinstance(index, slice):
            return PathsUnder(self.root, self.files[index])
        return f"{self.root}/{self.files[index]}"

    def __iter__(self) -> Iterator[str]:
        return (f"{self.root}/{file}" for file in self.files)
