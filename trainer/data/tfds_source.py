"""Image classification data sets of TensorFlow Datasets, read from their prepared TFRecord files.

All splits of a data set are one source, "train/000000005" being image 5 of its split "train": `--splits` divides
them as it does any other images. Images without a label, as some test splits have, are left out.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from typing import Any

from trainer.config import Config
from trainer.data.record_examples import FeatureNames
from trainer.data.record_files import chosen_records, kept_index, record_file
from trainer.data.record_source import RecordSource
from trainer.data.tfds_preparation import command, prepare, public_data_dir, shown
from trainer.errors import UserError
from trainer.storage import reading_or_writing

_NUMBER_TYPES = ("uint8", "uint16")
"""Types of pixels whose encoded images are ordinary PNG and JPEG files; those of float32 hold bits of numbers."""


def open_tfds(name: str, config: Config, report: Callable[[str], None]) -> RecordSource:
    """Opens what `--data=tfds:NAME` names; prepares it, if it is not and the network has it.

    Args:
      name: NAME[/CONFIG][:VERSION].
      config: its `data_dir`, `try_gcs` and classes count.
      report: called with sentences on the progress of a long look or preparation.

    Raises:
      UserError: there is no such data set, it cannot be prepared, or it is not one of images with one label each.
    """
    builder = _prepared_builder(name, config, report)
    image, label, class_names = _image_and_label(name, builder.info)
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise UserError(
            f"Data set {name} in {builder.data_dir} is prepared as {file_format}: prepare it as records in another "
            f"--data_dir, with {shown(command(name, 'FOLDER', 'tfrecord'))}."
        )
    root = str(builder.data_dir)
    with reading_or_writing(root, "--data_dir"):
        files = [
            record_file(os.fspath(path), split, first_number)
            for split, info in builder.info.splits.items()
            for path, first_number in _numbered_files(info)
        ]
    index = kept_index(root, files, FeatureNames(image, label), class_names, report)
    return chosen_records(root, index, f"data set {name}", config.classes)


def _numbered_files(split: Any) -> list[tuple[Any, int]]:
    """The files of a split, each with the number of its first record."""
    lengths = split.shard_lengths
    return [(path, sum(lengths[:number])) for number, path in enumerate(split.filepaths)]


def _prepared_builder(name: str, config: Config, report: Callable[[str], None]) -> Any:
    data_dir = os.path.expanduser(config.data_dir) or None
    builder = _find_prepared(name, data_dir)
    if builder is None:
        _check_name(name)
        if config.try_gcs:
            public = public_data_dir(name)
            builder = _find_prepared(name, public) if public else None
    if builder is None:
        prepare(name, data_dir, report)
        builder = _find_prepared(name, data_dir)
    if builder is None:
        raise UserError(f"Data set {name} was prepared and cannot be found: give its --data_dir.")
    return builder


def _find_prepared(name: str, data_dir: str | None) -> Any:
    """A builder for what is prepared in a folder, from its files alone; None if nothing is.

    Raises:
      UserError: what is there cannot be read.
    """
    from google.protobuf.json_format import ParseError
    from tensorflow_datasets.core import naming, read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    parsed, arguments = naming.parse_builder_name_kwargs(name)
    where = data_dir or "the default data_dir"
    try:
        return read_only_builder.builder_from_files(str(parsed), **arguments, data_dir=data_dir)
    except DatasetNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AssertionError, ParseError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Data set {name} in {where} cannot be read ({reason}): prepare it again.") from error


def _check_name(name: str) -> None:
    """Raises UserError for a data set that TensorFlow Datasets does not have; the sentence suggests the nearest."""
    import tensorflow_datasets as tfds

    base = re.split("[/:]", name)[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        near = difflib.get_close_matches(base, known, 1)
        hint = f"did you mean {near[0]}?" if near else "give another, or the --data_dir where it is prepared."
        raise UserError(f"TensorFlow Datasets has no data set {base}; {hint}")
    configs = list(tfds.builder_cls(base).builder_configs)
    config = name.partition("/")[2].partition(":")[0]
    if config and config not in configs:
        near = difflib.get_close_matches(config, configs, 1)
        shown = ", ".join(configs[:10]) + (", …" if len(configs) > 10 else "")
        hint = f"did you mean {base}/{near[0]}?" if near else f"it has {shown or 'none at all'}."
        raise UserError(f"Data set {base} has no configuration {config}; {hint}")


def _image_and_label(name: str, info: Any) -> tuple[str, str, list[str]]:
    """The features of image and label, and the classes' names.

    Raises:
      UserError: there is not one of each.
    """
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    # Of several images or labels those count that the data set itself calls its input and target.
    chosen = [key for key in info.supervised_keys or () if isinstance(key, str)]
    images, labels = (
        [key for key, feature in features.items() if type(feature) is kind]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    )
    image, label = (found if len(found) == 1 else [key for key in found if key in chosen] for found in (images, labels))
    for found, what in ((image, "image"), (label, "class label")):
        if len(found) != 1:
            shown = ", ".join(sorted(features)) or "no features by name"
            raise UserError(
                f"Data set {name} does not have one {what} an example, but {shown}: --data=tfds takes data sets for "
                "image classification."
            )
    pixels = features[image[0]].np_dtype
    if getattr(pixels, "__name__", str(pixels)) not in _NUMBER_TYPES:
        raise UserError(f"The images of data set {name} are {pixels}, and must be of 8 or 16 bits: give another.")
    return image[0], label[0], list(features[label[0]].names)
