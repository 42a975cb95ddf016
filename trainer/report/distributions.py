"""Charts that have no time axis: confusion matrix, calibration, examples per class, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from trainer.records.facts import Facts
from trainer.records.goodput import PHASES
from trainer.records.predictions import Split
from trainer.report.charts import (
    INK,
    MUTED,
    PHASE_COLORS,
    SURFACE,
    TEST,
    TRAIN,
    VALIDATION,
    WIDTH,
    Chart,
    drawn,
    label_text,
    new_figure,
)
from trainer.report.numbers import CalibrationBin

_MOST_NUMBERED = 12
"""Classes of a confusion matrix whose counts can be read in their cells."""

_MOST_NAMED = 40
"""Classes whose names fit beside a chart."""

_MOST_CELLS = 150
"""Rows of a confusion matrix without names; with more classes, a cell shows the strongest of several."""

_DARK_CELL = 0.55
"""From this share on a cell's number is written in the color of the page, not in ink."""

_SPLIT_COLORS: dict[Split, str] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

PHASE_NAMES = {
    "train": "training",
    "features": "features",
    "input_wait": "waiting for images",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "export": "export",
    "compile": "compiling",
    "startup": "startup",
    "lost": "done again",
}
"""In the order in which the bar shows them; "lost" is training that a later start had to repeat."""


def confusion_chart(matrix: NDArray[np.int64], class_names: Sequence[str], split: Split) -> Chart:
    """Rows are true classes, columns predicted ones; a cell's depth is its share of the row."""
    classes = len(class_names)
    named = classes <= _MOST_NAMED
    side = WIDTH if classes <= _MOST_NUMBERED else 6.2
    figure, axes = new_figure(height=side, width=side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if named:
        _cells(axes, matrix, shares, numbered=classes <= _MOST_NUMBERED)
        texts = [label_text(name, 14) for name in class_names]
        axes.set_xticks(range(classes), texts, rotation=90 if max(map(len, texts)) > 2 else 0)
        axes.set_yticks(range(classes), texts)
    else:
        deepest = _pooled(shares)
        edge = len(deepest) * -(-classes // _MOST_CELLS)
        axes.imshow(_translucent(np.sqrt(deepest)), interpolation="nearest", extent=(0, edge, edge, 0))
        axes.set_xlim(0, classes)
        axes.set_ylim(classes, 0)
    axes.grid(visible=False)
    axes.set_xlabel("predicted class" if named else "number of the predicted class")
    axes.set_ylabel("true class" if named else "number of the true class")
    right = int(matrix.diagonal().sum())
    return drawn(
        figure,
        "confusion-matrix",
        f"Confusion matrix of the {split} split",
        f"{matrix.sum()} examples of {classes} classes by true and predicted class; {right} lie on the diagonal.",
    )


def calibration_chart(bins: Sequence[CalibrationBin]) -> Chart:
    """How often the model is right when it says that it is so sure."""
    figure, axes = new_figure(height=3.6)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
    largest = max(each.examples for each in bins)
    axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], color=TEST, linewidth=1.5)
    axes.scatter(
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        s=[20 + 160 * each.examples / largest for each in bins],
        color=TEST,
        label="predictions; larger: more",
    )
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right predictions")
    axes.legend(loc="upper left", markerscale=0.7)
    sure = bins[-1]
    return drawn(
        figure,
        "calibration",
        "Calibration",
        f"Confidence against accuracy in {len(bins)} bins; the {sure.examples} surest predictions have a mean "
        f"confidence of {sure.confidence:.2f} and are right in {sure.accuracy:.0%} of the cases.",
    )


def class_sizes_chart(facts: Facts) -> Chart:
    """Examples of each class in each split; with many classes, without their names and the largest first."""
    classes = len(facts.class_names)
    named = classes <= _MOST_NAMED
    figure, axes = new_figure(height=max(1.6, 0.24 * classes + 1.0) if named else 2.9)
    counts = {split: np.array(facts.examples[split]) for split in _SPLIT_COLORS}
    order = np.arange(classes) if named else np.argsort(-sum(counts.values()), kind="stable")  # type: ignore[arg-type]
    begin = np.zeros(classes)
    for split, color in _SPLIT_COLORS.items():
        length = counts[split][order]
        if named:
            axes.barh(np.arange(classes), length, left=begin, height=0.72, color=color, label=split)
        else:
            axes.fill_between(np.arange(classes), begin, begin + length, color=color, label=split, linewidth=0)
        begin = begin + length
    if named:
        axes.set_yticks(range(classes), [label_text(name) for name in facts.class_names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("examples")
    else:
        axes.set_xlabel("classes, the largest first")
        axes.set_ylabel("examples")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return drawn(
        figure,
        "class-sizes",
        "Examples per class and split",
        f"{int(begin.sum())} examples of {classes} classes; the largest has {int(begin.max())}, the smallest "
        f"{int(begin.min())}.",
    )


def time_chart(goodput: Mapping[str, float]) -> Chart:
    """One bar: where the wall time of all starts went."""
    assert set(PHASE_NAMES) == {*PHASES, "lost"}
    figure, axes = new_figure(height=1.75)
    total = goodput["total"]
    spent = {name: goodput.get(phase, 0.0) for phase, name in PHASE_NAMES.items()}
    spent["other"] = max(0.0, total - sum(spent.values()))
    begin = 0.0
    for (name, seconds), color in zip(spent.items(), (*PHASE_COLORS, MUTED), strict=True):
        if seconds >= 0.005 * total:
            axes.barh(0, seconds, left=begin, color=color, height=0.8, label=f"{name} {seconds:.3g} s")
        begin += seconds
    axes.set_xlim(0, total)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel("seconds")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8.5, handlelength=1.0)
    figure.set_figheight(1.1 + 0.17 * (len(axes.patches) + 1))
    return drawn(
        figure,
        "time",
        "Where the time went",
        f"{total:.3g} seconds in all; {goodput.get('share', 0.0):.0%} of them trained.",
    )


def _cells(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64], *, numbered: bool) -> None:
    classes = len(matrix)
    for row, column in np.argwhere(matrix):
        axes.add_patch(_square(int(row), int(column), float(shares[row, column])))
        if numbered:
            color = SURFACE if shares[row, column] > _DARK_CELL else INK
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=9)
    axes.set_xlim(-0.5, classes - 0.5)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.set_aspect("equal")


def _square(row: int, column: int, share: float) -> Rectangle:
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=TRAIN, alpha=0.06 + 0.94 * share)


def _pooled(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest share of each square block, so that no more cells are left than can be seen."""
    block = -(-len(shares) // _MOST_CELLS)
    padded = np.pad(shares, (0, -len(shares) % block))
    blocks = len(padded) // block
    pooled: NDArray[np.float64] = padded.reshape(blocks, block, blocks, block).max(axis=(1, 3))
    return pooled


def _translucent(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGBA `[rows, columns, 4]`: one color, as opaque as `depth` in [0, 1] says, so that it suits any background."""
    colors = np.empty((*depth.shape, 4))
    colors[..., :3] = to_rgb(TRAIN)
    colors[..., 3] = depth
    return colors
