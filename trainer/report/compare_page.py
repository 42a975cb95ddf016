"""A comparison as a page: one HTML file without scripts, in the style of a run's page."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.report.compare import Comparison, RunSummary
from trainer.report.compare_words import cells, notes, same_values, titled, verdicts
from trainer.report.page import render

PAGE_NAME = "compare.html"
"""What the page's file is called where nobody names it."""

_WIDTH = 320
"""Of a drawn interval, in units of its own."""

_STEP = 0.05
"""The drawn scale begins and ends at a multiple of this accuracy."""


@dataclass(frozen=True)
class Dot:
    """An accuracy and its interval as places from 0 to `_WIDTH`."""

    low: float
    middle: float
    high: float


def comparison_page(comparison: Comparison, moment: str) -> str:
    """The page.

    Args:
      comparison: of two or more runs.
      moment: when this is made, for a person.
    """
    comparison, titles = titled(comparison)
    scale = _scale(comparison)
    page = {
        "verdicts": verdicts(comparison),
        "notes": notes(comparison),
        "scale": [f"{100 * end:.0f} %" for end in scale] if scale else None,
        "runs": [
            {"title": titles[run.name], "path": run.path, "cells": cells(comparison, run), "dot": _dot(run, scale)}
            for run in comparison.runs
        ],
        "settings": [
            {
                "field": setting.field,
                "changes_result": setting.changes_result,
                "values": same_values(setting, comparison.runs),
            }
            for setting in comparison.settings
        ],
    }
    return render("compare.html", moment, page=page)


def _scale(comparison: Comparison) -> tuple[float, float] | None:
    """The accuracies at both ends of the drawing; None where no run has one."""
    intervals = [run.interval for run in comparison.runs if run.interval]
    if not intervals:
        return None
    low = math.floor(min(each.low for each in intervals) / _STEP) * _STEP
    high = math.ceil(max(each.high for each in intervals) / _STEP) * _STEP
    return low, min(high, 1.0)


def _dot(run: RunSummary, scale: tuple[float, float] | None) -> Dot | None:
    if scale is None or run.interval is None or run.accuracy is None:
        return None
    places = [
        round(_WIDTH * (share - scale[0]) / (scale[1] - scale[0]), 1)
        for share in (run.interval.low, run.accuracy, run.interval.high)
    ]
    return Dot(*places)
