"""What is in a record: an encoded image, a label, and perhaps a key, as features of a `tf.train.Example`."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from trainer.data.folders import CONTROL_CODES
from trainer.errors import UserError

IMAGE_FEATURE = "image"
LABEL_FEATURE = "label"
KEY_FEATURE = "image/key"
"""The features that the converter writes. A key names the image for good: "roses/a b.jpg"."""

IMAGE_FEATURES = (IMAGE_FEATURE, "image/encoded")
LABEL_FEATURES = (LABEL_FEATURE, "image/class/text", "image/class/label")
"""The features that are looked for, first come first served, where none is named: ours, TFDS's, TF-Slim's."""


_KINDS = {"bytes_list": "bytes", "int64_list": "a whole number"}


class FeatureNames(NamedTuple):
    """Which features of a record are meant."""

    image: str
    label: str


class Labelled(NamedTuple):
    """What the index keeps of a record.

    Attributes:
      image_bytes: length of the encoded image.
      label: a class's number or its name.
      key: "" where the record has none.
    """

    image_bytes: int
    label: int | str
    key: str


def choose_features(data: bytes, image: str, label: str, place: str) -> FeatureNames:
    """Says which features hold image and label, from the first record.

    Args:
      data: of the record.
      image: `--image_feature`, or "" to look for the usual ones.
      label: `--label_feature`, likewise.
      place: where the record is, for errors.

    Raises:
      UserError: the record is no `tf.train.Example`, or has no such feature; the sentence lists those that it has.
    """
    present = sorted(_features(data, place))
    chosen = FeatureNames(
        _choose("image_feature", (image,) if image else IMAGE_FEATURES, present, place),
        _choose("label_feature", (label,) if label else LABEL_FEATURES, present, place),
    )
    if chosen.image == chosen.label:
        raise UserError(f"--image_feature and --label_feature both name {chosen.image}: give two different features.")
    return chosen


def read_example(data: bytes, names: FeatureNames, place: str) -> Labelled:
    """What the index keeps of a record.

    Args:
      data: of the record.
      names: the features to read.
      place: where the record is, for errors.

    Raises:
      UserError: it is no `tf.train.Example`, or its features are not one image, one label and at most one key.
    """
    features = _features(data, place)
    for flag, name in (("image_feature", names.image), ("label_feature", names.label)):
        _choose(flag, (name,), features, place)
    image = _only_value(features[names.image], names.image, ("bytes_list",), place)
    label = _only_value(features[names.label], names.label, ("int64_list", "bytes_list"), place)
    key = _only_value(features[KEY_FEATURE], KEY_FEATURE, ("bytes_list",), place) if KEY_FEATURE in features else b""
    return Labelled(
        image_bytes=len(image),
        label=_class_name(label, f"{names.label} of {place}") if isinstance(label, bytes) else label,
        key=_text(key, f"{KEY_FEATURE} of {place}") if key else "",
    )


def encoded_image(data: bytes, image_feature: str) -> bytes | None:
    """The encoded image in a record; None if the record is not what it was when it was indexed."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        values = tf.train.Example.FromString(data).features.feature[image_feature].bytes_list.value
    except DecodeError:
        return None
    return bytes(values[0]) if len(values) == 1 else None


def example(image: bytes, label: str, key: str) -> bytes:
    """A record of the converter: an encoded image, the name of its class, and the key that names it for good."""
    import tensorflow as tf

    values = {IMAGE_FEATURE: image, LABEL_FEATURE: label.encode(), KEY_FEATURE: key.encode()}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    record: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
    return record


def _features(data: bytes, place: str) -> Any:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError:
        raise UserError(f"{place} is not a tf.train.Example: give other records.") from None


def _choose(flag: str, wanted: Sequence[str], present: Collection[str], place: str) -> str:
    """The first wanted feature that is present."""
    for name in wanted:
        if name in present:
            return name
    if not present:
        raise UserError(f"{place} has no features: give records of tf.train.Example with an image and a label.")
    near = difflib.get_close_matches(wanted[0], present, 1)
    shown = ", ".join(sorted(present)[:20]) + (", …" if len(present) > 20 else "")
    hint = f"; did you mean --{flag}={near[0]}?" if near else f": name one with --{flag}."
    raise UserError(f"{place} has no feature {' or '.join(wanted)} but {shown}{hint}")


def _only_value(feature: Any, name: str, kinds: Sequence[str], place: str) -> Any:
    """The single value of a feature, of one of the kinds of `tf.train.Feature`."""
    kind = feature.WhichOneof("kind")
    values: Any = getattr(feature, kind).value if kind else ()
    if kind and kind not in kinds:
        expected = " or ".join(_KINDS[allowed] for allowed in kinds)
        raise UserError(f"Feature {name} of {place} is {kind.removesuffix('_list')}, and must be {expected}.")
    if len(values) != 1:
        raise UserError(f"Feature {name} of {place} has {len(values)} values, and must have one.")
    return values[0]


def _class_name(value: bytes, what: str) -> str:
    """A class name, which an export lists on a line of its own.

    Raises:
      UserError: it is not UTF-8, empty, or has a control code or line end in it.
    """
    name = _text(value, what)
    if not name or any(unicodedata.category(character) in CONTROL_CODES for character in name):
        shown = name.encode("unicode_escape").decode()
        raise UserError(f'Feature {what} is "{shown}": it must not be empty or have a line end or control code in it.')
    return name


def _text(value: bytes, what: str) -> str:
    """NFC-normalised text.

    Raises:
      UserError: it is not UTF-8, or has a NUL in it.
    """
    try:
        text = unicodedata.normalize("NFC", value.decode())
    except UnicodeDecodeError:
        raise UserError(
            f"Feature {what} is not valid UTF-8: give another feature, or write the records again."
        ) from None
    if "\0" in text:
        raise UserError(f"Feature {what} has a NUL in it: give another feature, or write the records again.")
    return text
