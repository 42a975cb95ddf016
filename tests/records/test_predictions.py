"""What a run keeps of its predictions comes back as it was, whatever the names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.errors import UserError
from trainer.records.examples import (
    FILE_NAME,
    SHOWN,
    ShownExample,
    choose_examples,
    read_examples,
    write_examples,
)
from trainer.records.facts import Facts
from trainer.records.predictions import Predictions
from trainer.storage import RunDirectory

HOSTILE = ['a,"b"\nc', "<script>alert(1)</script>", "花\u202e", "=1+1"]


def _predictions(right: list[bool], confidences: list[float]) -> Predictions:
    return Predictions(
        keys=[f"{place:03d}" for place in range(len(right))],
        labels=["x"] * len(right),
        predictions=["x" if each else "y" for each in right],
        confidences=np.array(confidences, np.float32),
        losses=np.arange(len(right), dtype=np.float32) / 3,
    )


def test_predictions_come_back_with_every_bit_and_any_name(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    values = np.random.default_rng(0).random(4, np.float32)
    written = Predictions(HOSTILE, HOSTILE[::-1], HOSTILE, values, values * 7)
    written.write(run, "test")
    read = Predictions.read(run, "test")
    assert read is not None
    assert (list(read.keys), list(read.labels), list(read.predictions)) == (HOSTILE, HOSTILE[::-1], HOSTILE)
    np.testing.assert_array_equal(read.confidences.astype(np.float32), values)
    np.testing.assert_array_equal(read.losses.astype(np.float32), values * 7)
    assert Predictions.read(run, "validation") is None


def test_a_name_that_is_no_utf8_does_not_stop_a_run(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    Predictions(["\udcff.jpg"], ["a"], ["a"], np.ones(1), np.zeros(1)).write(run, "test")
    read = Predictions.read(run, "test")
    assert read is not None and list(read.keys) == ["\\udcff.jpg"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "example,label,prediction,confidence,loss\na,b,c,high,1\n"])
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    run = RunDirectory(str(tmp_path))
    run.write_text("report/test.csv", text)
    with pytest.raises(UserError, match=r"report/test\.csv is damaged"):
        Predictions.read(run, "test")


def test_the_most_confident_mistakes_come_first_and_right_ones_are_among_them() -> None:
    few = choose_examples(_predictions([True, False, True, False], [0.9, 0.5, 0.8, 0.7]))
    assert few.tolist() == [3, 1, 0, 2]
    many = _predictions([False] * 100 + [True] * 100, list(np.linspace(0, 1, 200)))
    chosen = choose_examples(many)
    assert len(chosen) == len(set(chosen.tolist())) == SHOWN
    assert chosen[:24].tolist() == list(range(99, 75, -1))
    assert chosen[24] == 100 and chosen[-1] == 199
    assert choose_examples(_predictions([True] * 3, [1.0] * 3)).tolist() == [0, 1, 2]
    assert choose_examples(_predictions([False] * 3, [0.1, 0.2, 0.3])).tolist() == [2, 1, 0]


def test_examples_and_facts_come_back(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    assert read_examples(run) == [] and Facts.read(run) is None
    examples = [ShownExample("k", HOSTILE[0], HOSTILE[1], 0.25, b"\xff\x00", "image/png")]
    write_examples(run, examples)
    assert read_examples(run) == examples
    assert not examples[0].right
    facts = Facts("d", "image", HOSTILE, {"train": [1, 2, 3, 4]}, 8, 16, 100, 10, "one", 1, 1, "m")
    facts.write(run)
    assert Facts.read(run) == facts
    run.write_text(FILE_NAME, '[{"key": "k"}]')
    with pytest.raises(UserError, match=r"examples\.json is damaged"):
        read_examples(run)
    run.write_text("report/facts.json", "[1]")
    with pytest.raises(UserError, match=r"facts\.json is damaged"):
        Facts.read(run)
