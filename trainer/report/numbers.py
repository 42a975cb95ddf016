"""The numbers behind a run's page: how good, how sure, where it errs. NumPy, SciPy and scikit-learn; no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.records.predictions import Predictions

CONFIDENCE = 0.95
"""Of the intervals."""

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Interval:
    """Where a share lies with 95 % confidence, in [0, 1]."""

    low: float
    high: float


def accuracy_interval(right: int, examples: int) -> Interval:
    """Wilson's interval for an accuracy: it holds its confidence near 0 and 1 and for few examples.

    Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16 (2001), recommend
    it.

    Args:
      right: how many were right.
      examples: of how many, at least 1.
    """
    from scipy.stats import binomtest

    found = binomtest(right, examples).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class ClassResult:
    """How one class fares.

    Attributes:
      name: the class.
      precision: share of right ones among what was taken for it; None where nothing was.
      recall: share of its examples that were recognised; None where it has none.
      f1: harmonic mean of both; None where either is missing.
      support: its examples.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Confusion:
    """Examples of one class that were taken for another."""

    label: str
    prediction: str
    count: int
    share: float
    """Of the label's examples."""


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions whose confidence lies in [low, high): how sure the model was, and how often right."""

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def confusion_matrix(predictions: Predictions, class_names: Sequence[str]) -> NDArray[np.int64]:
    """int64 `[classes, classes]`: examples by true class (row) and predicted one (column)."""
    place = {name: index for index, name in enumerate(class_names)}
    labels = [place[name] for name in predictions.labels]
    predicted = [place[name] for name in predictions.predictions]
    counts = np.bincount(np.array(labels, int) * len(place) + np.array(predicted, int), minlength=len(place) ** 2)
    return counts.reshape(len(place), len(place))


def class_results(matrix: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassResult]:
    """Precision, recall and support of each class, in the order of `class_names`."""
    right, predicted, support = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)

    def result(index: int) -> ClassResult:
        precision = float(right[index] / predicted[index]) if predicted[index] else None
        recall = float(right[index] / support[index]) if support[index] else None
        both = predicted[index] + support[index]
        f1 = float(2 * right[index] / both) if precision is not None and recall is not None else None
        return ClassResult(class_names[index], precision, recall, f1, int(support[index]))

    return [result(index) for index in range(len(class_names))]


def most_confused(matrix: NDArray[np.int64], class_names: Sequence[str], most: int) -> list[Confusion]:
    """The pairs of classes that were most often taken one for the other, most examples first; `most` of them."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    support = matrix.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(class_names)) for place in order]
    return [
        Confusion(
            class_names[row], class_names[column], int(wrong[row, column]), float(wrong[row, column] / support[row])
        )
        for row, column in pairs
        if wrong[row, column]
    ]


def calibration(predictions: Predictions) -> list[CalibrationBin]:
    """Confidence against accuracy in bins of equal width; empty bins are left out."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.clip((np.asarray(predictions.confidences) * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    right = predictions.right

    def summary(number: int) -> CalibrationBin:
        inside = bins == number
        confidence = float(np.mean(predictions.confidences[inside], dtype=np.float64))
        accuracy = float(np.mean(right[inside]))
        return CalibrationBin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), confidence, accuracy)

    return [summary(number) for number in np.unique(bins).tolist()]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean distance between confidence and accuracy, in [0, 1].

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    examples = sum(each.examples for each in bins)
    return sum(each.examples * abs(each.confidence - each.accuracy) for each in bins) / examples
