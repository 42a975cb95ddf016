"""Images from anywhere: refused with a reason or decoded right, and never believed about their size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import hostile_images as corpus
import numpy as np
import pytest
import tensorflow as tf
from image_folders import encoded, gradient, write_classes
from PIL import Image
from record_files import example, write_records

from trainer.config import Config
from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.data.bad_images import find_bad_images, naming_bad_images
from trainer.data.decoded_cache import decode_all
from trainer.data.image_headers import claimed_pixels
from trainer.data.images import ImageInput, decode, decode_at_least
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches, training_batches
from trainer.data.source import EncodedSource
from trainer.data.sources import open_source
from trainer.errors import UserError

INPUT = ImageInput(8, "crop")


def reasons(tmp_path: Path, images: Mapping[str, bytes], **settings: object) -> dict[str, str]:
    """What is said of each image in a folder of them; "" where it is fine."""
    folder = write_classes(tmp_path, {"other": 2})
    (folder / "images").mkdir()
    for name, data in images.items():
        (folder / "images" / name).write_bytes(data)
    listed = open_source(Config.parse({"data": f"folder:{folder}", "on_bad_image": "skip", **settings}))
    found = {bad.key.removeprefix("images/"): bad.reason for bad in listed.skipped}
    return {name: found.get(name, "") for name in images}


@pytest.mark.parametrize("kind", ["bad", "good"])
def test_every_image_is_refused_with_a_reason_or_decoded_right(kind: str, tmp_path: Path) -> None:
    images = corpus.BAD if kind == "bad" else {name: data for name, (data, _) in corpus.GOOD.items()}
    found = reasons(tmp_path, images | {"always good.png": corpus.PNG})
    assert not found.pop("always good.png")
    assert [name for name, reason in found.items() if bool(reason) != (kind == "bad")] == []
    assert all(reason.isprintable() for reason in found.values())


@pytest.mark.parametrize("name", corpus.GOOD)
def test_what_is_decoded_is_what_another_program_sees(name: str) -> None:
    data, tolerance = corpus.GOOD[name]
    expected = np.asarray(Image.open(io.BytesIO(data if tolerance >= 0 else corpus.GIF)).convert("RGB"))
    if name == "sixteen bits.png":
        expected = corpus.PIXELS
    pixels = decode(tf.constant(data)).numpy()
    assert np.abs(pixels.astype(int) - expected).mean() <= max(tolerance, 2 * name.endswith("jpg"))


def test_images_without_checksums_are_decoded_or_refused_and_nothing_else(tmp_path: Path) -> None:
    found = reasons(tmp_path, corpus.FLIPPED | {"always good.png": corpus.PNG})
    assert 0 < sum(map(bool, found.values())) < len(found)


def test_the_header_alone_decides(tmp_path: Path) -> None:
    found = reasons(tmp_path, corpus.TOO_LARGE | {"always good.png": corpus.PNG})
    assert not found.pop("always good.png")
    for name, reason in found.items():
        assert reason.startswith("it claims "), name
        assert reason.endswith(f" pixels, and --max_image_pixels={MAX_IMAGE_PIXELS} allows no more"), name
        for refusing in (decode, INPUT.from_encoded):
            with pytest.raises(tf.errors.InvalidArgumentError, match="claims more than the 100000000 pixels"):
                refusing(tf.constant(corpus.TOO_LARGE[name]))


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        *((encoded(gradient(), kind, mode), 12 * 18) for kind in ("PNG", "GIF", "BMP") for mode in ("RGB", "L", "P")),
        (encoded(gradient(), "JPEG"), 12 * 18),
        (encoded(gradient(), "WEBP"), 12 * 18),
        (corpus.animated("GIF", 7), 7 * 12 * 18),
        (encoded(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8), "GIF"), 300 * 400),
        (corpus.gif_of(3, 5, 7, later=(2, 3)), 5 * 7 + 2 * 2 * 3),
        (corpus.gif_of(2, 90, 1, later=(1, 80)), 90 * 80),
        (corpus.bmp_claiming(30, -20), 600),
        (corpus.png_of(64, 64, first=corpus.chunk(b"abCd", b"")), -1),
        (b"", 0),
        (b"what else", 0),
    ],
)
def test_claimed_pixels(data: bytes, pixels: int) -> None:
    assert claimed_pixels(tf.constant(data)) == pixels


@pytest.mark.parametrize(("image_format", "mode"), [("PNG", "RGB"), ("JPEG", "RGB"), ("GIF", "P"), ("BMP", "RGB")])
def test_the_limit_is_the_largest_that_is_decoded(image_format: str, mode: str) -> None:
    data = tf.constant(encoded(gradient(12, 18), image_format, mode))
    assert decode(data, 216).shape == decode_at_least(data, 12, 216).shape == (12, 18, 3)
    for refused in (lambda: decode(data, 215), lambda: decode_at_least(data, 1, 215)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="claims more than the 215 pixels"):
            refused()


def opened(data: str, **settings: object) -> EncodedSource:
    source = open_source(Config.parse({"data": data, "max_image_pixels": 300, **settings}))
    assert isinstance(source, EncodedSource)
    return source


@pytest.mark.parametrize("kind", ["folder", "tfrecord"])
def test_every_way_to_the_pixels_knows_the_limit(kind: str, tmp_path: Path) -> None:
    """Folders and records; evaluation, training, augmentation, `--cache_decoded`; fail and skip."""
    large = encoded(gradient(20, 20))
    if kind == "folder":
        write_classes(tmp_path, {"a": 4, "b": 4})
        (tmp_path / "a" / "large.png").write_bytes(large)
        place = f"{tmp_path}/a/large.png"
    else:
        images = [*(encoded(gradient(shift=number)) for number in range(8)), large]
        write_records(tmp_path / "x.tfrecord", [example(image=image, label=n % 2) for n, image in enumerate(images)])
        place = f"{tmp_path}/x.tfrecord at byte"
    source = opened(f"{kind}:{tmp_path}")
    image_input = ImageInput(8, "crop", 300)
    everything, share = np.arange(len(source)), Share(1, 1, 0, 1)
    plain, augmented = Config(data=f"{kind}:{tmp_path}"), Config(data=f"{kind}:{tmp_path}", augment=("flip",))

    def exhaust(batches: tf.data.Dataset) -> None:
        with naming_bad_images(source, print):
            for _ in batches:
                pass

    sentence = f"^{place}.* cannot be used: it claims 400 pixels, and --max_image_pixels=300 allows no more"
    for attempt in (
        lambda: exhaust(evaluation_batches(source, everything, image_input, share)),
        lambda: exhaust(training_batches(source, everything, plain, image_input, share, 0, 9)),
        lambda: exhaust(training_batches(source, everything, augmented, image_input, share, 0, 9)),
        lambda: decode_all(source, image_input, print),
    ):
        with pytest.raises(UserError, match=sentence):
            attempt()
    skipping = opened(f"{kind}:{tmp_path}", on_bad_image="skip")
    assert [bad.reason[:13] for bad in skipping.skipped] == ["it claims 400"] and len(skipping) == 8
    assert find_bad_images(opened(f"{kind}:{tmp_path}", max_image_pixels=400)) == []
