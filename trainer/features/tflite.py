"""The TFLite engine: a module converted once, kept beside its features, run by XNNPACK on CPUs.

TensorFlow 2.21 says that its interpreter will move to the package `ai_edge_litert`; it is here until then, and where it
is not, or does not take the module, TensorFlow computes the features.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from trainer.features.extractors import CPU_BATCH, Features, Pixels
from trainer.model.hub import HubModule
from trainer.startup import standard_error_held_back
from trainer.storage import RunDirectory
from trainer.wording import first_line

_FILE = "module.tflite"
_CHECKSUM_BYTES = 32

_MOST_INTERPRETERS = 16
"""Each on one core is faster than one on all: none waits for the others after every layer, nor for a core that decodes
images (2026-11, two cores: by half). Each holds its own copy of the weights, so many cores share some of them."""


class NotConvertibleError(Exception):
    """TFLite does not take the module; says why in some words."""


class TfliteExtractor:
    """A converted module; see `extractors.Extractor`."""

    name = "TFLite"
    batch = CPU_BATCH

    def __init__(self, model: bytes, cores: int) -> None:
        """Starts the interpreters.

        Args:
          model: from `converted`.
          cores: how many to keep busy.

        Raises:
          NotConvertibleError: this machine's TFLite cannot run the model.
        """
        self.calls_at_once = min(cores, _MOST_INTERPRETERS)
        threads = cores // self.calls_at_once
        try:
            with quietly():
                self._idle = [_interpreter(model, threads) for _ in range(self.calls_at_once)]
        except (RuntimeError, ValueError) as error:
            raise NotConvertibleError(first_line(error)) from error

    def __call__(self, pixels: Pixels) -> Features:
        """See `Extractor`."""
        interpreter = self._idle.pop()
        try:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
            interpreter.invoke()
            features: Features = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        finally:
            self._idle.append(interpreter)
        return features


def converted(module: HubModule, function: tf.types.experimental.ConcreteFunction, folder: RunDirectory) -> bytes:
    """The module in TFLite's format, for batches of `CPU_BATCH` images: from `folder`, or converted and kept there.

    Args:
      module: with plain variables.
      function: the module traced for such batches, see `extractors.traced`.
      folder: where to keep it.

    Raises:
      NotConvertibleError: the module has operations that TFLite lacks.
      UserError: the folder may not be read or written.
    """
    if folder.exists(_FILE):
        content = folder.read_bytes(_FILE)
        checksum, model = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if hashlib.sha256(model).digest() == checksum:
            return model
    model = _convert(module, function)
    folder.write_bytes(_FILE, hashlib.sha256(model).digest() + model)
    return model


def _convert(module: HubModule, function: tf.types.experimental.ConcreteFunction) -> bytes:
    if module.kind == "tf1":  # Its graph reads variables by means that the converter does not know (TensorFlow 2.21).
        raise NotConvertibleError("the old TF1 format")
    return converted_quietly(function)


def converted_quietly(
    function: tf.types.experimental.ConcreteFunction, configure: Callable[[Any], None] = lambda converter: None
) -> bytes:
    """A function in TFLite's format, without the many lines that its converter prints.

    Args:
      function: what to convert.
      configure: tells a `tf.lite.TFLiteConverter` how.

    Raises:
      NotConvertibleError: it fails, with the operations that TFLite lacks if that is why.
    """
    with quietly():
        try:
            # Given the module too, it would save that as a SavedModel and load it, which takes two seconds.
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
            configure(converter)
            return bytes(converter.convert())
        # Whatever it stumbles over; which class of error depends on where. Caught here, so that its many lines vanish.
        except Exception as error:
            reason = _reason(error)
    raise NotConvertibleError(reason)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what TFLite prints and warns of: that it will move to another package, and much else."""
    with standard_error_held_back(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """Why a conversion failed; TensorFlow 2.21 names the operations far down in some thousand lines."""
    operations = sorted(set(re.findall(r"'tfl?\.(\w+)' op is neither a custom op nor a flex op", str(error))))
    return f"it has no operation {' and no '.join(operations)}" if operations else first_line(error)


def _interpreter(model: bytes, threads: int) -> Any:
    interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
