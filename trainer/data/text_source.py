"""Texts in memory, each known by its content: what a CSV file becomes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.data.csv_file import LabelledText, read_texts
from trainer.data.folders import choose_classes
from trainer.data.source import MemorySource
from trainer.errors import UserError
from trainer.storage import is_remote

if TYPE_CHECKING:
    import tensorflow as tf

_HASH_DIGITS = 32
"""Of a text's SHA-256, in hexadecimal."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TextSource(MemorySource):
    """Texts that lie in memory.

    A text's key is a hash of its bytes, so neither its line nor other texts move it to another split. Copies of a text
    have numbered keys, and stay in one split: a model must not be tested on what it was trained on.

    Attributes:
      texts: [n], in UTF-8.
      path: of the file that they come from.
      lines: int64 [n], where each begins in the file, from 1.
    """

    kind = "text"

    texts: Sequence[bytes]
    path: str
    lines: NDArray[np.int64]

    @property
    def split_keys(self) -> Sequence[str]:
        """See `Source.split_keys`: the hashes, without the numbers of the copies."""
        return [key[:_HASH_DIGITS] for key in self.keys]

    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            texts = tf.constant([self.texts[index] for index in indices.tolist()], tf.string)
        return lambda place: tf.gather(texts, place)

    def encoded(self, index: int) -> bytes:
        return self.texts[index]

    def content(self, index: int) -> bytes:
        return self.texts[index]

    def place_of(self, index: int) -> str:
        """Where one text lies, for a person who has to mend it."""
        return f"{self.path}, line {self.lines[index]}"

    def _content(self) -> bytes:
        return b""  # The keys are hashes of it.


def open_csv(
    file: str, text_column: str, label_column: str, classes: Collection[str], report: Callable[[str], None]
) -> TextSource:
    """The texts of a CSV file.

    Args:
      file: local or gs://.
      text_column: name of the column of texts.
      label_column: name of the column of labels.
      classes: take only these; empty: all.
      report: is told of texts that occur more than once.

    Raises:
      UserError: the file is not as it must be, has one class only, or has no such class.
    """
    path = file if is_remote(file) else os.path.abspath(os.path.expanduser(file))
    found = read_texts(path, text_column, label_column)
    class_names = choose_classes(sorted({row.label for row in found}), classes, path)
    if len(class_names) < 2:
        raise UserError(f"--data=csv:{path} has one class only, {class_names[0]}: at least two are needed.")
    chosen = set(class_names)
    hashed = sorted(
        ((hashlib.sha256(row.text).hexdigest()[:_HASH_DIGITS], row) for row in found if row.label in chosen),
        key=lambda pair: (pair[0], pair[1].label),
    )
    labels = {name: label for label, name in enumerate(class_names)}
    _report_copies(hashed, path, report)
    return TextSource(
        name=f"file {path}",
        class_names=class_names,
        labels=np.array([labels[row.label] for _, row in hashed], np.int32),
        keys=[key for digest, rows in groupby(hashed, lambda pair: pair[0]) for key in _keys(digest, len(list(rows)))],
        texts=[row.text for _, row in hashed],
        path=path,
        lines=np.array([row.line for _, row in hashed], np.int64),
    )


def _keys(digest: str, copies: int) -> list[str]:
    """One key for each copy of a text, sorted."""
    return [digest, *(f"{digest}-{number:09d}" for number in range(2, copies + 1))]


def _report_copies(hashed: Sequence[tuple[str, LabelledText]], path: str, report: Callable[[str], None]) -> None:
    """Tells of texts that occur more than once: harmless, but where their labels differ somebody should look."""
    copies = len(hashed) - len({digest for digest, _ in hashed})
    if not copies:
        return
    report(f"{copies} of {len(hashed)} texts in {path} are copies of others; those that are alike share a split.")
    for one, other in zip(hashed, hashed[1:]):
        if one[0] == other[0] and one[1].label != other[1].label:
            lines = f"lines {one[1].line} and {other[1].line}"
            report(f"The same text has two labels in {path}, {lines}: {one[1].label} and {other[1].label}.")
            return
