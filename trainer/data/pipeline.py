"""From a Source to per-replica batches, in the order of `trainer.data.order`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.augment import augment, least_side
from trainer.data.images import ImageInput, decode_at_least
from trainer.data.model_input import ModelInput
from trainer.data.order import PADDING, Share, evaluation_order, training_order
from trainer.data.source import EncodedSource, MemorySource, Source
from trainer.processors import processors
from trainer.storage import is_remote

Batch = dict[str, tf.Tensor]
"""What one replica gets of one step, b rows of the global batch.

"image": uint8 [b, size, size, 3], or "text": string [b]; "label": int32 [b]; "index": int32 [b], the example's index in
the source. In evaluation rows of padding have index -1, label 0 and black pixels, or an empty text. Training adds
"row": int32 [b], their places in the global batch.
"""

REMOTE_READS = 64
"""Images that are read from an object store at once, each in a thread that waits for its answer.

A request takes some 50 ms whatever the image's size: one for each core, as for local files, would give 20 images a
second and core.
"""


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image.

    Attributes:
      change: from uint8 pixels [height, width, 3] and a seed, int32 [2], to uint8 [size, size, 3].
      least_side: the shorter side, in pixels, that it needs of a picture.
      max_pixels: files that claim more are refused, see `ImageInput`.
    """

    change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    least_side: int
    max_pixels: int


def training_batches(
    source: Source,
    indices: NDArray[np.int64],
    config: Config,
    model_input: ModelInput,
    share: Share,
    first_step: int,
    last_step: int,
) -> tf.data.Dataset:
    """The training stream of one input pipeline, from one step to another.

    Args:
      source: where the examples come from.
      indices: int64 [n], the examples to train on.
      config: its seed and augmentation.
      model_input: how an example becomes the model's input.
      share: which rows of each step.
      first_step: where to start; what lies before is neither read nor decoded.
      last_step: where to stop, exclusive.

    Returns:
      A dataset of `Batch` in the order (step, local replica). Running it raises tf.errors.InvalidArgumentError on an
      image that cannot be decoded, and tf.errors.NotFoundError or another OpError on one that cannot be read.
    """
    order = training_order(len(indices), config.seed, share, first_step, last_step)
    augmentation = augmentation_of(config, model_input)
    return numbered(example_batches(order, source, indices, model_input, share, augmentation, padded=False), share)


def evaluation_batches(
    source: Source, indices: NDArray[np.int64], model_input: ModelInput, share: Share
) -> tf.data.Dataset:
    """Every example once, in order, padded to whole global batches.

    Args:
      source: where the examples come from.
      indices: int64 [n], the examples to evaluate on; none at all gives an empty dataset.
      model_input: how an example becomes the model's input.
      share: which rows of each global batch.

    Returns:
      A dataset of `Batch` in the order (global batch, local replica): as many for every replica of every pipeline.
      It raises when run as that of `training_batches` does.
    """
    return example_batches(evaluation_order(len(indices), share), source, indices, model_input, share, None)


def numbered(batches: tf.data.Dataset, share: Share) -> tf.data.Dataset:
    """Adds "row" to a share's training batches."""
    return batches.enumerate().map(_unconverted(partial(_number_rows, share)))


def _number_rows(share: Share, count: tf.Tensor, batch: Batch) -> Batch:
    """Adds to a replica's batch, number `count` of this pipeline, the places of its rows in the global batch."""
    replica = share.first_replica + count % share.local_replicas
    first = tf.cast(replica * share.replica_batch, tf.int32)
    return batch | {"row": first + tf.range(share.replica_batch, dtype=tf.int32)}


def augmentation_of(config: Config, model_input: ModelInput) -> Augmentation | None:
    """What the configuration says is done to each training image; None if nothing is."""
    if not config.augments_images:
        return None
    assert isinstance(model_input, ImageInput)  # `Config` has no augmentation for texts.

    def change(pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return augment(pixels, model_input, seed, config.augment, config.randaugment)

    return Augmentation(change, least_side(model_input.size, config.augment), model_input.max_pixels)


def example_batches(
    order: tf.data.Dataset,
    source: Source,
    indices: NDArray[np.int64],
    model_input: ModelInput,
    share: Share,
    augmentation: Augmentation | None,
    padded: bool = True,
) -> tf.data.Dataset:
    """Reads what an order asks for and batches it for each replica.

    Args:
      order: for each step, "place" int64 [rows], in `indices` or PADDING, and "seed" int32 [rows, 2] if there is
        an augmentation.
      source: where the examples come from.
      indices: int64 [n], those that places count from.
      model_input: how an example becomes the model's input.
      share: how the rows are shared among replicas.
      augmentation: what is done to each image; None: it is resized only.
      padded: whether `order` may hold PADDING.
    """
    if isinstance(source, MemorySource) and augmentation is None:
        return replica_batches(order, _batch_loader(source, indices, model_input), share)
    lookup = label_lookup(source, indices)
    # A step's labels at once: row by row they would take a tenth of the time that a small photo takes.
    rows = order.map(_unconverted(lambda row: row | lookup(row["place"]))).unbatch()
    read_ahead = isinstance(source, EncodedSource) and is_remote(source.root)
    if isinstance(source, EncodedSource) and read_ahead:
        read = _encoded_reader(source, indices, padded)
        rows = rows.map(_unconverted(read), num_parallel_calls=REMOTE_READS, deterministic=True)
    load_one = _example_loader(source, indices, model_input, augmentation, padded)
    examples = rows.map(_unconverted(load_one), num_parallel_calls=processors(), deterministic=True)
    return _ready(examples.batch(share.replica_batch, drop_remainder=True), REMOTE_READS if read_ahead else 0)


def replica_batches(
    order: tf.data.Dataset, load: Callable[[dict[str, tf.Tensor]], Batch], share: Share
) -> tf.data.Dataset:
    """Batches whose rows are loaded together.

    Args:
      order: for each step, its rows.
      load: from those of one replica to its batch.
      share: how the rows are shared.
    """
    replicas = order.unbatch().batch(share.replica_batch, drop_remainder=True)
    return _ready(replicas.map(_unconverted(load), num_parallel_calls=processors(), deterministic=True))


def _unconverted(function: Callable[..., Batch]) -> Callable[..., Batch]:
    """A function for `map` that autograph leaves alone: to convert it takes a tenth of a second at every start."""
    return tf.autograph.experimental.do_not_convert(function)


def _ready(batches: tf.data.Dataset, threads: int = 0) -> tf.data.Dataset:
    """Batches made ahead of time, in their order; by so many threads of their own, or 0 for TensorFlow's.

    As many as the consumer turns out to need: that much TensorFlow finds out. How many images are decoded at once is
    clear from the start, so its model of the pipeline, which would look for that too, is off. With it, an iterator
    that ended may wait for the model's thread, up to a minute after a long run (TensorFlow 2.21: 1 of 15, and all that
    read from a generator for 20 s).
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    if threads:
        options.threading.private_threadpool_size = threads
    # The share is the sharding: a strategy must not shard once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _encoded_reader(
    source: EncodedSource, indices: NDArray[np.int64], padded: bool
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Adds "encoded", a string scalar, to a row: to read from afar, many at once, is another work than to decode."""
    read = source.encoded_reader(indices)

    def add(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        place = row["place"]
        encoded = tf.cond(place == PADDING, lambda: tf.constant(b""), lambda: read(place)) if padded else read(place)
        return row | {"encoded": encoded}

    return add


def _example_loader(
    source: Source,
    indices: NDArray[np.int64],
    model_input: ModelInput,
    augmentation: Augmentation | None,
    padded: bool,
) -> Callable[[dict[str, tf.Tensor]], Batch]:
    """Loads one row: for images that are files, or are augmented one by one."""
    prepare = _preparation(source, indices, model_input, augmentation)
    spec = model_input.element

    def load(row: dict[str, tf.Tensor]) -> Batch:
        if padded:
            is_padding = row["place"] == PADDING
            element = tf.cond(is_padding, lambda: tf.zeros(spec.shape, spec.dtype), lambda: prepare(row))
        else:
            element = prepare(row)
        element.set_shape(spec.shape)
        return {model_input.kind: element, "label": row["label"], "index": row["index"]}

    return load


def _preparation(
    source: Source, indices: NDArray[np.int64], model_input: ModelInput, augmentation: Augmentation | None
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """From a row that is no padding to its element."""
    if isinstance(source, EncodedSource):
        read_here = source.encoded_reader(indices)

        def encoded(row: dict[str, tf.Tensor]) -> tf.Tensor:
            return row["encoded"] if "encoded" in row else read_here(row["place"])

        if augmentation is None:
            return lambda row: model_input.from_encoded(encoded(row))

        def changed(row: dict[str, tf.Tensor]) -> tf.Tensor:
            pixels = decode_at_least(encoded(row), augmentation.least_side, augmentation.max_pixels)
            return augmentation.change(pixels, row["seed"])

        return changed
    read = source.reader(indices)
    if augmentation is None:
        return lambda row: model_input(read(row["place"]))
    return lambda row: augmentation.change(read(row["place"]), row["seed"])


def _batch_loader(
    source: MemorySource, indices: NDArray[np.int64], model_input: ModelInput
) -> Callable[[dict[str, tf.Tensor]], Batch]:
    """Loads all rows of a replica's batch at once: for examples in memory."""
    read = source.reader(indices)
    lookup = label_lookup(source, indices)
    spec = model_input.element
    ones = [1] * len(spec.shape)

    def load(rows: dict[str, tf.Tensor]) -> Batch:
        places = rows["place"]
        elements = model_input(read(tf.maximum(places, 0)))
        padding = tf.reshape(places == PADDING, [-1, *ones])
        return {model_input.kind: tf.where(padding, tf.zeros([], spec.dtype), elements), **lookup(places)}

    return load


def label_lookup(source: Source, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], Batch]:
    """A function from places (any shape) to "label" and "index", which knows padding."""
    with tf.device("CPU:0"):
        # One entry more, at the end: what place -1 is counted from there.
        labels = tf.constant(np.append(source.labels[indices], 0).astype(np.int32))
        source_indices = tf.constant(np.append(indices, PADDING).astype(np.int32))

    def lookup(place: tf.Tensor) -> Batch:
        row = tf.where(place == PADDING, tf.constant(len(indices), tf.int64), place)
        return {"label": tf.gather(labels, row), "index": tf.gather(source_indices, row)}

    return lookup
