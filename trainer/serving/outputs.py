"""What a module gives, as the bytes of a PNG or of a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.model.endpoint import shown

_LEVEL = 1 / 255
"""By how much a float image may leave [0, 1]: rounding does it, and nobody sees it."""


def named_outputs(structure: Any, name: str = "") -> dict[str, tf.Tensor]:
    """All tensors by name: that of a mapping, or the place in a list; one alone is called "output".

    Args:
      structure: a tensor, or mappings and sequences of them.
      name: of all of it.
    """
    if isinstance(structure, Mapping):
        parts = sorted(structure.items())
    elif isinstance(structure, (list, tuple)):
        parts = [(str(place), part) for place, part in enumerate(structure)]
    else:
        return {name or "output": structure}
    if len(parts) == 1 and not isinstance(structure, Mapping):
        return named_outputs(parts[0][1], name)
    return {
        inner: tensor
        for part_name, part in parts
        for inner, tensor in named_outputs(part, f"{name}/{part_name}" if name else part_name).items()
    }


def png_of(outputs: Mapping[str, tf.Tensor], named: str) -> bytes:
    """The one image among a module's outputs.

    Args:
      outputs: from `named_outputs`.
      named: what the user gave for the module.

    Raises:
      UserError: there is none, or there are several.
    """
    images = [name for name, tensor in outputs.items() if _is_image(tensor)]
    if len(images) > 1:
        raise UserError(f"{named} gives several images, {', '.join(images)}, and a PNG holds one: take another module.")
    if not images:
        raise UserError(
            f"{named} gives {shown(dict(outputs))}, and no image [1, height, width, 3 or 1] that is uint8 or in "
            "[0, 1]: let --output end in .json."
        )
    (pixels,) = outputs[images[0]]
    if pixels.dtype != tf.uint8:
        pixels = tf.saturate_cast(tf.round(tf.cast(pixels, tf.float32) * 255), tf.uint8)
    return bytes(tf.io.encode_png(pixels).numpy())


def json_of(outputs: Mapping[str, tf.Tensor], named: str) -> bytes:
    """All outputs as a JSON object: of each, by name, "dtype", "shape" and "values"; null stands for nan and infinity.

    Args:
      outputs: from `named_outputs`.
      named: what the user gave for the module.

    Raises:
      UserError: all there is, is one image.
    """
    if len(outputs) == 1 and all(map(_is_image, outputs.values())):
        raise UserError(f"{named} gives an image: let --output end in .png.")
    found = {
        name: {"dtype": tensor.dtype.name, "shape": list(tensor.shape), "values": _values(np.asarray(tensor))}
        for name, tensor in outputs.items()
    }
    return f"{json.dumps(found, allow_nan=False)}\n".encode()


def _is_image(tensor: tf.Tensor) -> bool:
    shape = tensor.shape
    if shape.rank != 4 or shape[0] != 1 or shape[3] not in (1, 3) or not all(shape):
        return False
    if not tensor.dtype.is_floating:
        return bool(tensor.dtype == tf.uint8)
    values = tf.cast(tensor, tf.float32).numpy()
    return bool(values.min() >= -_LEVEL and values.max() <= 1 + _LEVEL)


def _values(array: NDArray[Any]) -> Any:
    """Nested lists of what JSON knows; floats with as many digits as tell them apart in their own type."""
    if array.ndim:
        return [_values(np.asarray(row)) for row in array]
    value = array.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        return float(str(array)) if math.isfinite(value) else None
    return value
