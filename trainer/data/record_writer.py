"""Writes images as TFRecord files, with the index that finds them again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.data.names import Names
from trainer.data.record_examples import IMAGE_FEATURE, example
from trainer.data.record_framing import FRAME_BYTES, frame, open_bytes, records_of
from trainer.data.record_index import RecordIndex
from trainer.data.source import EncodedSource
from trainer.errors import UserError
from trainer.storage import is_remote

_T = TypeVar("_T")

_BUFFER_BYTES = 2**20

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class _Shard:
    """A file that was written: of each record its row in the source, its place, and the bytes of its image."""

    path: str
    size: int
    sha256: str
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    image_sizes: NDArray[np.int64]


class Progress:
    """What the threads have done, for the one that shows it.

    Attributes:
      images: how many images are written, or read again.
      stop: set when there is no point in going on.
    """

    def __init__(self, show: Callable[[str, int], None]) -> None:
        """Prepares to count.

        Args:
          show: called from the waiting thread with what is being done and for how many images it is done.
        """
        self.images = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._show = show

    def count(self) -> None:
        """Counts an image.

        Raises:
          InterruptedError: nobody waits for it any more.
        """
        if self.stop.is_set():
            raise InterruptedError
        with self._lock:
            self.images += 1

    def follow(self, what: str, jobs: Sequence[Future[_T]]) -> list[_T]:
        """Waits for jobs and shows how they go; raises the first of their errors and lets the others end."""
        self.images = 0
        pending: set[Future[_T]] = set(jobs)
        try:
            while pending:
                done, pending = wait(pending, _SECONDS_BETWEEN_LOOKS, FIRST_EXCEPTION)
                for job in done:
                    job.result()
                self._show(what, self.images)
        except BaseException:
            self.stop.set()
            for job in pending:
                job.cancel()
            raise
        return [job.result() for job in jobs]


def write_records(source: EncodedSource, folder: str, shards: int, workers: int, progress: Progress) -> RecordIndex:
    """Writes all images of a source into files images-00000-of-0000N.tfrecord, and reads them again to be sure.

    The order is drawn at random, but always the same, so that each file and each part of it has images of all classes:
    a reader that shuffles in a small buffer gets mixed batches. The same images give the same bytes.

    Args:
      source: the images.
      folder: where to, local or `gs://`; it is there and has no such files.
      shards: how many files, at most as many as images.
      workers: threads.
      progress: counts images, first written, then read again.

    Returns:
      The index of the files.

    Raises:
      UserError: what was read again is not what was written.
      OSError, tf.errors.OpError: an image cannot be read, or a file not written.
    """
    order = np.random.default_rng(0).permutation(len(source)).astype(np.int64)
    names = [f"images-{number:05d}-of-{shards:05d}.tfrecord" for number in range(shards)]
    with ThreadPoolExecutor(workers, thread_name_prefix="record_writer") as threads:
        writing = [
            threads.submit(_write_shard, source, rows, f"{folder}/{name}", progress)
            for name, rows in zip(names, np.array_split(order, shards))
        ]
        written = progress.follow("written", writing)
        progress.follow("checked", [threads.submit(_check_shard, shard, progress) for shard in written])
    return _index(source, names, written)


def _write_shard(source: EncodedSource, rows: NDArray[np.int64], path: str, progress: Progress) -> _Shard:
    lengths: list[int] = []
    image_sizes: list[int] = []
    digest = hashlib.sha256()
    with _writing(path) as file:
        for row in rows.tolist():
            progress.count()
            image = source.encoded(row)
            data = example(image, source.class_names[source.labels[row]], source.keys[row])
            file.write(frame(data))
            digest.update(data)
            lengths.append(len(data))
            image_sizes.append(len(image))
    ends = np.cumsum(np.array(lengths, np.int64) + FRAME_BYTES)
    return _Shard(
        path=path,
        size=int(ends[-1]),
        sha256=digest.hexdigest(),
        rows=rows,
        offsets=np.concatenate([[0], ends[:-1]]),
        lengths=np.array(lengths, np.int64),
        image_sizes=np.array(image_sizes, np.int64),
    )


@contextmanager
def _writing(path: str) -> Iterator[IO[bytes]]:
    if is_remote(path):
        import tensorflow as tf

        with tf.io.gfile.GFile(path, "wb") as remote:
            yield remote
    else:
        with open(path, "xb", buffering=_BUFFER_BYTES) as file:
            yield file


def _check_shard(shard: _Shard, progress: Progress) -> None:
    """Raises UserError if a file does not hold what was written into it."""
    digest = hashlib.sha256()
    places: list[tuple[int, int]] = []
    for offset, length, data in records_of(shard.path, shard.size):
        progress.count()
        places.append((offset, length))
        digest.update(data or b"")
    whole = _size(shard.path) == shard.size and places == list(zip(shard.offsets.tolist(), shard.lengths.tolist()))
    if not whole or digest.hexdigest() != shard.sha256:
        raise UserError(f"{shard.path} does not hold what was written into it: check the disk, or give another DST.")


def _size(path: str) -> int:
    with open_bytes(path) as file:
        size: Any = file.size() if is_remote(path) else file.seek(0, 2)  # type: ignore[attr-defined]
    return int(size)


def _index(source: EncodedSource, names: Sequence[str], written: Sequence[_Shard]) -> RecordIndex:
    rows = np.concatenate([shard.rows for shard in written])
    by_key = np.argsort(rows)  # The source's rows are sorted by key.
    file_numbers = np.repeat(np.arange(len(written)), [len(shard.rows) for shard in written])
    offsets, lengths, image_sizes = (
        np.concatenate([getattr(shard, name) for shard in written])[by_key].astype(np.int64)
        for name in ("offsets", "lengths", "image_sizes")
    )
    return RecordIndex(
        files=tuple(names),
        file_sizes=tuple(shard.size for shard in written),
        image_feature=IMAGE_FEATURE,
        class_names=source.class_names,
        keys=Names.of(source.keys),
        labels=source.labels.astype(np.int32),
        file_numbers=file_numbers[by_key].astype(np.int32),
        offsets=offsets,
        lengths=lengths,
        image_sizes=image_sizes,
    )
