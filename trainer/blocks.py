"""Reads a file of any size, local or on gs://, block by block."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.storage import is_remote

_BLOCK = 1 << 20


def read_blocks(path: str) -> Iterator[bytes]:
    """The content of a file, at most a megabyte at a time; none where it is empty.

    Raises:
      OSError: it cannot be read.
      tf.errors.OpError: it cannot be read, and is on gs://.
    """
    if not is_remote(path):
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
        return
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as remote:
        while block := remote.read(_BLOCK):
            yield block
