"""Two models on the same examples: which one is right more often, and whether that can be told from so many.

Both answer every example, so what both get right or both get wrong says nothing about which is better: the test looks
at the others alone. NumPy and SciPy; no TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.report.numbers import Interval


@dataclass(frozen=True)
class PairedCounts:
    """How often two models are right on the same examples.

    Attributes:
      both: examples that both get right.
      first_only: those that only the first one does.
      second_only: those that only the second one does.
      neither: the rest.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedCounts:
        """Counts.

        Args:
          first: `[n]`, where the first model is right.
          second: `[n]`, the same of the second one, for the same examples in the same order.
        """
        return cls(
            int(np.sum(first & second)),
            int(np.sum(first & ~second)),
            int(np.sum(~first & second)),
            int(np.sum(~first & ~second)),
        )

    @property
    def examples(self) -> int:
        """All of them."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def difference(self) -> float:
        """The first one's accuracy less the second one's, in [-1, 1]."""
        return (self.first_only - self.second_only) / self.examples


def mcnemar_p_value(counts: PairedCounts) -> float:
    """Two-sided p-value of McNemar's exact test, that both models are right equally often.

    If they are, each example that only one gets right is as likely the one's as the other's: a binomial distribution.
    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947).
    """
    from scipy.stats import binomtest

    either = counts.first_only + counts.second_only
    return float(binomtest(counts.first_only, either, 0.5).pvalue) if either else 1.0


def difference_interval(counts: PairedCounts, confidence: float) -> Interval:
    """Where the difference of the two accuracies lies, in [-1, 1].

    Method 10 of Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998): Wilson's intervals of the two accuracies, joined by how much the
    models err on the same examples. Unlike the textbook's it does not shrink to a point where no answer differs.

    Args:
      counts: of at least one example.
      confidence: such as 0.95.
    """
    from scipy.stats import binomtest

    right = counts.both + counts.first_only, counts.both + counts.second_only
    shares = [count / counts.examples for count in right]
    (low1, high1), (low2, high2) = (
        binomtest(count, counts.examples).proportion_ci(confidence, method="wilson") for count in right
    )
    below1, above1, below2, above2 = shares[0] - low1, high1 - shares[0], shares[1] - low2, high2 - shares[1]
    correlation = _corrected_correlation(counts)
    down = math.sqrt(max(0.0, below1**2 - 2 * correlation * below1 * above2 + above2**2))
    up = math.sqrt(max(0.0, above1**2 - 2 * correlation * above1 * below2 + below2**2))
    return Interval(counts.difference - down, counts.difference + up)


def _corrected_correlation(counts: PairedCounts) -> float:
    """Correlation of being right, where it is positive with Newcombe's continuity correction; 0 where undefined."""
    right1, right2 = counts.both + counts.first_only, counts.both + counts.second_only
    variances = right1 * (counts.examples - right1) * right2 * (counts.examples - right2)
    if not variances:
        return 0.0
    covariance = counts.both * counts.neither - counts.first_only * counts.second_only
    corrected = max(covariance - counts.examples / 2, 0) if covariance > 0 else covariance
    return corrected / math.sqrt(variances)
