"""What all charts have in common: colors, sizes, and two ways out, an SVG that follows the page's theme and a PNG.

Each color of the palette is drawn as it looks on white. In the SVG it is then replaced by a variable of the page's
style, so that one drawing serves the light and the dark theme.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.terminal import printable

INK, MUTED, GRID, SURFACE = "#1c2127", "#5d6773", "#e3e6ea", "#fefefd"
TRAIN, VALIDATION, TEST = "#2a6db5", "#c8620e", "#7a52b8"
PHASE_COLORS = ("#2a6db6", "#c8620f", "#7a52b9", "#3b8f7b", "#b58a00", "#a5446f", "#6b7680", "#8fb3d9", "#c4262f")
"""Each differs by a bit from its twin above, so that every color has one variable."""

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    TRAIN: "train",
    VALIDATION: "validation",
    TEST: "test",
} | {color: f"phase-{number}" for number, color in enumerate(PHASE_COLORS)}

WIDTH = 4.6
"""Inches, of which the page shows 96 pixels each: a chart fits on a phone without its letters shrinking much."""

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": SURFACE,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # A class may be called "$5 to $10".
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True)
class Chart:
    """One drawing.

    Attributes:
      name: of its file, without an ending.
      title: what it shows, in a few words.
      description: the same in a sentence with its main numbers, for who cannot see it.
      svg: for the page; it has no XML declaration and takes its colors from the page's style.
      png: for everywhere else, on white.
    """

    name: str
    title: str
    description: str
    svg: str
    png: bytes


@contextlib.contextmanager
def chart_style() -> Iterator[None]:
    """What is drawn inside looks like ours, whatever the user's own settings are."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # The page shows names with the reader's fonts; in the PNG a box stands for what ours lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def new_figure(height: float = 2.9, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes; sizes in inches."""
    figure = Figure((width, height))
    return figure, figure.add_subplot()


def drawn(figure: Figure, name: str, title: str, description: str) -> Chart:
    """Renders a figure both ways."""
    FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(name, title, description, _themed(svg.getvalue(), name), png.getvalue())


def label_text(name: str, most: int = 24) -> str:
    """A class name as charts show it: no control codes, and not too long."""
    visible = printable(name, "utf-8")
    return visible if len(visible) <= most else f"{visible[: most - 1]}…"


def _themed(svg: str, name: str) -> str:
    """The `<svg>` element alone, with the page's colors, and ids that no other chart on the page has."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        element = element.replace(color, f"var(--{variable})")
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", element)
    # The page's own width decides.
    return re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", element))
