"""Pictures with a title above each, as one PNG."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

RIGHT, WRONG, NEUTRAL = "#1a7f37", "#c4262e", "#24292f"
"""Colors of a title: the prediction is right, it is wrong, nothing tells."""

PICTURE_PIXELS = 198
"""Of the longer side: as many as the place of a picture has."""

_COLUMNS = 5
_PICTURE_INCHES = 1.8
_TITLE_INCHES = 0.42
_DOTS_PER_INCH = 110


@dataclass(frozen=True, eq=False)
class TitledPicture:
    """One place of the grid.

    Attributes:
      pixels: uint8 `[height, width, 3]`.
      title: one or two short lines without control codes.
      color: of the title.
    """

    pixels: NDArray[np.uint8]
    title: str
    color: str


def grid_png(pictures: Sequence[TitledPicture]) -> bytes:
    """The grid as the bytes of a PNG; at least one picture."""
    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    size = (columns * _PICTURE_INCHES, rows * (_PICTURE_INCHES + _TITLE_INCHES))
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place in places:
        place.axis("off")
    for place, picture in zip(places, pictures):
        place.imshow(picture.pixels, interpolation="nearest")
        # Without mathematics, which a dollar sign in a label would begin.
        place.set_title(picture.title, color=picture.color, fontsize=8, parse_math=False)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A box stands for what the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
