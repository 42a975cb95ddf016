"""report/examples.json: a few predictions to look at, with the pictures themselves, small.

The page of a run is made from it alone, wherever the images are by then.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.records.predictions import FOLDER, Predictions
from trainer.storage import RunDirectory

FILE_NAME = f"{FOLDER}/examples.json"

SHOWN = 36
"""Examples that are shown, if there are as many."""

_LEAST_RIGHT = 12
"""Of those, at least so many that the model got right, if there are as many."""


@dataclass(frozen=True)
class ShownExample:
    """One example and what the model said of it.

    Attributes:
      key: its name in its source.
      label: its true class.
      prediction: the most probable class.
      confidence: its probability, in [0, 1].
      content: a small JPEG or PNG, or text.
      media_type: of `content`: image/jpeg, image/png or text/plain.
    """

    key: str
    label: str
    prediction: str
    confidence: float
    content: bytes
    media_type: str

    @property
    def is_text(self) -> bool:
        """Whether it is a text and not a picture."""
        return self.media_type == "text/plain"

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return self.prediction == self.label


def choose_examples(predictions: Predictions) -> NDArray[np.int64]:
    """Places of those to show: most confident mistakes first, then right ones spread evenly over the table.

    The table is in the order of the keys, and so of the classes.
    """
    wrong, right = np.flatnonzero(~predictions.right), np.flatnonzero(predictions.right)
    mistakes = wrong[np.argsort(-predictions.confidences[wrong], kind="stable")]
    mistakes = mistakes[: SHOWN - min(len(right), _LEAST_RIGHT)]
    count = min(SHOWN - len(mistakes), len(right))
    spread = right[np.linspace(0, len(right) - 1, count).astype(int)] if count else right[:0]
    return np.concatenate([mistakes, spread]).astype(np.int64)


def write_examples(run: RunDirectory, examples: Sequence[ShownExample]) -> None:
    """Replaces the file.

    Raises:
      UserError: the disk is full, or the place cannot be written.
    """
    values = [vars(example) | {"content": base64.b64encode(example.content).decode()} for example in examples]
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    run.write_bytes(FILE_NAME, text.encode(errors="backslashreplace"))


def read_examples(run: RunDirectory) -> list[ShownExample]:
    """The examples in the order of `choose_examples`; none where the run has written none.

    Raises:
      UserError: the file is damaged.
    """
    if not run.exists(FILE_NAME):
        return []
    try:
        return [_from_json(values) for values in json.loads(run.read_text(FILE_NAME))]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{run.join(FILE_NAME)} is damaged: delete it, and the page does without.") from None


def _from_json(values: Any) -> ShownExample:
    return ShownExample(**values | {"content": base64.b64decode(values["content"], validate=True)})
