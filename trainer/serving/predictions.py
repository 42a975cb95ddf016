"""The most probable classes of an image, as one line of text, JSON or CSV. No TensorFlow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from trainer.terminal import printable

_SHORTEST_NAME = 12
"""Columns that a file name keeps on the narrowest terminal."""


class Prediction(NamedTuple):
    """A class, and how probable it is.

    Attributes:
      class_id: place among the probabilities.
      label: name of the class.
      probability: in [0, 1]; as few digits as tell it from its neighbours in float32.
    """

    class_id: int
    label: str
    probability: float


def most_probable(probabilities: NDArray[np.float32], labels: Sequence[str], top: int) -> list[Prediction]:
    """The first classes by probability, of equal ones the first by place.

    Args:
      probabilities: float32 `[classes]`.
      labels: name of each class.
      top: how many; all, if there are fewer.
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Prediction(int(place), labels[place], float(str(probabilities[place]))) for place in order]


def text_line(path: str, predictions: Sequence[Prediction], width: int | None) -> str:
    """ "name  label probability, label probability…", without control codes.

    Args:
      path: of the image.
      predictions: at least one.
      width: columns, into which as many predictions go as fit, the first always, beside as much of the name's end as
        they leave, or half of the columns; None has room for all.
    """
    name = printable(path, None)
    texts = [f"{printable(label, None)} {probability:.3f}" for _, label, probability in predictions]
    if width is None:
        return f"{name}  {', '.join(texts)}"
    beside_all = max(width // 2, width - 2 - cell_len(", ".join(texts)))
    room = max(_SHORTEST_NAME, min(beside_all, width - 2 - cell_len(texts[0])))
    if cell_len(name) > room:
        name = f"…{_last_columns(name, room - 1)}"
    line = f"{name}  {texts[0]}"
    for text in texts[1:]:
        if cell_len(line) + 2 + cell_len(text) > width:
            break
        line = f"{line}, {text}"
    return line if cell_len(line) <= width else f"{set_cell_size(line, width - 1).rstrip()}…"


def json_line(path: str, predictions: Sequence[Prediction]) -> str:
    """One JSON object in ASCII: "path", and "top" with "label", "probability" and "class_id" of each prediction."""
    top = [{"label": label, "probability": number, "class_id": place} for place, label, number in predictions]
    return json.dumps({"path": path, "top": top}, allow_nan=False)


def csv_header(top: int) -> str:
    """The names of the columns of `csv_line`."""
    return _csv(["path", *(f"{name}_{rank}" for rank in range(1, top + 1) for name in ("label", "probability"))])


def csv_line(path: str, predictions: Sequence[Prediction]) -> str:
    """One row: the path, then label and probability of each prediction; control codes as Python escapes."""
    cells = [cell for _, label, probability in predictions for cell in (printable(label, None), probability)]
    return _csv([printable(path, None), *cells])


def _csv(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _last_columns(text: str, columns: int) -> str:
    """The end of a text, as much as fits."""
    while cell_len(text) > columns:
        text = text[1:]
    return text
