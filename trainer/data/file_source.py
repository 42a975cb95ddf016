"""Images in files, one file each: what a folder of class folders becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from trainer.data.folders import no_image_error
from trainer.data.source import EncodedSource, SkippedImage

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(EncodedSource):
    """Encoded images in files, one file each.

    Attributes:
      root: the folder they are in, local or with a scheme.
      paths: [n], to be opened; on disk a name may have another Unicode form than its key.
      sizes: int64 [n], bytes; None where the listing does not tell.
    """

    root: str
    paths: Sequence[str]
    sizes: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths and {len(self.labels)} labels do not go together")

    def encoded_reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            paths = tf.constant([self.paths[index] for index in indices.tolist()], tf.string)
        return lambda place: tf.io.read_file(tf.gather(paths, place))

    def encoded(self, index: int) -> bytes:
        import tensorflow as tf

        return bytes(tf.io.read_file(self.paths[index]).numpy())

    def _content(self) -> bytes:
        return b"" if self.sizes is None else self.sizes.astype("<i8").tobytes()

    def without(self, bad: Sequence[SkippedImage]) -> FileSource:
        """The same source without these images, which join `skipped`.

        Raises:
          UserError: a class has no image left.
        """
        bad_keys = {image.key for image in bad}
        kept = np.array([index for index, key in enumerate(self.keys) if key not in bad_keys], np.int64)
        labels = self.labels[kept]
        for label, count in enumerate(np.bincount(labels, minlength=len(self.class_names))):
            if not count:
                raise no_image_error(self.class_names[label], self.name)
        return replace(
            self,
            labels=labels,
            keys=[self.keys[index] for index in kept.tolist()],
            paths=[self.paths[index] for index in kept.tolist()],
            sizes=None if self.sizes is None else self.sizes[kept],
            skipped=tuple(sorted((*self.skipped, *bad), key=lambda image: image.key)),
        )


class PathsUnder(Sequence[str]):
    """The paths of files under one folder, without a copy of the folder's name for each."""

    def __init__(self, root: str, files: Sequence[str]) -> None:
        self._root = root
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return PathsUnder(self._root, self._files[index])
        return f"{self._root}/{self._files[index]}"
