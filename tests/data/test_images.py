from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from image_folders import encoded, gradient
from PIL import Image

from trainer.data.images import ImageInput, decode, to_size, unit_range

PIXELS = gradient(12, 18)  # 18 pixels a row: a BMP row of a byte a pixel then ends in padding.


def by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("image_format", "mode", "tolerance"),
    [
        ("PNG", "RGB", 0),
        ("PNG", "L", 0),
        ("PNG", "1", 0),
        ("PNG", "P", 0),
        ("PNG", "LA", 0),
        ("PNG", "RGBA", 0),
        ("BMP", "RGB", 0),
        ("BMP", "L", 0),
        ("BMP", "P", 0),
        ("BMP", "RGBA", 0),
        ("GIF", "P", 0),
        ("JPEG", "RGB", 2),  # TensorFlow's quick inverse transform is not quite PIL's.
        ("JPEG", "L", 2),
        ("JPEG", "CMYK", 2),
    ],
)
def test_every_kind_ends_as_rgb(image_format: str, mode: str, tolerance: float) -> None:
    data = encoded(PIXELS, image_format, mode)
    pixels = decode(tf.constant(data))
    assert pixels.dtype == tf.uint8 and pixels.shape == (12, 18, 3)
    assert np.abs(pixels.numpy().astype(int) - by_pil(data)).mean() <= tolerance


def test_sixteen_bit_png_keeps_its_high_byte() -> None:
    data = tf.io.encode_png(tf.constant(PIXELS.astype(np.uint16) * 257))
    assert (decode(data).numpy() == PIXELS).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.fromarray(gradient(shift=shift)) for shift in (0, 90, 180)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    pixels = decode(tf.constant(buffer.getvalue()))
    assert pixels.shape == (12, 18, 3)
    assert (pixels.numpy() == by_pil(buffer.getvalue())).all()


def test_decode_can_be_traced_into_a_model_with_a_static_number_of_channels() -> None:
    traced = tf.function(decode).get_concrete_function(tf.TensorSpec([], tf.string))
    assert traced.output_shapes.as_list() == [None, None, 3]
    for mode in ("RGB", "P"):  # Both sides of the branch for BMP palettes.
        data = encoded(PIXELS, "BMP", mode)
        assert (traced(tf.constant(data)).numpy() == by_pil(data)).all()


@pytest.mark.parametrize("data", [b"", b"BM", b"hello", encoded(PIXELS, "BMP", "P")[:40], encoded(PIXELS, "PNG")[:-30]])
def test_no_image_raises_invalid_argument(data: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(data))


def test_crop_keeps_the_middle_square_and_squash_all_of_it() -> None:
    columns = tf.tile(tf.constant([[0, 10, 20, 30, 40, 50]], tf.uint8)[..., tf.newaxis], [4, 1, 3])
    assert ImageInput(4, "crop")(columns).numpy()[0, :, 0].tolist() == [10, 20, 30, 40]
    assert ImageInput(6, "squash")(columns).numpy()[0, :, 0].tolist() == [0, 10, 20, 30, 40, 50]
    upright = tf.transpose(columns, [1, 0, 2])
    assert ImageInput(4, "crop")(upright[tf.newaxis])[0, :, 0, 0].numpy().tolist() == [10, 20, 30, 40]


def test_to_size_resizes_bilinear_and_rounds() -> None:
    pixels = tf.constant([[[0] * 3, [101] * 3], [[200] * 3, [255] * 3]], tf.uint8)
    assert to_size(pixels, 1).numpy().tolist() == [[[139] * 3]]  # 139 is (0 + 101 + 200 + 255) / 4.
    assert (to_size(pixels, 2).numpy() == pixels.numpy()).all()
    larger = to_size(pixels, 4)
    assert larger.dtype == tf.uint8 and larger.shape == (4, 4, 3)
    assert larger[0, :, 0].numpy().tolist() == [0, 25, 76, 101]  # 25.25 and 75.75.
    assert (to_size(pixels[tf.newaxis], 4)[0].numpy() == larger.numpy()).all()


def test_unit_range_ends_at_exactly_one() -> None:
    levels = np.arange(256)
    values = unit_range(tf.constant(levels, tf.uint8))
    assert values.dtype == tf.float32
    assert values.numpy()[[0, 255]].tolist() == [0.0, 1.0]
    np.testing.assert_array_max_ulp(values.numpy(), (levels / 255).astype(np.float32), maxulp=1)


def test_unit_range_is_the_same_to_the_last_bit_in_a_graph() -> None:
    levels = tf.range(256, dtype=tf.int32)
    pixels = tf.cast(levels, tf.uint8)
    np.testing.assert_array_equal(tf.function(unit_range)(pixels), unit_range(pixels))
