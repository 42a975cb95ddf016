"""The numbers of the page, beside scikit-learn's and beside what can be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from trainer.records.predictions import Predictions
from trainer.report.curves import epoch_means, smoothed
from trainer.report.numbers import (
    accuracy_interval,
    calibration,
    calibration_error,
    class_results,
    confusion_matrix,
    most_confused,
)
from trainer.report.run_record import Series

NAMES = ["a", "b", "c", "never"]


def _predictions(labels: str, predicted: str, confidences: list[float] | None = None) -> Predictions:
    count = len(labels)
    given = np.array(confidences if confidences else [0.5] * count)
    return Predictions([str(place) for place in range(count)], list(labels), list(predicted), given, np.zeros(count))


def test_wilsons_interval_by_hand() -> None:
    right, n, z = 81, 100, 1.959963984540054
    middle = (right / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(right / n * (1 - right / n) / n + z * z / (4 * n * n))
    interval = accuracy_interval(right, n)
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half), abs=1e-12)
    assert accuracy_interval(5, 5).high == 1 and accuracy_interval(5, 5).low == pytest.approx(0.5655, abs=1e-4)


def test_confusion_precision_and_recall_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels, predicted = ("".join(random.choice(list("abc"), 200)) for _ in range(2))
    predictions = _predictions(labels, predicted)
    matrix = confusion_matrix(predictions, NAMES)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(list(labels), list(predicted), labels=NAMES))
    found = class_results(matrix, NAMES)
    expected = metrics.precision_recall_fscore_support(list(labels), list(predicted), labels=NAMES[:3])
    for place in range(3):
        each = found[place]
        assert (each.precision, each.recall, each.f1) == pytest.approx([row[place] for row in expected[:3]])
        assert each.support == expected[3][place]
    assert found[3].precision is None and found[3].recall is None and found[3].f1 is None and found[3].support == 0


def test_the_most_confused_pairs() -> None:
    matrix = confusion_matrix(_predictions("aaaabbc", "abbbbca"), NAMES)
    pairs = most_confused(matrix, NAMES, most=2)
    assert [(pair.label, pair.prediction, pair.count, pair.share) for pair in pairs] == [
        ("a", "b", 3, 0.75),
        ("b", "c", 1, 0.5),
    ]
    assert most_confused(np.diag([3, 4]), ["a", "b"], most=5) == []


def test_calibration_by_hand() -> None:
    bins = calibration(_predictions("aaaa", "aaba", [0.95, 1.0, 0.92, 0.55]))
    assert [(each.low, each.examples) for each in bins] == [(0.5, 1), (0.9, 3)]
    assert bins[1].confidence == pytest.approx((0.95 + 1.0 + 0.92) / 3) and bins[1].accuracy == pytest.approx(2 / 3)
    expected = (abs(0.55 - 1) + 3 * abs((0.95 + 1.0 + 0.92) / 3 - 2 / 3)) / 4
    assert calibration_error(bins) == pytest.approx(expected)


def test_smoothing_starts_at_the_first_value_and_skips_what_is_no_number() -> None:
    found = smoothed(np.array([4.0, np.nan, 0.0]), 0.5)
    assert found[0] == 4 and found[1] == 4
    assert found[2] == pytest.approx((0.25 * 4) / (0.25 + 1))
    assert np.isnan(smoothed(np.array([np.nan]), 0.9))[0]


def test_only_whole_epochs_have_a_mean() -> None:
    train = Series(np.arange(1, 6), np.array([1, 1, 2, 2, 3]), {"loss": np.array([1.0, 3.0, 5.0, 7.0, 100.0])})
    means = epoch_means(train, epochs_done=2)
    assert means.epochs.tolist() == [1, 2] and means.steps.tolist() == [2, 4]
    assert means.values["loss"].tolist() == [2, 6]
