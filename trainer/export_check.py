"""Asks an export about some images, with TensorFlow and NumPy alone: the other half of the parity gate.

    python -m trainer.export_check EXPORT QUESTIONS.npz ANSWERS.npz

It must not import anything else of `trainer`: what it can answer, any server with TensorFlow can.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf


def ask(export: str, images: list[bytes], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What both signatures and the feature vector module under `export` say, by signature and output name.

    Args:
      export: folder of the SavedModel.
      images: encoded, n of them.
      pixels: the same images, float32 `[n, H, W, 3]` in [0, 1].
    """
    classifier = tf.saved_model.load(export)
    served = {
        "serving_default": classifier.signatures["serving_default"](image_bytes=tf.constant(images)),
        "from_pixels": classifier.signatures["from_pixels"](pixels=tf.constant(pixels)),
    }
    answers = {f"{name}/{key}": _array(value) for name, outputs in served.items() for key, value in outputs.items()}
    features = tf.saved_model.load(f"{export}/feature_vector")(tf.constant(pixels), training=False)
    return answers | {"feature_vector": _array(features)}


def _array(value: tf.Tensor) -> np.ndarray:
    """The value as an array that can be saved without pickle: strings as fixed-width bytes."""
    array = value.numpy()
    return array.astype(np.bytes_) if array.dtype == object else array


def main(arguments: list[str]) -> None:
    """Reads the questions, writes the answers."""
    export, questions, answers = arguments
    with np.load(questions) as arrays:
        pixels = arrays["pixels"]
        images = [arrays[f"image_{position}"].tobytes() for position in range(len(pixels))]
    np.savez(answers, **ask(export, images, pixels))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
