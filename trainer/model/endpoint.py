"""What a module takes and gives: checks that it turns images or texts into feature vectors, and finds their sizes.

It does not matter here how the module was saved: `trainer.model.hub` found an `Endpoint` to call. Every error says
what the module takes and gives, because that is what tells a person which module to take instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from trainer.config_values import ExampleKind
from trainer.errors import UserError
from trainer.model.handles import saved_model_inside_hint
from trainer.wording import first_line

_SIZES_THAT_ARE_NO_MULTIPLE_OF_16 = frozenset({299, 300, 331, 380, 456, 600})

CALL_ERRORS = (ValueError, TypeError, tf.errors.OpError)


@dataclass(frozen=True)
class Purpose:
    """What a module is loaded for: by which names its parts go then, and how errors speak of it.

    Attributes:
      takes: what it must take.
      argument: what stands before the handle on the command line; "" where nothing does.
      module: what such a module is called.
      output: what it gives for an example.
      gives: the same for a batch.
      signatures: names of the signatures that may give it, the surest first.
      outputs: names of the output that it is, the surest first.
    """

    takes: ExampleKind
    argument: str
    module: str
    output: str
    gives: str
    signatures: tuple[str, ...]
    outputs: tuple[str, ...]


FEATURE_VECTOR = Purpose(
    takes="image",
    argument="--backbone=",
    module="feature vector module",
    output="feature vector",
    gives="float [batch, features]",
    signatures=("image_feature_vector", "serving_default", "default"),
    outputs=("default", "feature_vector", "features"),
)
"""To be trained on, by the conventions of TensorFlow Hub: "image_feature_vector" and "default" are TF1 Hub's names (the
second may be a classification there), "serving_default" is everybody's since TF2."""

FEATURE_VECTORS: dict[ExampleKind, Purpose] = {
    "image": FEATURE_VECTOR,
    "text": replace(FEATURE_VECTOR, takes="text"),
}
"""The same, by what the examples are."""

CLASSIFICATION = Purpose(
    takes="image",
    argument="",
    module="classification module",
    output="answer",
    gives="float [batch, classes]",
    signatures=("image_classification", "serving_default", "default"),
    outputs=("probabilities", "predictions", "logits", "scores", "default"),
)
"""To be asked as it is; "image_classification" is TF1 Hub's name."""


@dataclass(frozen=True)
class Endpoint:
    """The way into a module.

    Attributes:
      call: `(inputs, training)` to whatever the module gives; inputs in the dtype of `input_specs`.
      input_specs: the batches of images or texts that it was traced for.
      outputs: specs of what it gives, for a person; where there are several ways to call it, of one of them.
      functions: the traced functions behind `call`.
      takes_training: whether `training` reaches the module.
      own_variables: variables that stand in for those of the loaded object; None where it keeps its own.
    """

    call: Callable[[tf.Tensor, bool], Any]
    input_specs: list[Any]
    outputs: Any
    functions: Sequence[Any] = ()
    takes_training: bool = False
    own_variables: list[tf.Variable] | None = None


_EXPECTED: dict[ExampleKind, str] = {"image": "float [batch, height, width, 3]", "text": "string [batch]"}

_OTHERS_DATA: dict[ExampleKind, str] = {
    "image": " Text modules go with --data=csv:FILE.",
    "text": " Image modules go with --data=folder:PATH and other images.",
}
"""Which data a module of the other kind than the expected one goes with."""


def input_spec(endpoint: Endpoint, named: str, path: str, purpose: Purpose) -> tf.TensorSpec:
    """The spec of the batch, after checking that it is one of images or texts, of any length.

    Args:
      endpoint: to call.
      named: what the user gave, as in "--backbone=HANDLE".
      path: of the module's folder.
      purpose: says what it is to take.

    Raises:
      UserError: it takes something else, or is a whole classifier as this project exports them.
    """
    specs, kind = endpoint.input_specs, purpose.takes
    unfit = [spec for spec in specs if not _is_batch_of(kind, spec)]
    if not unfit and (_is_classifier(purpose.outputs) or not _is_classifier(endpoint.outputs)):
        return specs[0]
    other: ExampleKind = "text" if kind == "image" else "image"
    hint = saved_model_inside_hint(path)
    if not hint and all(_is_batch_of(other, spec) for spec in specs):
        hint = _OTHERS_DATA[kind]
    raise UserError(
        f"{named} is no {purpose.module} for {kind}s: it takes {shown((unfit or specs)[0])} and gives "
        f"{shown(endpoint.outputs)}, where {_EXPECTED[kind]} is to give {purpose.gives}.{hint}"
    )


def _is_batch_of(kind: ExampleKind, spec: Any) -> bool:
    if not isinstance(spec, tf.TensorSpec) or not (spec.shape.rank is None or spec.shape[:1].as_list() == [None]):
        return False
    if kind == "text":
        return spec.dtype == tf.string and spec.shape.rank in (None, 1)
    return spec.dtype.is_floating and spec.shape.is_compatible_with([None, None, None, 3])


def _is_classifier(outputs: Any) -> bool:
    """Whether these are the answers of an exported classifier: its probabilities would pass for features."""
    return isinstance(outputs, Mapping) and {"probabilities", "label", "class_id"} <= set(outputs)


def choose_image_size(specs: Sequence[tf.TensorSpec], requested: int, named: str) -> int:
    """Height and width to use, in pixels: what the module fixes, else what the user asks, else what its name says.

    Args:
      specs: the image batches that the module was traced for.
      requested: by the user; 0 for no wish.
      named: what the user gave, as in "--backbone=HANDLE".

    Raises:
      UserError: the wish does not suit the module, its images are not square, or nothing says the size.
    """
    sizes = {(None, None) if spec.shape.rank is None else tuple(spec.shape[1:3]) for spec in specs}
    for height, width in sizes:
        if height and width and height != width:
            raise UserError(f"{named} takes images of {height} x {width}; only square ones are supported.")
    fixed = sorted({height or width for height, width in sizes if height or width})
    takes_any = (None, None) in sizes
    if requested:
        if not takes_any and requested not in fixed:
            raise UserError(
                f"--image_size={requested}: {named} takes images of {' or '.join(map(str, fixed))} pixels only."
            )
        return requested
    if len(fixed) == 1:
        return fixed[0]
    told = size_in_name(named)
    if told and (takes_any or told in fixed):
        return told
    accepts = "any size" if takes_any else f"sizes {', '.join(map(str, fixed))}"
    raise UserError(f"{named} takes images of {accepts}; choose one with --image_size, such as 224.")


def size_in_name(handle: str) -> int:
    """The image size that a handle's name tells, as in ".../mobilenet_v2_100_224/feature_vector/5"; 0 if none does.

    Names are full of other numbers (depth 50 or 152, width 100 for 1.0, versions), so only sizes that image networks
    have count: multiples of 16 from 64 on, and a few well-known others. The last one in the last three parts wins.
    """
    name = "/".join(handle.rstrip("/").split("/")[-3:])
    numbers = [int(number) for number in re.findall(r"(?<![0-9A-Za-z])(\d{2,3})(?![0-9A-Za-z])", name)]
    sizes = [n for n in numbers if (n >= 64 and n % 16 == 0) or n in _SIZES_THAT_ARE_NO_MULTIPLE_OF_16]
    return sizes[-1] if sizes else 0


def find_features(
    endpoint: Endpoint, spec: tf.TensorSpec, batch: tf.TensorSpec, named: str, purpose: Purpose
) -> tuple[Callable[[Any], tf.Tensor], int]:
    """How to pick the feature vector (or whatever the purpose is) from what a call returns, and its length.

    Both are found by tracing a call.

    Args:
      endpoint: to call.
      spec: what it takes.
      batch: what it will be given of that.
      named: what the user gave, as in "--backbone=HANDLE".
      purpose: what the output is for.

    Raises:
      UserError: the call fails, or what it returns holds no feature vector, or several.
    """
    traced = tf.function(lambda inputs: endpoint.call(inputs, False), autograph=False)
    try:
        outputs = traced.get_concrete_function(batch).structured_outputs
        pick = _output_picker(outputs, spec, named, purpose)
        shape = pick(outputs).shape
        if shape.rank is None or (shape.rank == 2 and shape[1] is None):
            # The module does not say it, so ask it.
            shape = pick(endpoint.call(tf.zeros([2, *batch.shape[1:]], batch.dtype), False)).shape
    except CALL_ERRORS as error:
        inputs = "texts" if batch.dtype == tf.string else f"images of {batch.shape[1]} x {batch.shape[2]} pixels"
        raise UserError(f"{named} cannot be called with {inputs} ({first_line(error)}).") from error
    if shape.rank != 2:
        raise _unsuitable(spec, outputs, named, purpose)
    return pick, int(shape[1])


def _output_picker(outputs: Any, spec: tf.TensorSpec, named: str, purpose: Purpose) -> Callable[[Any], tf.Tensor]:
    """Picks the one output that can be what is wanted: by its name, or because no other is float `[batch, n]`."""
    if not isinstance(outputs, (Mapping, list, tuple)):
        if not hasattr(outputs, "dtype") or not outputs.dtype.is_floating:
            raise _unsuitable(spec, outputs, named, purpose)
        return lambda output: output
    by_key = dict(outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs))
    vectors = [key for key, output in by_key.items() if _may_be_vector(output)]
    known = [name for name in purpose.outputs if name in vectors]
    if not vectors:
        raise _unsuitable(spec, outputs, named, purpose)
    if len(vectors) > 1 and not known:
        raise UserError(
            f"{named} gives {shown(outputs)}; which is the {purpose.output}? One of them must be called "
            f"{' or '.join(purpose.outputs)}."
        )
    key = (known or vectors)[0]
    return lambda output: output[key]


def _may_be_vector(output: Any) -> bool:
    return hasattr(output, "dtype") and output.dtype.is_floating and output.shape.rank in (None, 2)


def _unsuitable(spec: tf.TensorSpec, outputs: Any, named: str, purpose: Purpose) -> UserError:
    return UserError(
        f"{named} is no {purpose.module}: it takes {shown(spec)} and gives {shown(outputs)}, where "
        f"{purpose.gives} is expected."
    )


def shown(structure: Any) -> str:
    """Tensors and specs as "float32 [batch, 224, 224, 3]"; several with their names."""
    if isinstance(structure, Mapping):
        return "{" + ", ".join(f"{name}: {shown(value)}" for name, value in structure.items()) + "}" or "nothing"
    if isinstance(structure, (list, tuple)) and not isinstance(structure, tf.TensorSpec):
        return "(" + ", ".join(map(shown, structure)) + ")"
    if not hasattr(structure, "shape") or not hasattr(structure, "dtype"):
        return repr(structure)
    if structure.shape.rank is None:
        return f"{structure.dtype.name} of any shape"
    axes = ["any" if length is None else str(length) for length in structure.shape]
    if axes and axes[0] == "any":
        axes[0] = "batch"
    return f"{structure.dtype.name} [{', '.join(axes)}]"
