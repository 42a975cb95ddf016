"""Any module with image inputs as something to call: what it takes, in which order, and what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trainer.errors import UserError
from trainer.model.endpoint import shown
from trainer.model.hub import BATCH_NORM_MOMENTUM, module_kind
from trainer.wording import counted

_SIGNATURES = ("serving_default", "default")
"""Names of the signature to call where a module has several, the surest first."""


@dataclass(frozen=True)
class ModuleFunction:
    """One way to call a module.

    Attributes:
      inputs: what it takes, by name, in the order of `call`.
      outputs: specs of what it gives, however nested.
      call: one tensor for each input, to what it gives.
      module: the loaded object, which the variables go with.
    """

    inputs: Mapping[str, tf.TensorSpec]
    outputs: Any
    call: Callable[[Sequence[tf.Tensor]], Any]
    module: Any


def image_function(loaded: Any, images: int, named: str) -> ModuleFunction:
    """The way to call a module with so many images, the module's own call before its signatures.

    Args:
      loaded: from `load_saved_model`.
      images: how many there are.
      named: what the user gave.

    Raises:
      UserError: there is none; the sentence says what the module takes.
    """
    kind = module_kind(loaded, named)
    ways = [*(_calls(loaded) if kind == "reusable" else ()), *_signatures(loaded)]
    with_images = [way for way in ways if way.inputs and all(map(is_image_batch, way.inputs.values()))]
    if not with_images:
        raise UserError(f"{named} takes {shown(ways[0].inputs)}, and not images alone: take another module.")
    for way in with_images:
        if len(way.inputs) == images:
            return way
    way = with_images[0]
    raise UserError(
        f"{named} takes {counted(len(way.inputs), 'image')}, {shown(way.inputs)}, and --input names {images}: give "
        "--input once for each, in this order."
    )


def is_image_batch(spec: Any) -> bool:
    """Whether a spec can be a batch of one image: numbers `[batch, height, width, 3]`, or 1 in place of 3."""
    if not isinstance(spec, tf.TensorSpec) or not (spec.dtype.is_floating or spec.dtype in (tf.uint8, tf.int32)):
        return False
    shape = spec.shape
    return any(shape.is_compatible_with([1, None, None, channels]) for channels in (1, 3))


def _calls(loaded: Any) -> Iterator[ModuleFunction]:
    """The ways that a reusable module was traced for, with `training` false."""
    function = loaded.__call__
    parameters = list(inspect.signature(function).parameters.values())
    for concrete in function.concrete_functions:
        positional, by_keyword = concrete.structured_input_signature
        given = [
            _fixed(parameters[place] if place < len(parameters) else None, value)
            for place, value in enumerate(positional)
        ]
        named = {name: _fixed(_parameter(parameters, name), value) for name, value in by_keyword.items()}
        yield _nested(loaded, (tuple(given), named), concrete.structured_outputs)


def _nested(loaded: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]], outputs: Any) -> ModuleFunction:
    """A call whose tensors may lie anywhere in its arguments."""
    flat = tf.nest.flatten(arguments)
    places = [place for place, value in enumerate(flat) if isinstance(value, tf.TensorSpec)]
    inputs: dict[str, tf.TensorSpec] = {}
    for number, place in enumerate(places, 1):
        name = flat[place].name or f"input_{number}"
        inputs[f"{name}_{number}" if name in inputs else name] = flat[place]

    def call(tensors: Sequence[tf.Tensor]) -> Any:
        filled = list(flat)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        positional, by_keyword = tf.nest.pack_sequence_as(arguments, filled)
        return loaded(*positional, **by_keyword)

    return ModuleFunction(inputs, outputs, call, loaded)


def _parameter(parameters: Sequence[inspect.Parameter], name: str) -> inspect.Parameter | None:
    return next((parameter for parameter in parameters if parameter.name == name), None)


def _fixed(parameter: inspect.Parameter | None, value: Any) -> Any:
    """What to give for a parameter: a spec stands for a tensor that the user gives."""
    name = parameter.name if parameter else ""
    if name == "training":
        return False
    if name == "batch_norm_momentum" and isinstance(value, tf.TensorSpec):
        assert parameter
        return BATCH_NORM_MOMENTUM if parameter.default is inspect.Parameter.empty else parameter.default
    return value


def _signatures(loaded: Any) -> Iterator[ModuleFunction]:
    signatures = getattr(loaded, "signatures", {})
    for name in [*(name for name in _SIGNATURES if name in signatures), *sorted(set(signatures) - {*_SIGNATURES})]:
        function = signatures[name]
        inputs = dict(sorted(function.structured_input_signature[1].items()))

        def call(tensors: Sequence[tf.Tensor], function: Any = function, names: Sequence[str] = tuple(inputs)) -> Any:
            return function(**dict(zip(names, tensors, strict=True)))

        yield ModuleFunction(inputs, function.structured_outputs, call, loaded)
