"""What a model takes, and how an example becomes that: the one place where kinds of examples differ.

TensorFlow operations only, because they are traced into input pipelines, steps and the SavedModel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import tensorflow as tf

from trainer.config_values import ExampleKind


class ModelInput(ABC):
    """How an example becomes a model's input: a part of the model, the same in training and in serving.

    On its way it has three forms. Encoded, it is a string of bytes: what a client sends. As an element, it is what a
    batch of the input pipeline holds, compact. What the module takes is made of a batch of elements on the device.

    Attributes:
      kind: of the examples; also the name of the elements in a batch.
      argument: of the exported model's serving_default, which takes encoded examples.
      takes_encoded: whether the module itself takes encoded examples: then all three forms are one.
    """

    kind: ClassVar[ExampleKind]
    argument: ClassVar[str]
    takes_encoded: ClassVar[bool]

    @property
    @abstractmethod
    def element(self) -> tf.TensorSpec:
        """Shape and type of one example in a batch. Rows of padding are zero, or the empty string."""

    @property
    @abstractmethod
    def module_batch(self) -> tf.TensorSpec:
        """What the module takes: `[None, ...]`."""

    @property
    @abstractmethod
    def ingredients(self) -> dict[str, Any]:
        """What features depend on besides the module and the encoded example; fields of `features.recipe.Recipe`."""

    @abstractmethod
    def __call__(self, example: tf.Tensor) -> tf.Tensor:
        """An example as a source in memory holds it, or a batch of such, to its element, or a batch of those."""

    @abstractmethod
    def from_encoded(self, encoded: tf.Tensor) -> tf.Tensor:
        """The bytes of one example, a string scalar, to its element.

        Raises:
          tf.errors.InvalidArgumentError: when it runs, if the bytes are no such example.
        """

    @abstractmethod
    def for_module(self, elements: tf.Tensor) -> tf.Tensor:
        """A batch of elements to what the module takes; cheap enough to run in each step."""

    def serve(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded examples, string `[n]`, to what the module takes of them."""
        return self.for_module(tf.map_fn(self.from_encoded, encoded, fn_output_signature=self.element))
