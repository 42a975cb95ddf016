from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_folders import write_classes
from test_pipeline import array_source, assert_equal, global_batches

from trainer.config import Config
from trainer.data.decoded_cache import DecodedSource, decode_all
from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches, training_batches
from trainer.data.source import Source
from trainer.data.sources import open_source
from trainer.errors import UserError

SHARES = [Share(8, 4, 0, 2), Share(8, 4, 2, 2)]


def say_nothing(message: str) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classes(tmp_path, {"roses": 40, "tulips": 30})


@pytest.mark.parametrize(("resize", "augmentation"), [("crop", "flip,color"), ("squash", "")])
def test_batches_are_the_same_with_and_without(folder: Path, resize: str, augmentation: str) -> None:
    source = open_source(Config(data=f"folder:{folder}"))
    image_input = ImageInput(9, resize)
    cached = decode_all(source, image_input, say_nothing)
    config = Config(augment=augmentation, randaugment=3.0 if augmentation else 0.0)  # type: ignore[arg-type]
    indices = np.arange(3, 70, 2)
    for path in folder.rglob("*.png"):  # From here on the original could not be read.
        path.rename(path.with_suffix(".kept"))
    found = all_batches(cached, indices, config, image_input)
    for path in folder.rglob("*.kept"):
        path.rename(path.with_suffix(".png"))
    assert_equal(found, all_batches(source, indices, config, image_input))
    assert isinstance(cached, DecodedSource) and cached.pixels.shape == (70, 9, 9, 3)
    assert cached.fingerprint() == source.fingerprint() and cached.encoded(5) == source.encoded(5)


def all_batches(
    source: Source, indices: np.ndarray, config: Config, image_input: ImageInput
) -> list[dict[str, np.ndarray]]:
    return global_batches(
        SHARES, lambda share: training_batches(source, indices, config, image_input, share, 3, 9)
    ) + global_batches(SHARES, lambda share: evaluation_batches(source, indices, image_input, share))


def test_what_would_not_fit_is_refused(folder: Path) -> None:
    source = open_source(Config(data=f"folder:{folder}"))
    needed = 2 * 70 * 100 * 100 * 3
    with pytest.raises(UserError, match="70 images of 100 x 100 pixels take 4 MB of memory, and half of .* is 4 MB"):
        decode_all(source, ImageInput(100, "crop"), say_nothing, free_bytes=2 * needed - 2)
    assert isinstance(decode_all(source, ImageInput(100, "crop"), say_nothing, 2 * needed), DecodedSource)


def test_a_bad_image_is_named(folder: Path) -> None:
    source = open_source(Config(data=f"folder:{folder}"))
    (folder / "roses/007.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match="007.png"):
        decode_all(source, ImageInput(9, "crop"), say_nothing)


def test_images_in_memory_stay_as_they_are() -> None:
    source = array_source()
    assert decode_all(source, ImageInput(9, "crop"), say_nothing) is source


def test_it_does_not_go_with_a_random_crop() -> None:
    assert Config.parse({"cache_decoded": True, "augment": "flip"}).cache_decoded
    with pytest.raises(UserError, match="--cache_decoded .* --augment=crop"):
        Config.parse({"cache_decoded": True, "augment": "flip,crop"})
