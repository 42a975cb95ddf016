"""Reads all records of some files, in parallel, and makes their index."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trainer.data.folders import SkippedImage
from trainer.data.names import Names
from trainer.data.record_examples import FeatureNames, Labelled, choose_features, read_example
from trainer.data.record_framing import records_of
from trainer.data.record_index import RecordIndex
from trainer.errors import UserError
from trainer.processors import processors

_SECONDS_BETWEEN_REPORTS = 5.0

_THREADS = min(16, 4 * processors())
"""More than cores, because they wait for the storage."""

UNLABELLED = -1
"""The number that TensorFlow Datasets gives to images without a label."""


class RecordFile(NamedTuple):
    """A file of records.

    Attributes:
      path: to be opened.
      name: what its records are called after where they have no key of their own: record 5 is "NAME/000000005".
      size: bytes.
      modified: when it was last changed, in ns since 1970.
      first_number: the number of its first record, for a name that several files share.
    """

    path: str
    name: str
    size: int
    modified: int
    first_number: int = 0


class _Row(NamedTuple):
    file_number: int
    offset: int
    length: int
    found: Labelled
    key: str


@dataclass
class _Progress:
    """What the threads have done, for the one that waits."""

    records: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def scan(
    root: str,
    files: Sequence[RecordFile],
    names: FeatureNames,
    class_names: Sequence[str] | None,
    report: Callable[[str], None],
) -> RecordIndex:
    """Makes the index of some files, by reading all their records.

    Args:
      root: the folder that all files are in.
      files: at least one.
      names: the features of image and label; "" to look for the usual ones in the first record.
      class_names: what labels that are numbers mean; None calls them "0", "1" and so on. With names, images that are
        `UNLABELLED` are left out, and so are classes without any image.
      report: called with sentences on the progress of a long look, and on what is left out.

    Raises:
      UserError: a file is not as it must be, a record lacks a feature, a label is out of range or two keys are equal.
    """
    names = _chosen_features(files[0], names)
    rows, damaged = _scan_files(root, files, names, report)
    if class_names is not None:
        labelled = [row for row in rows if row.found.label != UNLABELLED]
        if len(labelled) < len(rows):
            report(f"{len(rows) - len(labelled)} records without a label are left out.")
        rows = labelled
    if not rows:
        raise UserError(f"{root} has no record with an image and a label: give other records.")
    rows.sort(key=lambda row: row.key)
    _check_unique(root, files, rows)
    used_names, labels = _numbered([row.found.label for row in rows], names.label, class_names, root)
    return RecordIndex(
        files=tuple(os.path.relpath(file.path, root) for file in files),
        file_sizes=tuple(file.size for file in files),
        image_feature=names.image,
        class_names=used_names,
        keys=Names.of(row.key for row in rows),
        labels=np.array(labels, np.int32),
        file_numbers=np.array([row.file_number for row in rows], np.int32),
        offsets=np.array([row.offset for row in rows], np.int64),
        lengths=np.array([row.length for row in rows], np.int64),
        image_sizes=np.array([row.found.image_bytes for row in rows], np.int64),
        damaged=tuple(damaged),
    )


def _chosen_features(file: RecordFile, names: FeatureNames) -> FeatureNames:
    for offset, _, data in records_of(file.path, file.size):
        if data is not None:
            return choose_features(data, names.image, names.label, _place(file, offset))
    raise UserError(f"No record of {file.path} is whole: make or copy it again.")


def _scan_files(
    root: str, files: Sequence[RecordFile], names: FeatureNames, report: Callable[[str], None]
) -> tuple[list[_Row], list[SkippedImage]]:
    """The rows of all files, and the records whose checksum is wrong."""
    rows: list[_Row] = []
    damaged: list[SkippedImage] = []
    progress = _Progress()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="record_scan") as threads:
        scans = [threads.submit(_scan_file, root, files, number, names, progress) for number in range(len(files))]
        pending = set(scans)
        began = time.monotonic()
        try:
            while pending:
                done, pending = wait(pending, _SECONDS_BETWEEN_REPORTS, FIRST_EXCEPTION)
                for finished in done:
                    finished.result()
                if pending:
                    speed = progress.records / (time.monotonic() - began)
                    left = f"{len(pending)} of {len(files)} files"
                    report(f"Indexing {root}: {progress.records} records so far, {speed:.0f} a second, {left} left.")
        finally:
            progress.stop.set()
            threads.shutdown(cancel_futures=True)
    for finished in scans:  # In the files' order, whichever was done first.
        of_file, bad = finished.result()
        rows += of_file
        damaged += bad
    return rows, damaged


def _scan_file(
    root: str, files: Sequence[RecordFile], number: int, names: FeatureNames, progress: _Progress
) -> tuple[list[_Row], list[SkippedImage]]:
    file = files[number]
    rows: list[_Row] = []
    damaged: list[SkippedImage] = []
    for count, (offset, length, data) in enumerate(records_of(file.path, file.size), file.first_number):
        if progress.stop.is_set():
            break
        progress.records += 1  # Now and then one is not counted when threads meet: it is only told to a person.
        if data is None:
            place = os.path.relpath(_place(file, offset), root)
            damaged.append(SkippedImage(place, "its checksum is wrong, so it is damaged"))
            continue
        found = read_example(data, names, _place(file, offset))
        rows.append(_Row(number, offset, length, found, found.key or f"{file.name}/{count:09d}"))
    return rows, damaged


def _check_unique(root: str, files: Sequence[RecordFile], rows: Sequence[_Row]) -> None:
    """Raises UserError if two neighbours of the sorted rows have one key."""
    for before, after in zip(rows, rows[1:]):
        if before.key == after.key:
            first, second = (_place(files[row.file_number], row.offset) for row in (before, after))
            raise UserError(f"{first} and {second} have the same key, {after.key}: leave one of them out of {root}.")


def _numbered(
    labels: Sequence[int | str], feature: str, class_names: Sequence[str] | None, root: str
) -> tuple[tuple[str, ...], list[int]]:
    """Class names that are in use, and each image's position among them."""
    present = set(labels)
    if len({type(label) for label in present}) > 1:
        raise UserError(f"Feature {feature} of the records of {root} is a number in some and text in others.")
    if class_names is None and all(isinstance(label, str) for label in present):
        used: list[int | str] = sorted(present, key=str)
        shown = [str(label) for label in used]
    else:
        numbers = sorted(label for label in present if isinstance(label, int))
        end = len(class_names) if class_names is not None else 2**31
        if len(numbers) < len(present) or numbers[0] < 0 or numbers[-1] >= end:
            wrong = numbers[0] if numbers and numbers[0] < 0 else max(present, key=str) if not numbers else numbers[-1]
            raise UserError(
                f"Feature {feature} of a record of {root} is {wrong}, which is no class: labels are numbers from 0"
                f"{f' to {end - 1}' if class_names is not None else ''}, or class names."
            )
        used = list(numbers)
        shown = [str(number) if class_names is None else class_names[number] for number in numbers]
    position = {label: number for number, label in enumerate(used)}
    return tuple(shown), [position[label] for label in labels]


def _place(file: RecordFile, offset: int) -> str:
    return f"{file.path} at byte {offset}"
