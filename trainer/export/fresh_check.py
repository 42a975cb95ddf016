"""Asks parts of an export about some examples, with TensorFlow and NumPy alone: the other half of the parity gate.

    python -m trainer.export.fresh_check

Each line of standard input is a question, a JSON object:

    part         "classifier" or "feature_vector"
    path         folder of the SavedModel
    questions    a file that numpy.load reads: "encoded_0" and so on, and "pixels" of images, see `ask_classifier`
    answers      where to write what it says, for numpy.load

It ends with its input. It must not import anything else of `trainer`: what it can answer, any server with TensorFlow
can.
"""

from __future__ import annotations

import gc
import json
import sys

import numpy as np

# Half of its start went into what Keras imports where it finds it, and into garbage that importing does not make.
sys.modules.update(dict.fromkeys(("jax", "matplotlib", "sklearn")))  # type: ignore[arg-type]
gc.disable()
import tensorflow as tf  # noqa: E402

gc.freeze()
gc.enable()


def ask_classifier(path: str, encoded: list[bytes], pixels: np.ndarray | None) -> dict[str, np.ndarray]:
    """What the signatures of an exported classifier say, by signature and output name.

    Args:
      path: folder of the SavedModel.
      encoded: n image files or texts.
      pixels: the same images, float32 `[n, S, S, 3]` in [0, 1]; None where they are texts.
    """
    signatures = tf.saved_model.load(path).signatures
    (argument,) = signatures["serving_default"].structured_input_signature[1]
    served = {"serving_default": signatures["serving_default"](**{argument: tf.constant(encoded)})}
    if pixels is not None:
        served["from_pixels"] = signatures["from_pixels"](pixels=tf.constant(pixels))
    return {f"{name}/{key}": _array(value) for name, outputs in served.items() for key, value in outputs.items()}


def ask_feature_vector(path: str, encoded: list[bytes], pixels: np.ndarray | None) -> dict[str, np.ndarray]:
    """What an exported module says of the pixels or texts, as "feature_vector"; arguments as of `ask_classifier`."""
    inputs = tf.constant(encoded) if pixels is None else tf.constant(pixels)
    return {"feature_vector": _array(tf.saved_model.load(path)(inputs, training=False))}


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
            pixels = arrays["pixels"] if "pixels" in arrays.files else None
            count = sum(name.startswith("encoded_") for name in arrays.files)
            encoded = [arrays[f"encoded_{position}"].tobytes() for position in range(count)]
        np.savez(question["answers"], **asking[question["part"]](question["path"], encoded, pixels))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
