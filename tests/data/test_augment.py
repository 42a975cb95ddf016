from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.data.augment import augment
from trainer.data.images import ImageInput, to_size
from trainer.data.randaugment import randaugment

# Red tells the row and green the column, so that a result shows where it was cut out.
ROWS, COLUMNS = 120, 180
PLACES = np.zeros((ROWS, COLUMNS, 3), np.uint8)
PLACES[..., 0] = np.arange(ROWS)[:, np.newaxis]
PLACES[..., 1] = np.arange(COLUMNS)[np.newaxis, :]

SEEDS = [tf.constant([5, number]) for number in range(60)]


def results(*operations: str, pixels: np.ndarray = PLACES, size: int = 30) -> np.ndarray:
    """uint8 [seeds, size, size, 3], as whole numbers that can be subtracted."""
    traced = tf.function(lambda image, seed: augment(image, ImageInput(size, "squash"), seed, operations))
    return np.stack([traced(tf.constant(pixels), seed).numpy() for seed in SEEDS]).astype(int)


def test_without_operations_it_is_the_plain_resize() -> None:
    image = augment(tf.constant(PLACES), ImageInput(30, "squash"), SEEDS[0], ())
    assert image.dtype == tf.uint8 and image.shape == (30, 30, 3)
    assert (image.numpy() == to_size(tf.constant(PLACES), 30).numpy()).all()


def test_the_seed_alone_decides() -> None:
    everything = results("flip", "crop", "color")
    assert (everything == results("color", "crop", "flip")).all()
    assert len({image.tobytes() for image in everything}) == len(SEEDS)
    first_words = [
        augment(tf.constant(PLACES), ImageInput(30, "squash"), tf.constant([word, 0]), ("crop",)).numpy()
        for word in (1, 2)
    ]
    assert (first_words[0] != first_words[1]).any()


def test_flip_mirrors_about_half_of_the_images() -> None:
    plain = to_size(tf.constant(PLACES), 30).numpy().astype(int)
    mirrored = [(image == plain[:, ::-1]).all() for image in results("flip")]
    unchanged = [(image == plain).all() for image in results("flip")]
    assert all(a or b for a, b in zip(mirrored, unchanged))
    assert 15 < sum(mirrored) < 45


def test_crop_keeps_at_least_a_third_of_the_area_at_full_resolution() -> None:
    crops = results("crop", size=60)
    # Between the first and last rows' centres lie all rows of the crop but one in sixty.
    heights = (crops[:, -1, 30, 0] - crops[:, 0, 30, 0]) * 60 / 59
    widths = (crops[:, 30, -1, 1] - crops[:, 30, 0, 1]) * 60 / 59
    areas = heights * widths / (ROWS * COLUMNS)
    assert areas.min() > 1 / 3 - 0.02 and areas.max() <= 1.01
    assert areas.std() > 0.05 and areas.min() < 0.5
    assert (widths / heights).min() > 0.7 and (widths / heights).max() < 1.4
    assert np.ptp(crops[:, 0, 30, 0]) > 20 and np.ptp(crops[:, 30, 0, 1]) > 40


def test_an_image_too_long_for_any_crop_is_kept_whole() -> None:
    long = np.repeat(PLACES[:6], 1, axis=0)
    plain = to_size(tf.constant(long), 30).numpy()
    assert all((image == plain).all() for image in results("crop", pixels=long))


def test_color_changes_brightness_contrast_and_saturation_within_bounds() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    levels = results("color", pixels=grey, size=4)
    assert (levels == levels[:, :1, :1, :1]).all()  # Grey stays grey and even: only brightness can show.
    assert 79 <= levels.min() < 90 and 110 < levels.max() <= 121
    halves = np.zeros((4, 4, 3), np.uint8) + 80
    halves[:2] += 60
    edges = results("color", pixels=halves, size=4)
    contrasts = (edges[:, 0] - edges[:, -1]).mean(axis=(1, 2)) / edges.mean(axis=(1, 2, 3)) * 110 / 60
    assert 0.78 < contrasts.min() < 0.9 and 1.1 < contrasts.max() < 1.22
    reddish = np.full((4, 4, 3), 100, np.uint8)
    reddish[..., 0] = 140
    tints = results("color", pixels=reddish, size=4)[:, 0, 0]
    brightness = tints @ [0.299, 0.587, 0.114] / (reddish[0, 0] @ [0.299, 0.587, 0.114])
    saturations = (tints[:, 0] - tints[:, 1]) / 40 / brightness
    assert 0.75 < saturations.min() < 0.9 and 1.1 < saturations.max() < 1.25


def test_color_stops_at_black_and_white() -> None:
    extremes = np.zeros((4, 4, 3), np.uint8)
    extremes[:2] = 255
    images = results("color", pixels=extremes, size=4)
    assert images[:, :2].min() > 170 and images[:, 2:].max() < 60


def test_operations_draw_numbers_of_their_own() -> None:
    cropped = results("crop")
    both = results("crop", "flip")
    for alone, with_flip in zip(cropped, both):
        assert (with_flip == alone).all() or (with_flip == alone[:, ::-1]).all()


def with_randaugment(strength: float, *operations: str) -> np.ndarray:
    """uint8 [seeds, 30, 30, 3]."""
    traced = tf.function(lambda image, seed: augment(image, ImageInput(30, "squash"), seed, operations, strength))
    return np.stack([traced(tf.constant(PLACES), seed).numpy() for seed in SEEDS])


def test_randaugment_changes_what_the_other_operations_leave() -> None:
    plain = results()[0]
    changed = [(image != plain).any() for image in with_randaugment(10.0)]
    assert np.mean(changed) > 0.7  # Two times identity, or what suits the image as it is, is seldom.
    assert (with_randaugment(0.0, "crop", "flip") == results("crop", "flip")).all()
    cropped = results("crop", "flip")
    kept = [(image == expected).all() for image, expected in zip(with_randaugment(10.0, "crop", "flip"), cropped)]
    assert 0 < np.sum(kept) < len(SEEDS) / 2  # Where RandAugment draws identity twice, crop and flip stand as alone.


def test_color_comes_after_randaugment_which_would_undo_it() -> None:
    # At next to no strength every operation leaves a black and white image as it is. After a change of brightness,
    # equalize and autocontrast would bring back full black and white.
    halves = np.zeros((30, 30, 3), np.uint8)
    halves[:15] = 255
    traced = tf.function(lambda seed: augment(tf.constant(halves), ImageInput(30, "squash"), seed, ("color",), 0.001))
    assert (np.stack([traced(seed).numpy() for seed in SEEDS]) == results("color", pixels=halves)).all()


def test_what_a_seed_means_stays_what_it_is() -> None:
    # A run that is resumed by a later version must see the images that it would have seen.
    plain = results()[0]
    assert [bool((image != plain).any()) for image in results("flip")[:6]] == [True, False, True, False, True, False]
    assert [image[0, 0, :2].tolist() for image in results("crop")[:4]] == [[24, 94], [26, 53], [8, 54], [1, 45]]
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert results("color", pixels=grey, size=4)[:6, 0, 0, 0].tolist() == [107, 87, 120, 87, 106, 114]
    for seed, image in zip(SEEDS[:12], with_randaugment(8.0)):
        own_seed = tf.random.experimental.stateless_fold_in(seed, 3)
        assert (randaugment(tf.constant(plain, tf.uint8), own_seed, 8.0).numpy() == image).all()
