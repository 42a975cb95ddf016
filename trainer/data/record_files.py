"""Opens sets of TFRecord files: finds the files, and their index where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Sequence

import numpy as np

from trainer.cache_home import cache_home
from trainer.config import Config
from trainer.data.folders import choose_classes
from trainer.data.record_examples import FeatureNames
from trainer.data.record_framing import open_bytes
from trainer.data.record_index import RecordIndex
from trainer.data.record_scan import RecordFile, scan
from trainer.data.record_source import RecordSource
from trainer.errors import UserError
from trainer.storage import RunDirectory, absolute, is_remote, reading_or_writing

INDEX_FILE = "index.npz"
"""The index that the converter writes beside the records."""

CONVERTED = "converted"
"""The stamp of that index, which holds wherever its files are; their sizes are compared."""

CACHE_KIND = "record-index"
"""The folder among the program's caches where the indices of other records are kept."""

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(.*)")


def open_records(pattern: str, config: Config, report: Callable[[str], None]) -> RecordSource:
    """Opens the records that `--data=tfrecord:PATTERN` names.

    Args:
      pattern: a file, a folder, or a pattern of names, local or with a scheme.
      config: its features and classes count.
      report: called with sentences on the progress of a long look through the files.

    Raises:
      UserError: no such files, or they are not as they must be.
    """
    root, paths = find_files(pattern)
    with reading_or_writing(pattern, "--data"):
        files = [record_file(path, os.path.relpath(path, root)) for path in paths]
    names = FeatureNames(config.image_feature, config.label_feature)
    index = None if any(names) else _converted_index(root, files, report)
    if index is None:
        index = kept_index(root, files, names, None, report)
    return chosen_records(root, index, f"records {pattern}", config.classes)


def chosen_records(root: str, index: RecordIndex, name: str, classes: Collection[str]) -> RecordSource:
    """The images of these classes; of all, if `classes` is empty.

    Raises:
      UserError: there is no such class, or one class only.
    """
    class_names = choose_classes(index.class_names, classes, name)
    if len(class_names) < 2:
        raise UserError(f"The {name} have only one class, {class_names[0]}; a classifier needs at least two classes.")
    if class_names != index.class_names:
        new_labels = np.full(len(index.class_names), -1, np.int32)
        new_labels[[index.class_names.index(name) for name in class_names]] = np.arange(len(class_names))
        index = index.rows(np.flatnonzero(new_labels[index.labels] >= 0)).relabelled(class_names, new_labels)
    return RecordSource.of(root, index, name)


def find_files(pattern: str) -> tuple[str, list[str]]:
    """The files that a pattern names, sorted, and the folder that all are in.

    In a folder those are taken that have ".tfrecord" in their names; hidden ones are passed over.

    Raises:
      UserError: there are none, or a folder lacks some of the files that the names of the others count.
    """
    pattern = absolute(pattern).rstrip("/")
    with reading_or_writing(pattern, "--data"):
        paths = _paths(pattern)
    if not paths:
        raise UserError(
            f"There is no TFRecord file {pattern}: give a file, a folder with *.tfrecord files or a pattern as "
            "--data=tfrecord:PATTERN."
        )
    root = os.path.dirname(os.path.commonprefix(paths)) if len(paths) > 1 else os.path.dirname(paths[0])
    return root, paths


def kept_index(
    root: str,
    files: Sequence[RecordFile],
    names: FeatureNames,
    class_names: Sequence[str] | None,
    report: Callable[[str], None],
) -> RecordIndex:
    """The index from the user's cache, or a new one, which is then kept there; see `scan`.

    A cache that cannot be written is reported and does no harm.
    """
    stamp = json.dumps([[file.name, file.size, file.modified, file.first_number] for file in files])
    asked = json.dumps([root, [file.path for file in files], names, class_names])
    entry = f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.npz"
    index = _cached(entry, stamp, report)
    if index is None:
        index = scan(root, files, names, class_names, report)
        try:
            RunDirectory(cache_home(CACHE_KIND), "XDG_CACHE_HOME").write_bytes(entry, index.to_bytes(stamp))
        except UserError as error:
            report(f"The index of {root} is not kept for the next run. {error}")
    return index


def record_file(path: str, name: str, first_number: int = 0) -> RecordFile:
    """Looks at a file; see `RecordFile`.

    Raises:
      OSError, tf.errors.OpError: there is none, or it may not be read.
    """
    if not is_remote(path):
        # TensorFlow tells whole seconds only (2.21).
        local = os.stat(path)
        return RecordFile(path, name, local.st_size, local.st_mtime_ns, first_number)
    import tensorflow as tf

    status = tf.io.gfile.stat(path)
    return RecordFile(path, name, int(status.length), int(status.mtime_nsec), first_number)


def _cached(entry: str, stamp: str, report: Callable[[str], None]) -> RecordIndex | None:
    """What the user's cache has under a name, if it holds for these files."""
    try:
        cache = RunDirectory(cache_home(CACHE_KIND), "XDG_CACHE_HOME")
        return RecordIndex.from_bytes(cache.read_bytes(entry), stamp) if cache.exists(entry) else None
    except UserError as error:
        report(f"The index of an earlier run cannot be read. {error}")
        return None


def _converted_index(root: str, files: Sequence[RecordFile], report: Callable[[str], None]) -> RecordIndex | None:
    """The index that the converter left beside exactly these files; None if there is none."""
    import tensorflow as tf

    path = f"{root}/{INDEX_FILE}"
    try:
        with open_bytes(path) as file:
            content = file.read()
    except (FileNotFoundError, tf.errors.NotFoundError):
        return None
    index = RecordIndex.from_bytes(content, CONVERTED)
    found = {file.name: file.size for file in files}
    if index is not None and dict(zip(index.files, index.file_sizes)) == found:
        return index
    if index is None or not found.keys() < set(index.files):
        report(f"{path} does not go with the files beside it; their records are read to make another index.")
    return None


def _paths(pattern: str) -> list[str]:
    import tensorflow as tf

    try:
        is_folder = tf.io.gfile.stat(pattern).is_directory
    except tf.errors.NotFoundError:
        return sorted(path for path in tf.io.gfile.glob(pattern) if os.path.basename(path) != INDEX_FILE)
    if not is_folder:
        return [pattern]
    names = [name for name in tf.io.gfile.listdir(pattern) if ".tfrecord" in name and not name.startswith(".")]
    _check_complete(pattern, names)
    return [f"{pattern}/{name}" for name in sorted(names)]


def _check_complete(folder: str, names: Sequence[str]) -> None:
    """Raises UserError if names like train-00002-of-00008 lack one of the eight: a copy was not finished."""
    present: dict[tuple[str, int, str], set[int]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            present.setdefault((match[1], int(match[3]), match[4]), set()).add(int(match[2]))
    for (beginning, count, end), numbers in present.items():
        if len(numbers) < count:
            missing = next(number for number in range(count) if number not in numbers)
            name = f"{beginning}-{missing:05d}-of-{count:05d}{end}"
            raise UserError(
                f"{folder}/{name} is missing: copy or make the rest, or name some of the files with a pattern."
            )
