"""Asks parts of an export about some images, with TensorFlow and NumPy alone: the other half of the parity gate.

    python -m trainer.export_check

Each line of standard input is a question, a JSON object:

    part         "classifier" or "feature_vector"
    path         folder of the SavedModel
    questions    a file that numpy.load reads: "pixels", and "image_0" and so on, see `ask_classifier`
    answers      where to write what it says, for numpy.load

It ends with its input. It must not import anything else of `trainer`: what it can answer, any server with TensorFlow
can.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf


def ask_classifier(path: str, images: list[bytes], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What both signatures of an exported classifier say, by signature and output name.

    Args:
      path: folder of the SavedModel.
      images: encoded, n of them.
      pixels: the same images, float32 `[n, S, S, 3]` in [0, 1].
    """
    signatures = tf.saved_model.load(path).signatures
    served = {
        "serving_default": signatures["serving_default"](image_bytes=tf.constant(images)),
        "from_pixels": signatures["from_pixels"](pixels=tf.constant(pixels)),
    }
    return {f"{name}/{key}": _array(value) for name, outputs in served.items() for key, value in outputs.items()}


def ask_feature_vector(path: str, images: list[bytes], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What an exported module says of `pixels`, as "feature_vector"; the arguments are those of `ask_classifier`."""
    return {"feature_vector": _array(tf.saved_model.load(path)(tf.constant(pixels), training=False))}


def _array(value: tf.Tensor) -> np.ndarray:
    """The value as an array that can be saved without pickle: strings as fixed-width bytes."""
    array = value.numpy()
    return array.astype(np.bytes_) if array.dtype == object else array


def main() -> None:
    """Reads questions, writes answers."""
    asking = {"classifier": ask_classifier, "feature_vector": ask_feature_vector}
    for line in sys.stdin:
        question = json.loads(line)
        with np.load(question["questions"]) as arrays:
            pixels = arrays["pixels"]
            images = [arrays[f"image_{position}"].tobytes() for position in range(len(pixels))]
        np.savez(question["answers"], **asking[question["part"]](question["path"], images, pixels))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
