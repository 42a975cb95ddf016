"""Which image is it? A hash of its bytes: an image that was changed is a new one, one that was moved is not.

Reading all images only to hash them takes long where there are many, so a memory keeps the id of each file whose name,
size and time of change (on `gs://`: generation) are as they were.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.file_source import FileSource
from trainer.data.source import EncodedSource, MemorySource, Source
from trainer.errors import UserError
from trainer.every_few_seconds import EveryFewSeconds
from trainer.features.shards import ID_BYTES, comparable
from trainer.storage import RunDirectory, is_remote

_FOLDER = "ids"

_READS = 64
"""Images that are read at once, each in a thread of TensorFlow's that waits for its disk or bucket. Python's own would
spend five times the work on handing the interpreter over."""

_BATCH = 256
"""Images that are handed over at once: bounds what waits in memory."""

_SETTLED_NANOSECONDS = 2 * 10**9
"""A file that was changed less than this before it was read may change once more without another time of change:
some file systems tell times in steps of two seconds (FAT)."""


def content_ids(
    source: Source,
    indices: NDArray[np.int64],
    memory: IdMemory | None,
    report: Callable[[str], None] = lambda message: None,
) -> NDArray[np.uint8]:
    """The ids of some images: uint8 `[n, 16]`.

    Args:
      source: whose images.
      indices: int64 `[n]`, which of them.
      memory: of ids that are known already; None reads every image.
      report: called now and then with a sentence on a long look through the images, and if the memory cannot be kept.

    Raises:
      tf.errors.OpError: an image cannot be read.
    """
    stamps = _stamps(source, indices) if memory else None
    if memory is None or stamps is None:
        return _hashes(source, indices, report)
    ids, known = memory.recall(stamps)
    unknown = np.flatnonzero(~known)
    if len(unknown):
        started = time.time_ns()
        ids[unknown] = _hashes(source, indices[unknown], report)
        settled = unknown[_is_settled(source, indices[unknown], started)]
        try:
            memory.remember(stamps[settled], ids[settled])
        except UserError as error:  # A cache that may only be read is of use all the same.
            report(f"The next run has to read all images again to know them: {error}")
    return ids


class IdMemory:
    """Pairs of stamps and ids, in one file for each place that images come from.

    It is written whole, and what another run writes at the same time may be lost: those images are read once more.
    """

    def __init__(self, folder: RunDirectory, root: str) -> None:
        """Reads what is known; a damaged file counts as none.

        Args:
          folder: of the feature cache.
          root: where the images come from.

        Raises:
          UserError: the file may not be read.
        """
        self._folder = folder
        self._name = f"{_FOLDER}/{hashlib.sha256(root.encode()).hexdigest()[:32]}"
        self._pairs = _parsed(folder.read_bytes(self._name)) if folder.exists(self._name) else _no_pairs()

    def recall(self, stamps: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Looks up.

        Args:
          stamps: uint8 `[n, 16]`.

        Returns:
          Ids, uint8 `[n, 16]`, and bool `[n]`, which of them are known.
        """
        if not len(self._pairs):
            return np.zeros_like(stamps), np.zeros(len(stamps), bool)
        known, wanted = comparable(self._pairs[:, :ID_BYTES]), comparable(stamps)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return self._pairs[places, ID_BYTES:].copy(), known[places] == wanted

    def remember(self, stamps: NDArray[np.uint8], ids: NDArray[np.uint8]) -> None:
        """Adds pairs and writes the file.

        Args:
          stamps: uint8 `[n, 16]`.
          ids: uint8 `[n, 16]`.

        Raises:
          UserError: it cannot be written.
        """
        if not len(stamps):
            return
        pairs = np.concatenate([self._pairs, np.concatenate([stamps, ids], axis=1)])
        _, last = np.unique(comparable(pairs[::-1, :ID_BYTES]), return_index=True)
        self._pairs = pairs[len(pairs) - 1 - last]
        content = self._pairs.tobytes()
        self._folder.write_bytes(self._name, hashlib.sha256(content).digest() + content)


def _parsed(content: bytes) -> NDArray[np.uint8]:
    """The pairs in a file, uint8 `[n, 32]`, sorted by stamp; none if it is damaged."""
    checksum, pairs = content[:32], content[32:]
    if hashlib.sha256(pairs).digest() != checksum or len(pairs) % (2 * ID_BYTES):
        return _no_pairs()
    return np.frombuffer(pairs, np.uint8).reshape(-1, 2 * ID_BYTES)


def _no_pairs() -> NDArray[np.uint8]:
    return np.zeros((0, 2 * ID_BYTES), np.uint8)


def _stamps(source: Source, indices: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """What tells cheaply that an image is unchanged, uint8 `[n, 16]`; None where nothing does."""
    if not isinstance(source, FileSource) or source.sizes is None or source.versions is None:
        return None
    sizes, versions = source.sizes, source.versions
    digests = (
        hashlib.blake2b(f"{source.keys[index]}\0{sizes[index]}\0{versions[index]}".encode(), digest_size=ID_BYTES)
        for index in indices.tolist()
    )
    return _as_ids(b"".join(digest.digest() for digest in digests))


def _is_settled(source: Source, indices: NDArray[np.int64], started: int) -> NDArray[np.bool_]:
    """Bool `[n]`, which files were last changed long enough before they were read, at `started` nanoseconds."""
    assert isinstance(source, FileSource) and source.versions is not None
    if is_remote(source.root):
        return np.ones(len(indices), bool)  # A generation is never used twice.
    return source.versions[indices].astype(np.int64) < started - _SETTLED_NANOSECONDS


def _hashes(source: Source, indices: NDArray[np.int64], report: Callable[[str], None]) -> NDArray[np.uint8]:
    digests: list[bytes] = []
    reports = EveryFewSeconds()
    for content in _contents(source, indices):
        digests.append(hashlib.blake2b(content, digest_size=ID_BYTES).digest())
        if reports.due():
            examples = f"{len(indices)} {source.kind}s"
            report(f"Read {len(digests)} of {examples} to know which are in the feature cache.")
    return _as_ids(b"".join(digests))


def _contents(source: Source, indices: NDArray[np.int64]) -> Iterator[bytes]:
    """The bytes that make up each example."""
    if isinstance(source, EncodedSource):
        yield from _encoded(source, indices)
        return
    assert isinstance(source, MemorySource)
    yield from map(source.content, indices.tolist())


def _encoded(source: EncodedSource, indices: NDArray[np.int64]) -> Iterator[bytes]:
    import tensorflow as tf

    read = tf.autograph.experimental.do_not_convert(source.encoded_reader(indices))
    images = tf.data.Dataset.range(len(indices)).map(read, num_parallel_calls=_READS, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = _READS
    options.autotune.enabled = False
    for batch in images.batch(_BATCH).prefetch(1).with_options(options).as_numpy_iterator():
        yield from batch.tolist()


def _as_ids(digests: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(digests, np.uint8).reshape(-1, ID_BYTES)
