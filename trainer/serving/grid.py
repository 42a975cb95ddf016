"""Pictures with what was predicted of them. Matplotlib is imported by who makes a grid, and no sooner."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.images import decode_at_least
from trainer.report.picture_grid import NEUTRAL, PICTURE_PIXELS, RIGHT, WRONG, TitledPicture, grid_png
from trainer.serving.predictions import Prediction
from trainer.storage import is_remote
from trainer.terminal import printable

MAX_PICTURES = 40
"""More make a page that nobody looks through."""

_TITLE_LENGTH = 24
"""Characters of a label, so that titles do not run into each other."""


class Grid:
    """The first pictures that it is given, and a title above each.

    Attributes:
      shown: how many there are.
    """

    def __init__(self, labels: Collection[str]) -> None:
        """An empty grid.

        Args:
          labels: a folder that bears the name of one says what its pictures show.
        """
        self._labels = {_normalised(label): label for label in labels}
        self._pictures: list[TitledPicture] = []

    @property
    def shown(self) -> int:
        """How many pictures there are, at most `MAX_PICTURES`."""
        return len(self._pictures)

    def add(self, path: str, encoded: bytes, predicted: Prediction) -> None:
        """Adds a picture, if there is room.

        Args:
          path: of the file; its folder may be the true label.
          encoded: the bytes of the file, which can be decoded.
          predicted: the most probable class.
        """
        if self.shown < MAX_PICTURES:
            title, color = title_of(predicted, self._true_label(path))
            self._pictures.append(TitledPicture(_thumbnail(encoded), title, color))

    def png(self) -> bytes:
        """The grid as the bytes of a PNG; at least one picture must have been added."""
        return grid_png(self._pictures)

    def _true_label(self, path: str) -> str | None:
        folder = os.path.dirname(path if is_remote(path) else os.path.abspath(path))
        return self._labels.get(_normalised(os.path.basename(folder)))


def title_of(predicted: Prediction, true_label: str | None) -> tuple[str, str]:
    """The text above a picture, with the true label in brackets where the model is wrong, and its color.

    Args:
      predicted: the most probable class.
      true_label: None where it is not known.
    """
    title = f"{_short(predicted.label)} {predicted.probability:.0%}"
    if true_label is None:
        return title, NEUTRAL
    if predicted.label == true_label:
        return title, RIGHT
    return f"{title}\n({_short(true_label)})", WRONG


def _short(label: str) -> str:
    text = printable(label, None)
    return text if len(text) <= _TITLE_LENGTH else f"{text[: _TITLE_LENGTH - 1]}…"


def _thumbnail(encoded: bytes) -> NDArray[np.uint8]:
    """The picture, uint8 [height, width, 3], no side longer than `PICTURE_PIXELS`."""
    with tf.device("/cpu:0"):
        pixels = decode_at_least(tf.constant(encoded), PICTURE_PIXELS)
        height, width = pixels.shape[:2]
        scale = min(1.0, PICTURE_PIXELS / max(height, width))
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        reduced = tf.image.resize(pixels, size, antialias=True)
        return np.asarray(tf.saturate_cast(tf.round(reduced), tf.uint8))


def _normalised(label: str) -> str:
    return unicodedata.normalize("NFC", label)
