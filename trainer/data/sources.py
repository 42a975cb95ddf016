"""Where examples come from: a Source is random access to labelled images with stable names.

NumPy only: TensorFlow is imported when pixels are asked for, or a folder lies in a bucket.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.folders import (
    SkippedImage,
    bad_images_error,
    choose_classes,
    list_class_folders,
    no_image_error,
)
from trainer.storage import is_remote

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["ArraySource", "FileSource", "SkippedImage", "Source", "open_source"]

SYNTHETIC_SIZE = 32
"""Height and width of the generated images, in pixels."""

# Enough images for a few dozen steps, and enough of each class for all three splits when there are many classes.
_SYNTHETIC_IMAGES = 2048
_SYNTHETIC_IMAGES_PER_CLASS = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(ABC):
    """Labelled images, each reached by its index; indices follow the keys' order and are stable.

    Attributes:
      name: what to call it to a person, such as "digits" or "folder /photos".
      class_names: sorted; a label is a position in it.
      labels: int32 [n].
      keys: [n] unique names of the images, NFC-normalised and sorted, such as "roses/a b.jpg".
      native_size: height and width of all images in pixels, where they have one size; otherwise None.
      skipped: the files that were left out because they cannot be decoded.
    """

    name: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int32]
    keys: Sequence[str]
    native_size: int | None = None
    skipped: tuple[SkippedImage, ...] = ()

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.labels):
            raise ValueError(f"{len(self.keys)} keys and {len(self.labels)} labels do not go together")

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function, to be traced into a dataset, that reads one of the chosen images.

        Args:
          indices: int64 [m], the images of this source that will be asked for.

        Returns:
          A function from a place in `indices` (int64 scalar, 0 to m-1) to its pixels (uint8 [height, width, 3]).
        """

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """One image as a client would send it to the exported model: a JPEG, PNG, BMP or GIF file."""

    @abstractmethod
    def _content(self) -> bytes:
        """Bytes that change when the images' content does."""

    def fingerprint(self) -> str:
        """16 hexadecimal digits over class names, keys, labels, and pixels (arrays) or sizes (files).

        Sizes are those of the listing: a bucket does not tell them, so there only the names count.
        """
        digest = hashlib.sha256()
        for part in (_joined(self.class_names), _joined(self.keys), self.labels.astype("<i4").tobytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(self._content())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False, kw_only=True)
class ArraySource(Source):
    """Images that all have one size and lie in memory.

    Attributes:
      pixels: uint8 [n, height, width, 3].
    """

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise ValueError(f"pixels must be uint8 [n, h, w, 3], not {self.pixels.dtype} {self.pixels.shape}")
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{len(self.pixels)} images and {len(self.labels)} labels do not go together")

    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            pixels = tf.constant(self.pixels[indices])
        return lambda place: tf.gather(pixels, place)

    def encoded(self, index: int) -> bytes:
        import tensorflow as tf

        return bytes(tf.io.encode_png(self.pixels[index]).numpy())

    def _content(self) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).digest()

    def only(self, classes: Collection[str]) -> ArraySource:
        """The images of these classes; all if `classes` is empty.

        Raises:
          UserError: the source has no such class.
        """
        class_names = choose_classes(self.class_names, classes, self.name)
        new_labels = {self.class_names.index(name): label for label, name in enumerate(class_names)}
        kept = np.flatnonzero(np.isin(self.labels, list(new_labels)))
        return replace(
            self,
            class_names=class_names,
            labels=np.array([new_labels[label] for label in self.labels[kept].tolist()], np.int32),
            keys=[self.keys[index] for index in kept.tolist()],
            pixels=self.pixels[kept],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(Source):
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

    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        import tensorflow as tf

        from trainer.data.images import decode

        with tf.device("CPU:0"):
            paths = tf.constant([self.paths[index] for index in indices.tolist()], tf.string)
        return lambda place: decode(tf.io.read_file(tf.gather(paths, place)))

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


def _say_nothing(message: str) -> None:
    """The default for `report`."""


def open_source(config: Config, report: Callable[[str], None] = _say_nothing) -> Source:
    """Opens what `config.data` names, with `config.classes` and `config.on_bad_image` applied.

    Args:
      config: only its data fields are read.
      report: called with sentences on the progress of a long look through the files.

    Raises:
      UserError: the folder, its class folders or its files are not as they must be; or there is no such class.
    """
    spec = config.data_spec
    if spec.kind == "digits":
        return _digits().only(config.classes)
    if spec.kind == "synthetic":
        return _synthetic(spec.synthetic_classes).only(config.classes)
    return _folder(spec.argument, config, report)


def _folder(path: str, config: Config, report: Callable[[str], None]) -> FileSource:
    root = (path if is_remote(path) else os.path.abspath(os.path.expanduser(path))).rstrip("/")
    listing = list_class_folders(root, config.classes, report)
    if listing.unusable and config.on_bad_image == "fail":
        raise bad_images_error(root, listing.unusable)
    source = FileSource(
        name=f"folder {root}",
        class_names=listing.class_names,
        labels=listing.labels,
        keys=listing.keys,
        skipped=listing.unusable,
        root=root,
        paths=PathsUnder(root, listing.files),
        sizes=listing.sizes,
    )
    if config.on_bad_image == "fail":
        return source
    from trainer.data.images import find_bad_images

    bad = find_bad_images(source, report=report)
    return source.without(bad) if bad else source


def _digits() -> ArraySource:
    """The 1797 handwritten digits of scikit-learn, 8 by 8 pixels, 16 levels of grey."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    keys = [f"{label}/{index:04d}" for index, label in enumerate(digits.target.tolist())]
    by_key = np.argsort(keys, kind="stable")
    return ArraySource(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        labels=digits.target[by_key].astype(np.int32),
        keys=[keys[index] for index in by_key.tolist()],
        native_size=8,
        pixels=np.repeat(grey[by_key, :, :, np.newaxis], 3, axis=3),
    )


def _synthetic(classes: int) -> ArraySource:
    """Generated images: a coarse pattern of colours for each class, under noise, so that training has to learn.

    They are a data set like any other: the same in every run, whatever its seed.
    """
    per_class = max(_SYNTHETIC_IMAGES // classes, _SYNTHETIC_IMAGES_PER_CLASS)
    random = np.random.default_rng(0)
    patterns = random.integers(64, 192, (classes, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
    pixels = np.empty((len(labels), SYNTHETIC_SIZE, SYNTHETIC_SIZE, 3), np.uint8)
    for label in range(classes):  # One class at a time: the noise of all at once would take eight times the memory.
        noise = random.integers(-64, 64, (per_class, *patterns.shape[1:]))
        pixels[labels == label] = patterns[label] + noise
    class_names = tuple(f"class_{label:03d}" for label in range(classes))
    return ArraySource(
        name=f"synthetic with {classes} classes",
        class_names=class_names,
        labels=labels,
        keys=[f"{name}/{index:05d}" for name in class_names for index in range(per_class)],
        native_size=SYNTHETIC_SIZE,
        pixels=pixels,
    )


def _joined(names: Iterable[str]) -> bytes:
    """Names as bytes that no other list of names gives: no file name holds a NUL."""
    return "\0".join(names).encode()
