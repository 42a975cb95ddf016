"""A Source: random access to labelled examples with stable names.

NumPy only: TensorFlow is imported when examples are asked for.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.config_values import ExampleKind
from trainer.data.folders import SkippedImage, choose_classes, no_image_error
from trainer.data.names import Names

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["ArraySource", "EncodedSource", "MemorySource", "SkippedImage", "Source"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(ABC):
    """Labelled examples, each reached by its index; indices follow the keys' order and are stable.

    Attributes:
      kind: what the examples are.
      name: what to call it to a person, such as "digits" or "folder /photos".
      class_names: sorted; a label is a position in it.
      labels: int32 [n].
      keys: [n] unique names of the examples, NFC-normalised and sorted, such as "roses/a b.jpg".
      native_size: height and width of all images in pixels, where they have one size; otherwise None.
      skipped: the files that were left out because they cannot be decoded.
    """

    kind: ClassVar[ExampleKind] = "image"

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

    @property
    def split_keys(self) -> Sequence[str]:
        """[n], what decides into which split each example goes; examples with the same stay together."""
        return self.keys

    @abstractmethod
    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function, to be traced into a dataset, that reads one of the chosen examples.

        Args:
          indices: int64 [m], the examples of this source that will be asked for.

        Returns:
          A function from a place in `indices` (int64 scalar, 0 to m-1) to its pixels (uint8 [height, width, 3]), or to
          its text (string scalar, UTF-8).
        """

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """One example as a client would send it to the exported model: an image file, or a text in UTF-8."""

    @abstractmethod
    def _content(self) -> bytes:
        """Bytes that change when the examples' content does."""

    def fingerprint(self) -> str:
        """16 hexadecimal digits over class names, keys, labels, and pixels (arrays), texts or sizes (files).

        Sizes are those of the listing. Where it does not tell them, only the names count; where it is one of an earlier
        run (`FileSource.from_cache`), a file that was written anew under its old name may have another one by now.
        """
        digest = hashlib.sha256()
        for part in (_joined(self.class_names), _joined(self.keys), self.labels.astype("<i4").tobytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(self._content())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False, kw_only=True)
class MemorySource(Source):
    """Examples that lie in memory: the function that `reader` gives also takes many places, of any shape."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes that make up one example: two with the same are the same example."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArraySource(MemorySource):
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

    def content(self, index: int) -> bytes:
        return str(self.pixels.shape[1:]).encode() + self.pixels[index].tobytes()

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
class EncodedSource(Source):
    """Images as encoded bytes, one JPEG, PNG, BMP or GIF each, wherever they lie.

    Attributes:
      root: the folder that they come from, local or with a scheme.
      max_image_pixels: one whose header claims more is a bad one.
    """

    root: str
    max_image_pixels: int = MAX_IMAGE_PIXELS

    @abstractmethod
    def encoded_reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function, to be traced into a dataset, that reads one of the chosen images.

        Args:
          indices: int64 [m], the images of this source that will be asked for.

        Returns:
          A function from a place in `indices` (int64 scalar, 0 to m-1) to its encoded bytes (string scalar).
        """

    @abstractmethod
    def place_of(self, index: int) -> str:
        """Where one image lies, for a person who has to mend it: a path, or a file and where in it."""

    def without(self, bad: Sequence[SkippedImage]) -> EncodedSource:
        """The same source without these images, which join `skipped`.

        Raises:
          UserError: a class has no image left.
        """
        bad_keys = {image.key for image in bad}
        kept = np.array([index for index, key in enumerate(self.keys) if key not in bad_keys], np.int64)
        for label, count in enumerate(np.bincount(self.labels[kept], minlength=len(self.class_names))):
            if not count:
                raise no_image_error(self.class_names[label], self.name)
        return replace(self._taking(kept), skipped=tuple(sorted((*self.skipped, *bad), key=lambda image: image.key)))

    @abstractmethod
    def _taking(self, kept: NDArray[np.int64]) -> EncodedSource:
        """The same source with these images alone: int64, ascending indices."""

    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        from trainer.data.images import decode

        read = self.encoded_reader(indices)
        return lambda place: decode(read(place), self.max_image_pixels)


def _joined(names: Iterable[str]) -> bytes:
    """Names as bytes that no other list of names gives: no file name holds a NUL."""
    if isinstance(names, Names):
        return names.joined
    return "\0".join(names).encode()
