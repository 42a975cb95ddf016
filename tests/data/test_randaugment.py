from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy.stats import chisquare
from test_pipeline import INDICES, SHARDINGS, array_source, assert_equal, trained

from trainer.data.randaugment import BARE, OPERATIONS, randaugment

SIZE = 32
NOISE = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
NARROW = (NOISE // 4 + np.array([40, 80, 120])).astype(np.uint8)  # Levels 40 to 103, 80 to 143 and 120 to 183.
LEVELS = (-1.0, -0.45, 0.3, 1.0)


def apply(name: str, pixels: NDArray[np.uint8], level: float) -> NDArray[np.int64]:
    """What an operation makes of an image, as whole numbers that can be subtracted."""
    result = OPERATIONS[name](tf.constant(pixels), tf.constant(level))
    assert result.dtype == tf.uint8 and result.shape == pixels.shape
    return result.numpy().astype(np.int64)


def assert_close(result: NDArray[np.int64], expected: NDArray) -> None:
    """Equal but for how halves are rounded."""
    assert np.abs(result - np.clip(expected, 0, 255)).max() <= 0.51


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pixels @ np.array([0.2989, 0.587, 0.114])


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("autocontrast", "equalize")])
def test_level_zero_changes_nothing(name: str) -> None:
    assert (apply(name, NOISE, 0.0) == NOISE).all()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_the_largest_level_changes_a_lot_whatever_its_sign(name: str) -> None:
    for level in (-1.0, 1.0):
        assert np.abs(apply(name, NARROW, level) - NARROW).mean() > 5


def test_identity_changes_nothing() -> None:
    assert (apply("identity", NOISE, 1.0) == NOISE).all()


def test_autocontrast_stretches_each_channel() -> None:
    darkest, brightest = NARROW.min(axis=(0, 1)), NARROW.max(axis=(0, 1)).astype(int)
    result = apply("autocontrast", NARROW, 1.0)
    assert_close(result, (NARROW - darkest) * 255.0 / (brightest - darkest))
    assert (result.min(axis=(0, 1)) == 0).all() and (result.max(axis=(0, 1)) == 255).all()
    even = np.full((4, 4, 3), [0, 90, 255], np.uint8)
    assert (apply("autocontrast", even, 1.0) == even).all()


def test_equalize_makes_levels_equally_frequent() -> None:
    even = np.linspace(0, 1, 64 * 64).reshape(64, 64, 1)
    crowded = np.round(255 * even ** np.array([0.4, 2.0, 4.0])).astype(np.uint8)
    result = apply("equalize", crowded, 1.0)
    for channel in range(3):
        before, after = crowded[..., channel], result[..., channel]
        darker = np.array([np.sum(before < level) for level in range(256)])[before]
        unit = np.sum(before < before.max()) // 255
        assert (after == np.minimum((darker + unit // 2) // unit, 255)).all()
        quarters = [np.histogram(values, bins=4, range=(0, 256))[0] / 64**2 for values in (before, after)]
        assert quarters[0].max() > 0.45 and quarters[1].max() < 0.35
    flat = np.full((4, 4, 3), [0, 90, 255], np.uint8)
    assert (apply("equalize", flat, 1.0) == flat).all()


@pytest.mark.parametrize(("level", "cleared"), [(0.1, 0), (0.3, 1), (-0.5, 2), (0.7, 3), (-1.0, 4)])
def test_posterize_clears_low_bits(level: float, cleared: int) -> None:
    assert (apply("posterize", NOISE, level) == NOISE >> cleared << cleared).all()


@pytest.mark.parametrize("level", LEVELS)
def test_solarize_inverts_bright_levels(level: float) -> None:
    is_bright = NOISE.astype(float) >= 256 * (1 - abs(level))
    assert (apply("solarize", NOISE, level) == np.where(is_bright, 255 - NOISE, NOISE)).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["color", "contrast", "brightness"])
def test_blends_go_towards_an_image_without_and_beyond(name: str, level: float) -> None:
    without = {"color": grey(NARROW)[..., np.newaxis], "contrast": grey(NARROW).mean(), "brightness": 0.0}[name]
    assert_close(apply(name, NARROW, level), without + (1 + 0.9 * level) * (NARROW - without))


@pytest.mark.parametrize("level", LEVELS)
def test_sharpness_blends_with_a_smoothed_image(level: float) -> None:
    weights = np.full((3, 3), 1 / 13)
    weights[1, 1] = 5 / 13
    smooth = NARROW.astype(float)
    for row in range(1, SIZE - 1):
        for column in range(1, SIZE - 1):
            around = NARROW[row - 1 : row + 2, column - 1 : column + 2]
            smooth[row, column] = np.tensordot(weights, around, axes=2)
    assert_close(apply("sharpness", NARROW, level), smooth + (1 + 0.9 * level) * (NARROW - smooth))


def looked_up(pixels: NDArray[np.uint8], x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """The levels at places between pixels, interpolated; BARE outside of the image."""
    padded = np.pad(pixels.astype(float), [(SIZE, SIZE), (SIZE, SIZE), (0, 0)], constant_values=BARE)
    x, y = x + SIZE, y + SIZE
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, bottom_share = (x - left)[..., np.newaxis], (y - top)[..., np.newaxis]
    upper = padded[top, left] * (1 - right_share) + padded[top, left + 1] * right_share
    lower = padded[top + 1, left] * (1 - right_share) + padded[top + 1, left + 1] * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_geometric_operations_move_pixels_where_they_say(name: str, level: float) -> None:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    angle, shear, shift = np.radians(30 * level), 0.3 * level, 100 / 224 * SIZE * level
    if name == "rotate":
        center = (SIZE - 1) / 2
        turned = np.exp(1j * angle) * (x - center + 1j * (y - center))
        x, y = center + turned.real, center + turned.imag
    elif name == "shear_x":
        x = x + shear * y
    elif name == "shear_y":
        y = y + shear * x
    elif name == "translate_x":
        x = x + shift
    else:
        y = y + shift
    # Half a level is for rounding, the rest because places are float32.
    assert np.abs(apply(name, NOISE, level) - looked_up(NOISE, x, y)).max() < 0.55


def test_rotation_is_counterclockwise() -> None:
    marked = np.zeros((SIZE, SIZE, 3), np.uint8)
    marked[SIZE // 2 - 1 : SIZE // 2 + 1, -6:-2] = 255  # To the right of the centre; counterclockwise is up.
    rows = np.argwhere(apply("rotate", marked, 1.0)[8:-8, :, 0] > 200)[:, 0] + 8
    assert len(rows) and rows.max() < SIZE // 2 - 1


def drawn(strength: float, count: int) -> list[bytes]:
    """What becomes of one image by many seeds."""
    traced = tf.function(lambda seed: randaugment(tf.constant(NARROW), seed, strength))
    assert traced.get_concrete_function(tf.TensorSpec([2], tf.int32)).structured_outputs.shape == NARROW.shape
    return [traced(tf.constant([3, number])).numpy().tobytes() for number in range(count)]


def test_the_seed_alone_decides() -> None:
    many = drawn(7.0, 60)
    assert drawn(7.0, 20) == many[:20]
    assert len(set(many)) > 45
    words = [randaugment(tf.constant(NARROW), tf.constant([word, 5]), 7.0).numpy().tobytes() for word in range(8)]
    assert len(set(words)) > 5


def test_operations_and_signs_are_drawn_independently_and_equally_often() -> None:
    strength = 6.0
    ways: Counter[bytes] = Counter()  # In how many of all ways to draw, which are equally probable, an image comes out.
    moves = [(name, sign * strength / 10) for name in OPERATIONS for sign in (-1, 1)]
    for first, first_level in moves:
        once = apply(first, NARROW, first_level).astype(np.uint8)
        for second, second_level in moves:
            ways[apply(second, once, second_level).astype(np.uint8).tobytes()] += 1
    assert len(ways) > 350
    draws = 4000
    found = Counter(drawn(strength, draws))
    assert set(found) <= set(ways)
    expected = np.array(list(ways.values())) * draws / len(moves) ** 2
    assert chisquare([found[image] for image in ways], expected).pvalue > 0.01


@pytest.mark.parametrize("name", ["2x4", "2 inputs of 2x2"])
def test_every_sharding_gives_the_same_images(name: str) -> None:
    source = array_source()
    expected = trained(source, (0, 6), randaugment=9.0, augment="flip,color")
    assert_equal(trained(source, (0, 6), SHARDINGS[name], randaugment=9.0, augment="flip,color"), expected)


def test_the_pipeline_passes_the_strength_on() -> None:
    source = array_source()
    plain, off = trained(source, (0, 3)), trained(source, (0, 3), randaugment=0.0)
    assert_equal(off, plain)
    strong, weak = trained(source, (0, 3), randaugment=10.0), trained(source, (0, 3), randaugment=2.0)
    for batch in (*strong, *weak):
        assert batch["image"].dtype == np.uint8 and batch["image"].shape == (8, 6, 6, 3)
        assert (batch["index"][:, np.newaxis] == INDICES).any(axis=1).all()
    changes = [
        np.mean([np.abs(some["image"].astype(int) - other["image"]).mean() for some, other in zip(batches, plain)])
        for batches in (strong, weak)
    ]
    assert changes[0] > 1.3 * changes[1] > 0


@pytest.mark.parametrize(
    ("number", "first", "second"),
    [
        (1, ("color", -0.6), ("translate_x", 0.6)),
        (4, ("color", 0.6), ("rotate", 0.6)),
        (5, ("rotate", -0.6), ("solarize", 0.6)),
        (6, ("translate_x", -0.6), ("autocontrast", 0.6)),
        (10, ("shear_y", 0.6), ("posterize", 0.6)),
    ],
)
def test_what_a_seed_means_stays_what_it_is(number: int, first: tuple[str, float], second: tuple[str, float]) -> None:
    # A run that is resumed by a later version must see the images that it would have seen.
    once = apply(first[0], NARROW, first[1]).astype(np.uint8)
    result = randaugment(tf.constant(NARROW), tf.constant([3, number]), 6.0).numpy()
    assert (result == apply(second[0], once, second[1])).all()
