"""The statistics of two models on the same examples, against formulas written out and published numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from trainer.report.paired import PairedCounts, difference_interval, mcnemar_p_value

TABLES = [
    (330, 20, 5, 12),
    (300, 12, 30, 25),
    (36, 12, 2, 0),
    (1, 1, 7, 12),
    (20, 1, 0, 4),
    (0, 3, 3, 0),
    (53, 0, 0, 7),
]


def exact_p_value(first_only: int, second_only: int) -> Fraction:
    """Twice the smaller tail of a binomial distribution with probability one half, at most 1."""
    either, fewer = first_only + second_only, min(first_only, second_only)
    return min(Fraction(1), Fraction(2 * sum(math.comb(either, count) for count in range(fewer + 1)), 2**either))


def wilson(right: int, examples: int, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / examples
    middle = (share + z * z / (2 * examples)) / (1 + z * z / examples)
    half = z * math.sqrt(share * (1 - share) / examples + (z / (2 * examples)) ** 2) / (1 + z * z / examples)
    return middle - half, middle + half


def newcombe(a: int, b: int, c: int, d: int, confidence: float) -> tuple[float, float]:
    """Method 10, in the letters of the paper."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = wilson(a + b, n, confidence), wilson(a + c, n, confidence)
    product = (a + b) * (c + d) * (a + c) * (b + d)
    determinant = a * d - b * c
    if determinant > n / 2:
        numerator = determinant - n / 2
    elif determinant >= 0:
        numerator = 0.0
    else:
        numerator = determinant
    phi = numerator / math.sqrt(product) if product else 0.0
    dl1, du1, dl2, du2 = p1 - l1, u1 - p1, p2 - l2, u2 - p2
    down = math.sqrt(dl1**2 - 2 * phi * dl1 * du2 + du2**2)
    up = math.sqrt(dl2**2 - 2 * phi * dl2 * du1 + du1**2)
    return p1 - p2 - down, p1 - p2 + up


def test_counts_of_two_rows_of_answers() -> None:
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    counts = PairedCounts.of(first, second)
    assert counts == PairedCounts(both=2, first_only=1, second_only=1, neither=1)
    assert PairedCounts.of(first, np.zeros(5, bool)).difference == pytest.approx(first.mean())


@pytest.mark.parametrize("table", TABLES)
def test_the_p_value_is_that_of_the_exact_binomial_test(table: tuple[int, int, int, int]) -> None:
    counts = PairedCounts(*table)
    assert mcnemar_p_value(counts) == pytest.approx(float(exact_p_value(*table[1:3])), rel=1e-12)
    swapped = PairedCounts(table[0], table[2], table[1], table[3])
    assert mcnemar_p_value(swapped) == pytest.approx(mcnemar_p_value(counts), rel=1e-12)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("table", TABLES)
def test_the_interval_is_newcombes_method_10(table: tuple[int, int, int, int], confidence: float) -> None:
    found = difference_interval(PairedCounts(*table), confidence)
    assert (found.low, found.high) == pytest.approx(newcombe(*table, confidence), abs=1e-12)
    a, b, c, d = table
    swapped = difference_interval(PairedCounts(a, c, b, d), confidence)
    assert (-swapped.high, -swapped.low) == pytest.approx((found.low, found.high), abs=1e-12)


def test_numbers_that_others_have_published() -> None:
    """Newcombe (1998), table II, method 10; Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness."""
    found = difference_interval(PairedCounts(36, 12, 2, 0), 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0569, 0.3404)
    found = difference_interval(PairedCounts(1, 1, 7, 12), 0.95)
    assert (round(found.low, 3), round(found.high, 3)) == (-0.507, -0.026)
    assert round(mcnemar_p_value(PairedCounts(1, 1, 7, 12)), 3) == 0.070


def test_the_interval_holds_the_true_difference_as_often_as_it_says_and_the_test_errs_as_rarely() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.80, 0.08, 0.04, 0.08])
    drawn = [PairedCounts(*map(int, row)) for row in generator.multinomial(200, shares, 1500)]
    inside = [each.low <= 0.04 <= each.high for each in (difference_interval(counts, 0.95) for counts in drawn)]
    assert 0.935 <= np.mean(inside) <= 0.975
    equal = generator.multinomial(200, [0.80, 0.06, 0.06, 0.08], 1500)
    false_alarms = [mcnemar_p_value(PairedCounts(*map(int, row))) < 0.05 for row in equal]
    assert 0.005 < np.mean(false_alarms) < 0.05


def test_models_that_are_right_on_the_same_examples_have_an_interval_all_the_same() -> None:
    found = difference_interval(PairedCounts(18, 0, 0, 2), 0.95)
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.01
