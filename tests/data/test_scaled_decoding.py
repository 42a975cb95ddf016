"""JPEGs decoded at a reduced scale, the same in the input pipeline and in the exported model's function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_folders import encoded, gradient

from trainer.config import Config
from trainer.data.augment import augment, least_side
from trainer.data.images import ImageInput, decode, decode_at_least
from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.data.sources import open_source


def jpeg(height: int, width: int, shift: int = 0) -> bytes:
    """A smooth picture: what a reduced scale averages is then almost alike."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    pixels = np.stack([200 * rows, 200 * columns, 100 * (rows + columns)], axis=-1) + shift
    return bytes(tf.io.encode_jpeg(pixels.astype(np.uint8), quality=95).numpy())


@pytest.mark.parametrize(
    ("height", "width", "side", "expected"),
    [
        (100, 150, 100, (100, 150)),
        (100, 150, 51, (100, 150)),
        (100, 150, 50, (50, 75)),
        (99, 151, 50, (50, 76)),  # libjpeg rounds up.
        (98, 151, 50, (98, 151)),
        (151, 97, 25, (38, 25)),
        (150, 96, 25, (75, 48)),
        (100, 150, 13, (13, 19)),
        (100, 150, 1, (13, 19)),  # No more than an eighth.
        (3, 3, 1, (1, 1)),
    ],
)
def test_the_scale_is_the_smallest_that_suffices(height: int, width: int, side: int, expected: tuple[int, int]) -> None:
    data = tf.constant(jpeg(height, width))
    pixels = decode_at_least(data, side)
    assert pixels.dtype == tf.uint8 and pixels.shape == (*expected, 3)
    if expected == (height, width):
        np.testing.assert_array_equal(pixels, decode(data))
    traced = tf.function(lambda encoded: decode_at_least(encoded, side)).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    assert traced.output_shapes.as_list() == [None, None, 3]
    np.testing.assert_array_equal(traced(data), pixels)


@pytest.mark.parametrize(("image_format", "mode"), [("PNG", "RGB"), ("BMP", "P"), ("GIF", "P")])
def test_other_kinds_keep_their_size(image_format: str, mode: str) -> None:
    data = tf.constant(encoded(gradient(40, 60), image_format, mode))
    np.testing.assert_array_equal(decode_at_least(data, 4), decode(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_end_as_rgb(mode: str) -> None:
    data = tf.constant(encoded(np.full((40, 60, 3), 90, np.uint8), "JPEG", mode))
    assert decode_at_least(data, 10).shape == (10, 15, 3)
    assert np.abs(decode_at_least(data, 10).numpy().astype(int) - 90).max() <= 2


@pytest.mark.parametrize("kept", [3, 30, 0.3, 0.9, 0.99])
def test_a_damaged_jpeg_raises_invalid_argument(kept: float) -> None:
    data = jpeg(300, 100)  # Cut off at its end, below the middle square.
    length = int(kept * len(data)) if kept < 1 else int(kept)
    with pytest.raises(tf.errors.InvalidArgumentError):
        ImageInput(10, "crop").from_encoded(tf.constant(data[:length]))


def test_a_reduced_scale_shows_the_same_picture() -> None:
    for resize in ("crop", "squash"):
        image_input = ImageInput(24, resize)
        data = tf.constant(jpeg(200, 301))
        reduced = image_input.from_encoded(data).numpy().astype(int)
        full = image_input(decode(data)).numpy().astype(int)
        assert (reduced != full).any()
        assert np.abs(reduced - full).mean() < 2


@pytest.mark.parametrize("augmentation", ["", "flip"])
def test_training_reads_photos_as_the_exported_model_does(augmentation: str, tmp_path: Path) -> None:
    for name, shift in (("roses", 0), ("tulips", 50)):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.jpg").write_bytes(jpeg(90 + number, 160, shift + number))
    source = open_source(Config(data=f"folder:{tmp_path}"))
    image_input, config = ImageInput(20, "crop"), Config(augment=augmentation)  # type: ignore[arg-type]
    batches = training_batches(source, np.arange(6), config, image_input, Share(6, 1, 0, 1), 0, 1)
    (batch,) = batches.as_numpy_iterator()
    assert sorted(batch["index"]) == list(range(6))
    for index, image in zip(batch["index"], batch["image"]):
        served = image_input.from_encoded(tf.constant(source.encoded(int(index)))).numpy()
        mirrored = augmentation == "flip" and (image == served[:, ::-1]).all()
        assert (image == served).all() or mirrored


def test_a_crop_gets_the_pixels_that_it_gives() -> None:
    assert least_side(224, ["flip", "color"]) == 224
    assert least_side(224, ["flip", "crop"]) == 448
    # The narrowest crop of a picture with that shorter side is still as wide as what becomes of it.
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :, 0] = np.arange(60)
    image_input = ImageInput(20, "crop")
    for seed in range(100):
        image = augment(tf.constant(pixels), image_input, tf.constant([seed, 1]), ["crop"]).numpy()
        assert image[0, -1, 0].astype(int) - image[0, 0, 0] >= 20 - 2
