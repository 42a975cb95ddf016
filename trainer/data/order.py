"""Which example stands where: an order that is a pure function of the seed and the position.

Training is one endless stream of positions. Row r of step s is position p = s * global_batch + r; it belongs to epoch
p // n of the n training examples, and is number p % n of that epoch's permutation. Nothing in this depends on how
many replicas or input pipelines share the rows, so every sharding sees the same global batches. Batches straddle
epochs: nothing is dropped, and all shapes are static. Any step is reached at once, because its positions are known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

PADDING = -1
"""The place and the index of a row that stands for no example."""

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


def training_order(examples: int, seed: int, share: Share, first_step: int, last_step: int) -> tf.data.Dataset:
    """Which examples this share trains on, step by step.

    Args:
      examples: how many there are to train on, at least one.
      seed: of the run.
      share: which rows of each step.
      first_step: where to start.
      last_step: where to stop, exclusive.

    Returns:
      For each step "place", int64 `[rows]`, in 0 to `examples` - 1; "epoch", int64 `[rows]`; and "seed", int32
      `[rows, 2]`, for whatever is random about the example in this epoch.
    """
    if not examples:
        raise ValueError("there are no examples to train on")
    first_epoch = first_step * share.global_batch // examples
    last_epoch = last_step * share.global_batch // examples
    with tf.device("CPU:0"):
        epoch_keys = tf.constant(_epoch_keys(seed, first_epoch, last_epoch))

    @tf.autograph.experimental.do_not_convert
    def order(step: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _positions(step, share)
        epoch = position // examples
        key = tf.gather(epoch_keys, epoch - first_epoch)
        place = tf.raw_ops.RandomIndexShuffle(
            index=position % examples,
            seed=key[:, :3],
            max_index=tf.constant(examples - 1, tf.int64),
            rounds=_SHUFFLE_ROUNDS,
        )
        return {"place": place, "epoch": epoch, "seed": tf.stack([key[:, 3], tf.cast(place, tf.int32)], axis=1)}

    return tf.data.Dataset.range(first_step, last_step).map(order)


def evaluation_order(examples: int, share: Share) -> tf.data.Dataset:
    """Every example once, in order, padded to whole global batches.

    Args:
      examples: how many there are; none at all gives an empty dataset.
      share: which rows of each global batch.

    Returns:
      For each global batch "place", int64 `[rows]`, in 0 to `examples` - 1 or `PADDING`: as many for every replica of
      every pipeline.
    """

    @tf.autograph.experimental.do_not_convert
    def order(step: tf.Tensor) -> dict[str, tf.Tensor]:
        position = _positions(step, share)
        return {"place": tf.where(position < examples, position, PADDING)}

    return tf.data.Dataset.range(-(-examples // share.global_batch)).map(order)


def _positions(step: tf.Tensor, share: Share) -> tf.Tensor:
    """Positions of this share's rows of a step; int64 [rows]."""
    return step * share.global_batch + tf.range(share.rows.start, share.rows.stop, dtype=tf.int64)


def _epoch_keys(seed: int, first_epoch: int, last_epoch: int) -> NDArray[np.int32]:
    """Random numbers for each epoch: three for its permutation, one for its augmentation; int32 [epochs, 4].

    The permutation of up to 65536 examples takes only the low 8 bits of each number. Plain seeds and epochs would
    make epoch 256 repeat epoch 0, and seed 256 repeat seed 0; hashed, all 24 bits count.
    """
    digests = (hashlib.sha256(f"{seed} {epoch}".encode()).digest() for epoch in range(first_epoch, last_epoch + 1))
    return np.frombuffer(b"".join(digest[:16] for digest in digests), "<i4").reshape(-1, 4)
