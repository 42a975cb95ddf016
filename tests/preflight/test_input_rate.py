"""How fast the input pipeline of a run is here."""

from __future__ import annotations

import itertools

import pytest

from trainer.cluster import connect
from trainer.config import Config
from trainer.preflight.input_rate import input_rate
from trainer.preparation import build, prepare
from trainer.records.console import Console


@pytest.mark.parametrize(("seconds", "rate"), [(3.5, 4 * 32 / 4.0), (0.5, 32 / 1.0)])
def test_the_rate_is_counted_from_the_second_batch_for_a_limited_time(seconds: float, rate: float) -> None:
    """By a clock on which every batch takes a second."""
    config = Config()
    prepared = prepare(config, connect(config), Console(quiet=True))
    found = input_rate(prepared, build(prepared), clock=map(float, itertools.count()).__next__, seconds=seconds)
    assert (found.value, found.unit, found.kind) == (rate, "images/s", "measured")
