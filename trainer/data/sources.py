"""Where examples come from: what `--data` names, opened as a `Source`.

NumPy only: TensorFlow is imported when pixels are asked for, or a folder lies in a bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.config import Config
from trainer.data.file_source import FileSource, PathsUnder
from trainer.data.folders import bad_images_error, list_class_folders
from trainer.data.source import ArraySource, EncodedSource, Source
from trainer.storage import absolute

SYNTHETIC_SIZE = 32
"""Height and width of the generated images, in pixels."""

# Enough images for a few dozen steps, and enough of each class for all three splits when there are many classes.
_SYNTHETIC_IMAGES = 2048
_SYNTHETIC_IMAGES_PER_CLASS = 20


def _say_nothing(message: str) -> None:
    """The default for `report`."""


def open_source(config: Config, report: Callable[[str], None] = _say_nothing) -> Source:
    """Opens what `config.data` names, with `config.classes` and `config.on_bad_image` applied.

    Args:
      config: only its data fields are read.
      report: called with sentences on the progress of a long look through the files.

    Raises:
      UserError: the folder, its class folders or its files are not as they must be; or there is no such class.
    """
    spec = config.data_spec
    if spec.kind == "digits":
        return _digits().only(config.classes)
    if spec.kind == "synthetic":
        return _synthetic(spec.synthetic_classes).only(config.classes)
    if spec.kind == "tfrecord":
        from trainer.data.record_files import open_records

        return _usable(open_records(spec.argument, config, report), config, report)
    if spec.kind == "tfds":
        from trainer.data.tfds_source import open_tfds

        return _usable(open_tfds(spec.argument, config, report), config, report)
    if spec.kind == "csv":
        from trainer.data.text_source import open_csv

        return open_csv(spec.argument, config.text_column, config.label_column, config.classes, report)
    return _usable(_folder(spec.argument, config, report), config, report)


def _usable(source: EncodedSource, config: Config, report: Callable[[str], None]) -> EncodedSource:
    """The source without images that cannot be used, if it has any; staged if `--stage_to` says so.

    Raises:
      UserError: it has some, known without decoding, and `--on_bad_image` does not skip them.
    """
    source = replace(source, max_image_pixels=config.max_image_pixels)
    if config.on_bad_image == "fail" and source.skipped:
        raise bad_images_error(f"{source.root}/{source.skipped[0].key}", source.skipped)
    if config.stage_to:
        from trainer.data.staging import staged

        assert isinstance(source, FileSource)
        source = staged(source, config.stage_to, report)
    if config.on_bad_image == "fail":
        return source
    from trainer.data.bad_images import find_bad_images

    bad = find_bad_images(source, report=report)
    return source.without(bad) if bad else source


def _folder(path: str, config: Config, report: Callable[[str], None]) -> FileSource:
    root = absolute(path).rstrip("/")
    listing = list_class_folders(root, config.classes, report)
    return FileSource(
        name=f"folder {root}",
        class_names=listing.class_names,
        labels=listing.labels,
        keys=listing.keys,
        skipped=listing.unusable,
        root=root,
        paths=PathsUnder(root, listing.files),
        sizes=listing.sizes,
        listed_versions=listing.versions,
        checksums=listing.checksums,
        from_cache=listing.from_cache,
    )


def _digits() -> ArraySource:
    """The 1797 handwritten digits of scikit-learn, 8 by 8 pixels, 16 levels of grey."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    keys = [f"{label}/{index:04d}" for index, label in enumerate(digits.target.tolist())]
    by_key = np.argsort(keys, kind="stable")
    return ArraySource(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        labels=digits.target[by_key].astype(np.int32),
        keys=[keys[index] for index in by_key.tolist()],
        native_size=8,
        pixels=np.repeat(grey[by_key, :, :, np.newaxis], 3, axis=3),
    )


def _synthetic(classes: int) -> ArraySource:
    """Generated images: a coarse pattern of colours for each class, under noise, so that training has to learn.

    They are a data set like any other: the same in every run, whatever its seed.
    """
    per_class = max(_SYNTHETIC_IMAGES // classes, _SYNTHETIC_IMAGES_PER_CLASS)
    random = np.random.default_rng(0)
    patterns = random.integers(64, 192, (classes, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
    pixels = np.empty((len(labels), SYNTHETIC_SIZE, SYNTHETIC_SIZE, 3), np.uint8)
    for label in range(classes):  # One class at a time: the noise of all at once would take eight times the memory.
        noise = random.integers(-64, 64, (per_class, *patterns.shape[1:]))
        pixels[labels == label] = patterns[label] + noise
    class_names = tuple(f"class_{label:03d}" for label in range(classes))
    return ArraySource(
        name=f"synthetic with {classes} classes",
        class_names=class_names,
        labels=labels,
        keys=[f"{name}/{index:05d}" for name in class_names for index in range(per_class)],
        native_size=SYNTHETIC_SIZE,
        pixels=pixels,
    )
