"""Pictures with what was predicted of them, as one PNG. matplotlib is imported by who makes a grid, and no sooner."""

from __future__ import annotations

import io
import math
import os
import unicodedata
import warnings
from collections.abc import Collection

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer.data.images import decode_at_least
from trainer.serving.predictions import Prediction
from trainer.storage import is_remote
from trainer.terminal import printable

MAX_PICTURES = 40
"""More make a page that nobody looks through."""

_COLUMNS = 5
_PICTURE_INCHES = 1.8
_TITLE_INCHES = 0.42
_DOTS_PER_INCH = 110
_THUMBNAIL_PIXELS = 198
"""Of the longer side: as many as the place of a picture has."""

_TITLE_LENGTH = 24
"""Characters of a label, so that titles do not run into each other."""

RIGHT, WRONG, NEUTRAL = "#1a7f37", "#c62828", "#24292f"


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
        self._pictures: list[tuple[NDArray[np.uint8], str, str]] = []

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
            title, colour = title_of(predicted, self._true_label(path))
            self._pictures.append((_thumbnail(encoded), title, colour))

    def png(self) -> bytes:
        """The grid as the bytes of a PNG; at least one picture must have been added."""
        columns = min(_COLUMNS, self.shown)
        rows = math.ceil(self.shown / columns)
        size = (columns * _PICTURE_INCHES, rows * (_PICTURE_INCHES + _TITLE_INCHES))
        figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places:
            place.axis("off")
        for place, (pixels, title, colour) in zip(places, self._pictures):
            place.imshow(pixels)
            # Without mathematics, which a dollar sign in a label would begin.
            place.set_title(title, color=colour, fontsize=8, parse_math=False)
        file = io.BytesIO()
        with warnings.catch_warnings():
            # A box stands for what the font lacks, and the results have the label in full.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(file, format="png")
        return file.getvalue()

    def _true_label(self, path: str) -> str | None:
        folder = os.path.dirname(path if is_remote(path) else os.path.abspath(path))
        return self._labels.get(_normalised(os.path.basename(folder)))


def title_of(predicted: Prediction, true_label: str | None) -> tuple[str, str]:
    """The text above a picture, with the true label in brackets where the model is wrong, and its colour.

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
    """The picture, uint8 [height, width, 3], no side longer than `_THUMBNAIL_PIXELS`."""
    with tf.device("/cpu:0"):
        pixels = decode_at_least(tf.constant(encoded), _THUMBNAIL_PIXELS)
        height, width = pixels.shape[:2]
        scale = min(1.0, _THUMBNAIL_PIXELS / max(height, width))
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        reduced = tf.image.resize(pixels, size, antialias=True)
        return np.asarray(tf.saturate_cast(tf.round(reduced), tf.uint8))


def _normalised(label: str) -> str:
    return unicodedata.normalize("NFC", label)
