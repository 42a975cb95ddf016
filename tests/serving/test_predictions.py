"""Lines that a person or a program reads, whatever names are in them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from rich.cells import cell_len

from trainer.serving.predictions import Prediction, csv_header, csv_line, json_line, most_probable, text_line

THREE = [Prediction(1, "daisy", 0.75), Prediction(0, "rose", 0.2), Prediction(2, "tulip", 0.05)]
HOSTILE = 'a\x1b[31m,"\n\u202e\x7f花'


def test_the_most_probable_come_first_and_of_equal_ones_the_first() -> None:
    found = most_probable(np.array([0.1, 0.4, 0.1, 0.4], np.float32), ["a", "b", "c", "d"], 3)
    assert found == [Prediction(1, "b", 0.4), Prediction(3, "d", 0.4), Prediction(0, "a", 0.1)]
    many = most_probable((np.arange(1000) % 7).astype(np.float32), [""] * 1000, 3)
    assert [prediction.class_id for prediction in many] == [6, 13, 20]
    assert len(most_probable(np.array([0.5, 0.5], np.float32), ["a", "b"], 5)) == 2


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (None, "photos/a.jpg  daisy 0.750, rose 0.200, tulip 0.050"),
        (60, "photos/a.jpg  daisy 0.750, rose 0.200, tulip 0.050"),
        (40, "photos/a.jpg  daisy 0.750, rose 0.200"),
        (26, "photos/a.jpg  daisy 0.750"),
        (20, "photos/a.jpg  daisy…"),
    ],
)
def test_as_many_predictions_as_fit(width: int | None, line: str) -> None:
    assert text_line("photos/a.jpg", THREE, width) == line


def test_a_long_name_leaves_room_for_predictions() -> None:
    line = text_line(f"{'folder/' * 20}花花.jpg", THREE, 60)
    assert line.startswith("…") and line.endswith("花花.jpg  daisy 0.750, rose 0.200") and cell_len(line) <= 60


def test_wide_characters_take_two_columns() -> None:
    labels = [Prediction(0, "花花", 0.75), Prediction(1, "木木", 0.25)]
    assert text_line("a.jpg", labels, 29) == "a.jpg  花花 0.750, 木木 0.250"
    assert text_line("a.jpg", labels, 28) == "a.jpg  花花 0.750"


def test_no_line_is_wider_than_the_terminal() -> None:
    labels = [Prediction(0, "花" * 30, 0.9), Prediction(1, "b" * 90, 0.1)]
    for width in range(16, 130):
        assert cell_len(text_line(f"{'花' * 50}.jpg", labels, width)) <= width


def test_no_line_acts_on_a_terminal() -> None:
    predictions = [Prediction(0, HOSTILE, 0.5)]
    for line in (text_line(HOSTILE, predictions, None), csv_line(HOSTILE, predictions)):
        assert line.isprintable()
        assert r"\x1b[31m" in line and r"\n" in line and r"\u202e" in line and "花" in line


def test_json_gives_back_every_character_and_every_bit() -> None:
    probability = np.float32(1 / 3)
    (prediction,) = most_probable(np.array([probability]), [HOSTILE], 1)
    line = json_line(f"{HOSTILE}\udcff", [prediction])
    assert line.isascii() and line.isprintable()
    parsed = json.loads(line)
    assert parsed["path"] == f"{HOSTILE}\udcff"
    assert parsed["top"] == [{"label": HOSTILE, "probability": prediction.probability, "class_id": 0}]
    assert np.float32(parsed["top"][0]["probability"]) == probability


def test_csv_has_a_cell_for_each_label_and_probability() -> None:
    rows = list(csv.reader([csv_header(2), csv_line('a,"b".jpg', THREE[:2])]))
    assert rows == [
        ["path", "label_1", "probability_1", "label_2", "probability_2"],
        ['a,"b".jpg', "daisy", "0.75", "rose", "0.2"],
    ]
