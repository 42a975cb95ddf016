"""Makes TFRecord files, good and bad, for the tests beside it; written by TensorFlow, not by what is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from image_folders import encoded, gradient

Value = bytes | int | float | Sequence[int]


def example(**features: Value) -> bytes:
    """A serialized `tf.train.Example`; "__" in a name stands for "/"."""
    return bytes(
        tf.train.Example(
            features=tf.train.Features(
                feature={name.replace("__", "/"): _feature(value) for name, value in features.items()}
            )
        ).SerializeToString()
    )


def write_records(path: Path, records: Sequence[bytes], compression: str = "") -> Path:
    """Writes a TFRecord file, and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path


def image_bytes(number: int) -> bytes:
    """A small PNG, another for each number."""
    return encoded(gradient(shift=number))


def write_numbered(path: Path, count: int, classes: int = 2, first: int = 0) -> Path:
    """Writes records whose labels count 0, 1, … round and round."""
    numbers = range(first, first + count)
    return write_records(path, [example(image=image_bytes(n), label=n % classes) for n in numbers])


def _feature(value: Value) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value] if isinstance(value, int) else value))
