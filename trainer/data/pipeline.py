"""From a Source to per-replica batches, in an order that is a pure function of the seed and the position.

Training is one endless stream of positions. Row r of step s is position p = s * global_batch + r; it belongs to epoch
p // n of the n training examples, and is number p % n of that epoch's permutation. Nothing in this depends on how
many replicas or input pipelines share the rows, so every sharding sees the same global batches. Batches straddle
epochs: nothing is dropped, and all shapes are static. Any step is reached at once, because its positions are known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.augment import augment
from trainer.data.images import ImageInput
from trainer.data.source import ArraySource, Source

Batch = dict[str, tf.Tensor]
"""What one replica gets of one step, b rows of the global batch.

"image": uint8 [b, size, size, 3]; "label": int32 [b]; "index": int32 [b], the example's index in the source. In
evaluation rows of padding have index -1, label 0 and black pixels. Training adds "row": int32 [b], their places in the
global batch.
"""

# From uint8 pixels [height, width, 3] and a seed, int32 [2], to uint8 [size, size, 3].
_Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

PADDING = -1
"""The index of a row that stands for no example."""

# With four rounds, the default of tf.random.experimental.index_shuffle, a few values come to the front of short
# permutations measurably more often than others.
_SHUFFLE_ROUNDS = 8


@dataclass(frozen=True)
class Share:
    """What one input pipeline reads of each global batch: the rows of some consecutive replicas.

    Attributes:
      global_batch: rows of a step, over all replicas.
      replicas: how many replicas there are in all.
      first_replica: the first one that this pipeline feeds.
      local_replicas: how many it feeds.
    """

    global_batch: int
    replicas: int
    first_replica: int
    local_replicas: int

    def __post_init__(self) -> None:
        if self.global_batch % self.replicas:
            raise ValueError(f"a global batch of {self.global_batch} cannot be shared by {self.replicas} replicas")
        if self.first_replica < 0 or not 0 < self.local_replicas <= self.replicas - self.first_replica:
            raise ValueError(f"{self} names replicas that do not exist")

    @classmethod
    def of(cls, context: tf.distribute.InputContext, global_batch: int) -> Share:
        """The share of the input pipeline that a strategy asks for: those of all pipelines are of one size."""
        local = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(global_batch, context.num_replicas_in_sync, context.input_pipeline_id * local, local)

    @property
    def replica_batch(self) -> int:
        """Rows that each replica gets of a step."""
        return self.global_batch // self.replicas

    @property
    def rows(self) -> range:
        """The rows of the global batch that this pipeline reads."""
        first = self.first_replica * self.replica_batch
        return range(first, first + self.local_replicas * self.replica_batch)


def training_steps(examples: int, global_batch: int, epochs: int) -> int:
    """Steps until every example was seen `epochs` times; the last step may reach into the next epoch."""
    return first_step_of_epoch(epochs, examples, global_batch)


def first_step_of_epoch(epoch: int, examples: int, global_batch: int) -> int:
    """The first step whose first row belongs to `epoch` (counted from 0) or a later one.

    Where a batch is larger than an epoch, some epochs have no such row, and share the first step of the next.
    """
    return -(-epoch * examples // global_batch)


def training_batches(
    source: Source,
    indices: NDArray[np.int64],
    config: Config,
    image_input: ImageInput,
    share: Share,
    first_step: int,
    last_step: int,
) -> tf.data.Dataset:
    """The training stream of one input pipeline, from one step to another.

    Args:
      source: where the examples come from.
      indices: int64 [n], the examples to train on.
      config: its seed and augmentation.
      image_input: how a picture becomes the model's input.
      share: which rows of each step.
      first_step: where to start; what lies before is neither read nor decoded.
      last_step: where to stop, exclusive.

    Returns:
      A dataset of `Batch` in the order (step, local replica). Running it raises tf.errors.InvalidArgumentError on an
      image that cannot be decoded, and tf.errors.NotFoundError or another OpError on one that cannot be read.
    """
    examples = len(indices)
    if not examples:
        raise ValueError("there are no examples to train on")
    first_epoch = first_step * share.global_batch // examples
    last_epoch = last_step * share.global_batch // examples
    with tf.device("CPU:0"):
        epoch_keys = tf.constant(_epoch_keys(config.seed, first_epoch, last_epoch))

    def order(step: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _positions(step, share)
        key = tf.gather(epoch_keys, position // examples - first_epoch)
        place = tf.raw_ops.RandomIndexShuffle(
            index=position % examples,
            seed=key[:, :3],
            max_index=tf.constant(examples - 1, tf.int64),
            rounds=_SHUFFLE_ROUNDS,
        )
        return {"place": place, "seed": tf.stack([key[:, 3], tf.cast(place, tf.int32)], axis=1)}

    steps = tf.data.Dataset.range(first_step, last_step)
    return (
        _batches(steps.map(order), source, indices, image_input, share, _augmentation(config, image_input))
        .enumerate()
        .map(partial(_number_rows, share))
    )


def evaluation_batches(
    source: Source, indices: NDArray[np.int64], image_input: ImageInput, share: Share
) -> tf.data.Dataset:
    """Every example once, in order, padded to whole global batches.

    Args:
      source: where the examples come from.
      indices: int64 [n], the examples to evaluate on; none at all gives an empty dataset.
      image_input: how a picture becomes the model's input.
      share: which rows of each global batch.

    Returns:
      A dataset of `Batch` in the order (global batch, local replica): as many for every replica of every pipeline.
      It raises when run as that of `training_batches` does.
    """
    examples = len(indices)

    def order(step: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _positions(step, share)
        return {"place": tf.where(position < examples, position, PADDING)}

    steps = tf.data.Dataset.range(-(-examples // share.global_batch))
    return _batches(steps.map(order), source, indices, image_input, share, None)


def _positions(step: tf.Tensor, share: Share) -> tf.Tensor:
    """Positions of this share's rows of a step; int64 [rows]."""
    return step * share.global_batch + tf.range(share.rows.start, share.rows.stop, dtype=tf.int64)


def _number_rows(share: Share, count: tf.Tensor, batch: Batch) -> Batch:
    """Adds to a replica's batch, number `count` of this pipeline, the places of its rows in the global batch."""
    replica = share.first_replica + count % share.local_replicas
    first = tf.cast(replica * share.replica_batch, tf.int32)
    return batch | {"row": first + tf.range(share.replica_batch, dtype=tf.int32)}


def _epoch_keys(seed: int, first_epoch: int, last_epoch: int) -> NDArray[np.int32]:
    """Random numbers for each epoch: three for its permutation, one for its augmentation; int32 [epochs, 4].

    The permutation of up to 65536 examples takes only the low 8 bits of each number. Plain seeds and epochs would
    make epoch 256 repeat epoch 0, and seed 256 repeat seed 0; hashed, all 24 bits count.
    """
    digests = (hashlib.sha256(f"{seed} {epoch}".encode()).digest() for epoch in range(first_epoch, last_epoch + 1))
    return np.frombuffer(b"".join(digest[:16] for digest in digests), "<i4").reshape(-1, 4)


def _augmentation(config: Config, image_input: ImageInput) -> _Augmentation | None:
    """What the configuration says is done to each training image; None if nothing is."""
    if not (config.augment or config.randaugment):
        return None
    return lambda pixels, seed: augment(pixels, image_input, seed, config.augment, config.randaugment)


def _batches(
    order: tf.data.Dataset,
    source: Source,
    indices: NDArray[np.int64],
    image_input: ImageInput,
    share: Share,
    augmentation: _Augmentation | None,
) -> tf.data.Dataset:
    """Reads what `order` asks for and batches it for each replica.

    Args:
      order: for each step, "place" int64 [rows], in `indices` or PADDING, and "seed" int32 [rows, 2] if there is
        an augmentation.
      augmentation: what is done to each image; None: it is resized only.
    """
    if isinstance(source, ArraySource) and augmentation is None:
        load = _batch_loader(source, indices, image_input)
        replica_places = order.map(lambda rows: rows["place"]).unbatch().batch(share.replica_batch, drop_remainder=True)
        dataset = replica_places.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    else:
        load_one = _example_loader(source, indices, image_input, augmentation)
        examples = order.unbatch().map(load_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        dataset = examples.batch(share.replica_batch, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # The share is the sharding: a strategy must not shard once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _example_loader(
    source: Source, indices: NDArray[np.int64], image_input: ImageInput, augmentation: _Augmentation | None
) -> Callable[[dict[str, tf.Tensor]], Batch]:
    """Loads one row: for images that are files, or are augmented one by one."""
    read = source.reader(indices)
    lookup = _label_lookup(source, indices)

    def load(row: dict[str, tf.Tensor]) -> Batch:
        place = row["place"]

        def pixels() -> tf.Tensor:
            native = read(place)
            return augmentation(native, row["seed"]) if augmentation else image_input(native)

        black = tf.zeros([image_input.size, image_input.size, 3], tf.uint8)
        image = tf.cond(place == PADDING, lambda: black, pixels)
        image.set_shape(black.shape)
        return {"image": image, **lookup(place)}

    return load


def _batch_loader(
    source: ArraySource, indices: NDArray[np.int64], image_input: ImageInput
) -> Callable[[tf.Tensor], Batch]:
    """Loads all rows of a replica's batch at once: for images in memory."""
    read = source.reader(indices)
    lookup = _label_lookup(source, indices)

    def load(places: tf.Tensor) -> Batch:
        image = image_input(read(tf.maximum(places, 0)))
        padding = tf.reshape(places == PADDING, [-1, 1, 1, 1])
        return {"image": tf.where(padding, tf.zeros([], tf.uint8), image), **lookup(places)}

    return load


def _label_lookup(source: Source, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], Batch]:
    """A function from places (any shape) to "label" and "index", which knows padding."""
    with tf.device("CPU:0"):
        # One entry more, at the end: what place -1 is counted from there.
        labels = tf.constant(np.append(source.labels[indices], 0).astype(np.int32))
        source_indices = tf.constant(np.append(indices, PADDING).astype(np.int32))

    def lookup(place: tf.Tensor) -> Batch:
        row = tf.where(place == PADDING, tf.constant(len(indices), tf.int64), place)
        return {"label": tf.gather(labels, row), "index": tf.gather(source_indices, row)}

    return lookup
