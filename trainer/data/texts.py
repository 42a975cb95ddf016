"""Texts as a model's input: a module takes their bytes as they are, and looks words up itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.data.images import ImageInput
from trainer.data.model_input import ModelInput

TEXT_VERSION = 1
"""To be raised by whoever changes what a module gets of the same text: features are kept by it."""


class TextInput(ModelInput):
    """UTF-8 texts, unchanged from the file to the module."""

    kind = "text"
    argument = "text"
    takes_encoded = True

    @property
    def element(self) -> tf.TensorSpec:
        """String scalars."""
        return tf.TensorSpec([], tf.string)

    @property
    def module_batch(self) -> tf.TensorSpec:
        """String `[None]`."""
        return tf.TensorSpec([None], tf.string)

    @property
    def ingredients(self) -> dict[str, Any]:
        """See `ModelInput.ingredients`."""
        return {"image_size": None, "resize": None, "preprocessing": TEXT_VERSION}

    def __call__(self, example: tf.Tensor) -> tf.Tensor:
        """As it is."""
        return example

    def from_encoded(self, encoded: tf.Tensor) -> tf.Tensor:
        """As it is."""
        return encoded

    def for_module(self, elements: tf.Tensor) -> tf.Tensor:
        """As they are."""
        return elements

    def serve(self, encoded: tf.Tensor) -> tf.Tensor:
        """As they are."""
        return encoded


def build_model_input(image_size: int | None, resize: str = "crop", max_pixels: int = MAX_IMAGE_PIXELS) -> ModelInput:
    """What a module takes.

    Args:
      image_size: height and width of its images, in pixels; None where it takes texts.
      resize: see `ImageInput`.
      max_pixels: see `ImageInput`.
    """
    return TextInput() if image_size is None else ImageInput(image_size, resize, max_pixels)
