"""Grids of pictures: titles, colours, and that the pictures are there."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import image_folders
import numpy as np
import pytest
from PIL import Image

from trainer.report.picture_grid import NEUTRAL, RIGHT, WRONG
from trainer.serving import grid
from trainer.serving.grid import Grid, title_of
from trainer.serving.predictions import Prediction

DAISY = Prediction(0, "daisy", 0.981)


@pytest.mark.parametrize(
    ("true_label", "expected"),
    [(None, ("daisy 98%", NEUTRAL)), ("daisy", ("daisy 98%", RIGHT)), ("rose", ("daisy 98%\n(rose)", WRONG))],
)
def test_titles(true_label: str | None, expected: tuple[str, str]) -> None:
    assert title_of(DAISY, true_label) == expected


def test_the_folder_tells_the_true_label_whatever_its_unicode_form(tmp_path: Path) -> None:
    labels = ["daisy", "gr\u00f6\u00dfe"]
    found = Grid(labels)
    picture = image_folders.encoded(image_folders.gradient())
    for folder in ("daisy", "gro\u0308\u00dfe", "holiday"):
        found.add(str(tmp_path / folder / "1.png"), picture, DAISY)
    assert [(picture.title, picture.color) for picture in found._pictures] == [
        ("daisy 98%", RIGHT),
        ("daisy 98%\n(gr\u00f6\u00dfe)", WRONG),
        ("daisy 98%", NEUTRAL),
    ]


def test_the_png_has_the_pictures_and_coloured_titles() -> None:
    found = Grid(["daisy", "rose"])
    blue = np.full([30, 60, 3], (10, 20, 250), np.uint8)
    for folder in ("daisy", "rose"):
        found.add(f"gs://bucket/{folder}/1.png", image_folders.encoded(blue), DAISY)
    pixels = np.asarray(Image.open(io.BytesIO(found.png())).convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    assert height < width

    def near(half: np.ndarray, colour: tuple[int, int, int]) -> int:
        return int((np.abs(half - colour).max(axis=2) < 40).sum())

    left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
    for half in (left, right):
        assert near(half, (10, 20, 250)) > 0.15 * half.shape[0] * half.shape[1]
    green, red = (tuple(bytes.fromhex(colour[1:])) for colour in (RIGHT, WRONG))
    assert near(left, green) > 20 and near(right, red) > 20  # type: ignore[arg-type]
    assert near(left, red) == near(right, green) == 0  # type: ignore[arg-type]


def test_hostile_labels_and_shapes_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    label = "花$\\frac{$\x1b[31m\n\u202e " + "long " * 20
    found = Grid([label])
    monkeypatch.setattr(grid, "MAX_PICTURES", 3)
    for height, width in ((1, 3000), (3000, 1), (5, 5), (6, 6)):
        picture = image_folders.encoded(image_folders.gradient(height, width))
        found.add("1.png", picture, Prediction(0, label, 0.5))
    assert found.shown == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Image.open(io.BytesIO(found.png())).size[0] > 300
