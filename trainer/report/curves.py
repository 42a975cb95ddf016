"""Charts over the steps and epochs of a run: loss, accuracy, learning rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from trainer.report.charts import MUTED, TRAIN, VALIDATION, Chart, drawn, new_figure
from trainer.report.run_record import RunRecord, Series

_MOST_POINTS = 1500
"""Points of a curve; more cannot be told apart on a page."""

_SMOOTHED_SHARE = 0.02
"""Of all steps: how far back the smoothed curve looks. A fiftieth leaves some fifty independent points."""

_LIGHT = 0.35


def curve_charts(record: RunRecord) -> Iterator[Chart]:
    """Those for which the run has numbers already."""
    if len(record.train):
        yield _over_steps(record.train, "loss", "cross-entropy in nats")
        yield _over_steps(record.train, "accuracy", "share of right predictions")
    epochs = epoch_means(record.train, int(record.status.get("epoch", 0)))
    if len(epochs):
        yield _over_epochs(epochs, record.validation, "loss", "cross-entropy in nats")
        yield _over_epochs(epochs, record.validation, "accuracy", "share of right predictions")
    if len(record.train):
        yield _learning_rate(record.train)


def smoothed(values: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Moving average with weights that fall by `decay` a step, corrected for its start; NaN counts for nothing.

    Args:
      values: `[n]`.
      decay: in [0, 1).
    """
    weights = np.isfinite(values)
    clean = np.where(weights, values, 0.0)
    sums = _accumulated(clean, decay)
    counts = _accumulated(weights.astype(np.float64), decay)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _accumulated(values: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Each value with the sum before it, which decays by a factor a step."""
    totals = itertools.accumulate(values.tolist(), lambda total, value: decay * total + value)
    return np.array(list(totals), np.float64)


def epoch_means(train: Series, epochs_done: int) -> Series:
    """The mean of each training metric over each whole epoch."""
    epochs = np.unique(train.epochs[train.epochs <= epochs_done])
    ends = [int(train.steps[train.epochs == epoch].max()) for epoch in epochs]
    values = {
        name: np.array([column[train.epochs == epoch].mean() for epoch in epochs], np.float64)
        for name, column in train.values.items()
    }
    return Series(np.array(ends, np.int64), epochs, values)


def _over_steps(train: Series, metric: str, unit: str) -> Chart:
    figure, axes = new_figure()
    raw = train.values[metric]
    steps, thinned = _thinned(train.steps, raw)
    axes.plot(steps, thinned, color=TRAIN, alpha=_LIGHT, linewidth=0.8, label="each step")
    smooth = smoothed(raw, np.exp(-1 / max(1.0, _SMOOTHED_SHARE * len(raw))))
    axes.plot(*_thinned(train.steps, smooth), color=TRAIN, linewidth=1.8, label="smoothed")
    _describe_axes(axes, "step", unit, metric)
    last = f"{smooth[-1]:.4g}"
    return drawn(
        figure,
        f"{metric}-per-step",
        f"Training {metric} per step",
        f"Training {metric} over {len(raw)} steps; smoothed, it ends at {last}.",
    )


def _over_epochs(train: Series, validation: Series, metric: str, unit: str) -> Chart:
    figure, axes = new_figure()
    _line(axes, train, metric, TRAIN, "training")
    ends = f"{train.values[metric][-1]:.4g} in training"
    if len(validation):
        _line(axes, validation, metric, VALIDATION, "validation")
        ends += f" and {validation.values[metric][-1]:.4g} in validation"
    _describe_axes(axes, "epoch", unit, metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn(
        figure,
        f"{metric}-per-epoch",
        f"{metric.capitalize()} per epoch",
        f"{metric.capitalize()} over {len(train)} epochs; it ends at {ends}.",
    )


def _learning_rate(train: Series) -> Chart:
    figure, axes = new_figure()
    rates = train.values["learning_rate"]
    axes.plot(*_thinned(train.steps, rates), color=MUTED, linewidth=1.8)
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=False)
    peak = f"Learning rate over {len(train)} steps; its peak is {np.nanmax(rates):.3g}."
    return drawn(figure, "learning-rate", "Learning rate", peak)


def _line(axes: Axes, series: Series, metric: str, color: str, label: str) -> None:
    values = series.values[metric]
    marker = "o" if len(values) <= 40 else ""
    axes.plot(series.epochs, values, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=label)


def _describe_axes(axes: Axes, below: str, unit: str, metric: str) -> None:
    axes.set_xlabel(below)
    axes.set_ylabel(unit)
    if metric == "loss":
        axes.set_ylim(bottom=0)
    axes.legend(loc="upper right" if metric == "loss" else "lower right")


def _thinned(steps: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Means of neighbours where there are more points than can be told apart."""
    if len(steps) <= _MOST_POINTS:
        return steps, values
    edges = np.linspace(0, len(steps), _MOST_POINTS + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(steps)))
    return np.add.reduceat(steps, edges) / counts, np.add.reduceat(values, edges) / counts
