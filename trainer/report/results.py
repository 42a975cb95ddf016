"""What a run came to: everything on its page that is a number, as a page and as report.json show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.records.predictions import Split
from trainer.report.numbers import (
    CalibrationBin,
    ClassResult,
    Confusion,
    Interval,
    accuracy_interval,
    calibration,
    calibration_error,
    class_results,
    confusion_matrix,
    most_confused,
)
from trainer.report.run_record import RunRecord

_MOST_PAIRS = 20


@dataclass(frozen=True)
class Headline:
    """How good the model is, in one number.

    Attributes:
      split: that it was measured on.
      accuracy: share of right predictions, in [0, 1].
      loss: mean cross-entropy in nats.
      examples: how many the split has; 0 where that is not known.
      interval: where the accuracy on such examples lies; None where their number is not known.
    """

    split: Split
    accuracy: float
    loss: float
    examples: int
    interval: Interval | None


@dataclass(frozen=True)
class Judgement:
    """What the predictions on a split say.

    Attributes:
      split: which one.
      matrix: int64 `[classes, classes]`, examples by true and predicted class.
      classes: results of each, in the order of the class names.
      pairs: those most often confused.
      calibration: confidence against accuracy.
      calibration_error: see `numbers.calibration_error`.
    """

    split: Split
    matrix: NDArray[np.int64]
    classes: Sequence[ClassResult]
    pairs: Sequence[Confusion]
    calibration: Sequence[CalibrationBin]
    calibration_error: float


@dataclass(frozen=True)
class Results:
    """All of it; None where the run has not come that far."""

    headline: Headline | None
    judgement: Judgement | None


def results_of(record: RunRecord) -> Results:
    """What a run came to, as far as it is."""
    return Results(_headline(record), _judgement(record))


def results_json(record: RunRecord, results: Results) -> dict[str, Any]:
    """report.json: plain values, with the confusion matrix as its entries that are not 0."""
    facts, judgement = record.facts, results.judgement
    plain: dict[str, Any] = {
        "state": record.state,
        "headline": dataclasses.asdict(results.headline) if results.headline else None,
        "classes": list(facts.class_names) if facts else None,
        "examples": facts.examples if facts else None,
        "parameters": facts.parameters if facts else None,
        "trained_parameters": facts.trained_parameters if facts else None,
        "goodput": record.status.get("goodput"),
    }
    if judgement:
        entries = np.argwhere(judgement.matrix).tolist()
        plain["judgement"] = {
            "split": judgement.split,
            "confusion": [
                {"label": row, "prediction": column, "count": int(judgement.matrix[row, column])}
                for row, column in entries
            ],
            "classes": [dataclasses.asdict(each) for each in judgement.classes],
            "calibration": [dataclasses.asdict(each) for each in judgement.calibration],
            "calibration_error": judgement.calibration_error,
        }
    return plain


def _headline(record: RunRecord) -> Headline | None:
    test, best = record.status.get("test"), record.status.get("best")
    if test:
        right = round(test["accuracy"] * test["examples"])
        interval = accuracy_interval(right, test["examples"])
        return Headline("test", test["accuracy"], test["loss"], test["examples"], interval)
    if best:
        return _validation_headline(record, best)
    return None


def _validation_headline(record: RunRecord, best: Mapping[str, Any]) -> Headline:
    """Too good by a little: the best of several results on the same examples was chosen."""
    examples = sum(record.facts.examples["validation"]) if record.facts else 0
    interval = accuracy_interval(round(best["accuracy"] * examples), examples) if examples else None
    return Headline("validation", best["accuracy"], best["loss"], examples, interval)


def _judgement(record: RunRecord) -> Judgement | None:
    split: Split = "test" if record.test_predictions else "validation"
    predictions = record.test_predictions or record.validation_predictions
    if not (predictions and record.facts):
        return None
    names = record.facts.class_names
    matrix = confusion_matrix(predictions, names)
    bins = calibration(predictions)
    return Judgement(
        split,
        matrix,
        class_results(matrix, names),
        most_confused(matrix, names, _MOST_PAIRS),
        bins,
        calibration_error(bins),
    )
