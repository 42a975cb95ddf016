"""Images in TFRecord files, each read by its place in its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.record_examples import encoded_image
from trainer.data.record_framing import FRAME_BYTES, record_at
from trainer.data.record_index import RecordIndex
from trainer.data.source import EncodedSource
from trainer.storage import is_remote

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordSource(EncodedSource):
    """Encoded images in TFRecord files.

    Attributes:
      index: where each image is; its rows are the source's examples.
    """

    index: RecordIndex

    @classmethod
    def of(cls, root: str, index: RecordIndex, name: str) -> RecordSource:
        """The images of an index.

        Args:
          root: the folder that its files are in.
          index: at least two classes.
          name: what to call the source to a person.
        """
        return cls(
            name=name,
            class_names=index.class_names,
            labels=index.labels,
            keys=index.keys,
            skipped=index.damaged,
            root=root,
            index=index,
        )

    def encoded_reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        """As `EncodedSource` has it; a record whose checksum is wrong raises tf.errors.DataLossError when read."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            paths = tf.constant([self._path(number) for number in range(len(self.index.files))], tf.string)
            file_numbers = tf.constant(self.index.file_numbers[indices])
            offsets = tf.constant(self.index.offsets[indices])
            lengths = tf.constant(self.index.lengths[indices])
        options = _no_tuning()
        # Locally a buffer is one copy more; from a bucket it makes one request of two, for the length and the data.
        buffered = is_remote(self.root)

        def read(place: tf.Tensor) -> tf.Tensor:
            records = tf.raw_ops.TFRecordDatasetV2(
                filenames=tf.gather(paths, tf.gather(file_numbers, place))[tf.newaxis],
                compression_type="",
                buffer_size=tf.gather(lengths, place) + FRAME_BYTES if buffered else tf.constant(0, tf.int64),
                byte_offsets=tf.gather(offsets, place)[tf.newaxis],
            )
            dataset = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string)).take(1)
            record = dataset.with_options(options).get_single_element()
            name = self.index.image_feature
            return tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string)})[name]

        return read

    def encoded(self, index: int) -> bytes:
        """As `Source` has it.

        Raises:
          tf.errors.DataLossError: the record is damaged, or the file is not what it was when it was indexed.
        """
        import tensorflow as tf

        row = self.index
        path = self._path(int(row.file_numbers[index]))
        data = record_at(path, int(row.offsets[index]), int(row.lengths[index]))
        image = None if data is None else encoded_image(data, row.image_feature)
        if image is None:
            raise tf.errors.DataLossError(None, None, "its record is damaged, or was changed after it was indexed")
        return image

    def place_of(self, index: int) -> str:
        path = self._path(int(self.index.file_numbers[index]))
        return f"{path} at byte {self.index.offsets[index]} (image {self.keys[index]})"

    def _content(self) -> bytes:
        # The same as those of the files that the records were made of: a conversion is the same data.
        return self.index.image_sizes.astype("<i8").tobytes()

    def _path(self, file_number: int) -> str:
        return f"{self.root}/{self.index.files[file_number]}"

    def _taking(self, kept: NDArray[np.int64]) -> RecordSource:
        index = self.index.rows(kept)
        return replace(self, labels=index.labels, keys=index.keys, index=index)


def _no_tuning() -> Any:
    """Options for a dataset of one element: looking for what could be optimized in it takes longer than to read it."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
