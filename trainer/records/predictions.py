"""What a model said of every example of a split, as a table that people, scripts and other runs can read.

report/test.csv         the best checkpoint on the test split, written when the run ends
report/validation.csv   the validation split after the newest epoch
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.storage import RunDirectory

FOLDER = "report"
"""The folder of the run directory that tables, pictures and the page lie in."""

Split = Literal["train", "validation", "test"]

COLUMNS = ("example", "label", "prediction", "confidence", "loss")


@dataclass(frozen=True)
class Predictions:
    """A model's answers on n examples, in the order of their keys.

    Attributes:
      keys: names of the examples in their source.
      labels: true classes, by name.
      predictions: most probable classes, by name.
      confidences: `[n]`, probabilities of the predictions, in [0, 1].
      losses: `[n]`, cross-entropy in nats.
    """

    keys: Sequence[str]
    labels: Sequence[str]
    predictions: Sequence[str]
    confidences: NDArray[np.floating]
    losses: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def right(self) -> NDArray[np.bool_]:
        """`[n]`, whether the prediction is the label."""
        return np.array(self.labels, object) == np.array(self.predictions, object)

    def write(self, run: RunDirectory, split: Split) -> None:
        """Replaces the split's table.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """
        # A file name that is no UTF-8 comes as lone surrogates, which no UTF-8 file can hold.
        run.write_bytes(_place(split), _table(self._rows()).encode(errors="backslashreplace"))

    def _rows(self) -> Iterable[tuple[str, str, str, str, str]]:
        # Nine significant digits are all of a float32.
        confidences = (f"{value:.9g}" for value in self.confidences.tolist())
        losses = (f"{value:.9g}" for value in self.losses.tolist())
        return zip(self.keys, self.labels, self.predictions, confidences, losses, strict=True)

    @classmethod
    def read(cls, run: RunDirectory, split: Split) -> Predictions | None:
        """The split's table; None where the run has written none.

        Raises:
          UserError: it is damaged.
        """
        if not run.exists(_place(split)):
            return None
        try:
            header, *rows = csv.reader(io.StringIO(run.read_text(_place(split)), newline=""))
            if tuple(header) != COLUMNS:
                raise ValueError(header)
            keys, labels, predictions, confidences, losses = zip(*rows, strict=True)
            return cls(keys, labels, predictions, np.array(confidences, float), np.array(losses, float))
        except (ValueError, csv.Error):
            raise UserError(
                f"{run.join(_place(split))} is damaged: delete it; a run that goes on writes it again."
            ) from None


def _place(split: Split) -> str:
    return f"{FOLDER}/{split}.csv"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()
