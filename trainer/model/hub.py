"""Hub modules without Keras: a folder that holds a SavedModel becomes a plain function and the variables behind it.

Publishers saved their modules in three ways, and this is where the differences end:

    reusable    a TF2 SavedModel that can be called; some take `training`, some `batch_norm_momentum`, some neither
    signature   a TF2 SavedModel that offers signatures only; it behaves as in inference, and can still be trained
    tf1         the format of before 2020; it has signatures too, and can only be used frozen
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from trainer.errors import UserError
from trainer.model import tf1
from trainer.model.endpoint import (
    FEATURE_VECTOR,
    Endpoint,
    Purpose,
    choose_image_size,
    find_features,
    input_spec,
    shown,
)
from trainer.model.handles import saved_model_inside_hint
from trainer.storage import is_pattern
from trainer.wording import first_line

Kind = Literal["reusable", "signature", "tf1"]

BATCH_NORM_MOMENTUM = 0.99
"""For modules that demand `batch_norm_momentum`; where it has a default, the publisher's is kept. The common default
of TensorFlow Hub's image modules."""


@dataclass(frozen=True, eq=False)
class HubModule:
    """A loaded module.

    Attributes:
      path: the folder that it was loaded from.
      module: what `tf.saved_model.load` gave; keeps tables and assets alive.
      apply: `(inputs, training)` to features: float32 `[batch, S, S, 3]` in [0, 1], or string `[batch]`, and a Python
        bool, to float32 `[batch, feature_size]`. `training=True` has an effect only where `takes_training`.
      variables: all that it uses, each once, in an order that depends on the module alone. In a strategy's scope they
        are that strategy's, one copy a replica.
      trainable_variables: those of `variables` that the publisher meant to be trained; empty for tf1.
      regularization_losses: functions without arguments that give float scalars, to be added to the loss in training.
      resources: what else it uses, such as tables and the files that they are filled from: an export must hold them.
      image_size: S, in pixels; None where it takes texts.
      feature_size: length of a feature vector.
      kind: how it was saved; see above.
      takes_training: whether `training=True` switches the module to batch statistics, dropout and the like.
    """

    path: str
    module: Any
    apply: Callable[[tf.Tensor, bool], tf.Tensor]
    variables: list[tf.Variable]
    trainable_variables: list[tf.Variable]
    regularization_losses: list[Callable[[], tf.Tensor]]
    resources: list[Any]
    image_size: int | None
    feature_size: int
    kind: Kind
    takes_training: bool

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.trainable_variables)


def load_module(path: str, handle: str, image_size: int, purpose: Purpose = FEATURE_VECTOR) -> HubModule:
    """Loads a module. Call it inside `strategy.scope()`, so that every replica gets its copy of the variables.

    Args:
      path: folder of a complete SavedModel, from `handles.resolve`.
      handle: what the user gave; names the module in errors, and its image size where the module leaves that open.
      image_size: height and width that the user asks for, in pixels; 0 leaves it to the module.
      purpose: what it must give; what it says of feature vectors in `HubModule` is then true of that.

    Raises:
      UserError: it cannot be loaded, it does not turn images into what is wanted (the sentence says what it takes
        and gives), or `image_size` does not suit it.
    """
    loaded = load_saved_model(path, f"{purpose.argument}{handle}")
    return as_module(loaded, path, handle, image_size, purpose)


def as_module(loaded: Any, path: str, handle: str, image_size: int, purpose: Purpose) -> HubModule:
    """The same of what `load_saved_model` gave, in the same scope; arguments and errors as of `load_module`."""
    named = f"{purpose.argument}{handle}"
    kind = module_kind(loaded, named)
    reusable = kind == "reusable"
    endpoint = _reusable(loaded, named, purpose) if reusable else _signature(loaded, kind, named, path, purpose)
    spec = input_spec(endpoint, named, path, purpose)
    size = None
    if purpose.takes == "image":
        size = choose_image_size(endpoint.input_specs, image_size, named)
    elif kind == "tf1":
        raise UserError(
            f"{named} is in the old TF1 format, of which only image modules can be used: take the module's TF2 version."
        )
    batch = tf.TensorSpec([None] if size is None else [None, size, size, 3], spec.dtype)
    pick, feature_size = find_features(endpoint, spec, batch, named, purpose)

    def apply(inputs: tf.Tensor, training: bool) -> tf.Tensor:
        features = tf.cast(pick(endpoint.call(tf.cast(inputs, spec.dtype), training)), tf.float32)
        # Modules are traced for any batch; a TPU wants to know this one.
        features.set_shape([inputs.shape[0], feature_size])
        return features

    if endpoint.own_variables is None:
        variables = _variables_in_use(loaded, endpoint)
        trainable = _trainable_variables(loaded, variables)
    else:
        variables, trainable = endpoint.own_variables, []
    return HubModule(
        path=path,
        module=loaded if endpoint.own_variables is None else None,
        apply=apply,
        variables=variables,
        trainable_variables=trainable,
        regularization_losses=list(getattr(loaded, "regularization_losses", None) or []),
        resources=_resources(loaded) if endpoint.own_variables is None else [],
        image_size=size,
        feature_size=feature_size,
        kind=kind,
        takes_training=endpoint.takes_training,
    )


def load_saved_model(path: str, named: str) -> Any:
    """What `tf.saved_model.load` gives.

    Args:
      path: folder of a complete SavedModel, from `handles.resolve`.
      named: what the user gave, as in "--backbone=HANDLE".

    Raises:
      UserError: it cannot be loaded.
    """
    # TF1 Hub modules hold several graphs; the one without tags is for inference.
    tags: list[str] | None = [] if tf.io.gfile.exists(f"{path}/tfhub_module.pb") else None
    try:
        return tf.saved_model.load(path, tags=tags)
    except Exception as error:  # The loader believes what it reads: a damaged file makes it raise whatever it likes.
        way_out = "--repair_hub_cache checks and mends a cached download" if "://" in named else "take a fresh copy"
        if is_pattern(path):
            way_out = "it takes * ? [ ] \\ in a path for a pattern, so rename the folder"
        raise UserError(f"{named}: TensorFlow cannot load {path} ({first_line(error)}): {way_out}.") from error


def module_kind(loaded: Any, named: str) -> Kind:
    """How a module was saved.

    Args:
      loaded: from `load_saved_model`.
      named: what the user gave, as in "--backbone=HANDLE".

    Raises:
      UserError: there is no way to call it.
    """
    if callable(loaded) and getattr(loaded.__call__, "concrete_functions", None):
        return "reusable"
    if not getattr(loaded, "signatures", None):
        raise UserError(
            f"{named} is no module: it can neither be called nor does it have signatures. It was saved "
            "without a traced function."
        )
    # Only the loader of TF1 graphs lets a caller cut new functions out of them.
    return "tf1" if hasattr(loaded, "prune") else "signature"


def _reusable(loaded: Any, named: str, purpose: Purpose) -> Endpoint:
    function = loaded.__call__
    parameters = list(inspect.signature(function).parameters.values())
    fixed: dict[str, Any] = {}
    for parameter in parameters[1:]:
        demanded = parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if demanded and parameter.name == "batch_norm_momentum":
            fixed["batch_norm_momentum"] = BATCH_NORM_MOMENTUM
        elif demanded and parameter.name != "training":
            raise UserError(f"{named} is no {purpose.module}: besides its input it demands {parameter.name}.")
    wants_training = any(parameter.name == "training" for parameter in parameters)
    bound = [bound_arguments(concrete, parameters) for concrete in function.concrete_functions]

    def call(inputs: tf.Tensor, training: bool) -> Any:
        return function(inputs, **fixed, **({"training": training} if wants_training else {}))

    return Endpoint(
        call=call,
        input_specs=[arguments.get(parameters[0].name) for arguments in bound],
        outputs=function.concrete_functions[0].structured_outputs,
        functions=function.concrete_functions,
        takes_training=any(arguments.get("training", False) is not False for arguments in bound),
    )


def bound_arguments(concrete: Any, parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    """What a function was traced for, by parameter: a TensorSpec, or the Python value that was given."""
    positional, named = concrete.structured_input_signature
    # There may be fewer positional arguments than parameters.
    return dict(zip((parameter.name for parameter in parameters), positional, strict=False)) | dict(named)


def _signature(loaded: Any, kind: Kind, named: str, path: str, purpose: Purpose) -> Endpoint:
    signatures = loaded.signatures
    names = [name for name in purpose.signatures if name in signatures] or list(signatures)
    if len(names) > 1 and names[0] not in purpose.signatures:
        raise UserError(
            f"{named}: none of its signatures {', '.join(sorted(names))} is called {' or '.join(purpose.signatures)}."
        )
    function = signatures[names[0]]
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise UserError(
            f"{named} is no {purpose.module}: its signature {names[0]} takes "
            f"{shown(inputs)}, where one batch is expected.{saved_model_inside_hint(path)}"
        )
    ((input_name, spec),) = inputs.items()
    if kind == "tf1":
        replicated = tf1.replicate(function, list(loaded.variables))
        return Endpoint(
            call=lambda inputs, training: replicated.call(inputs),
            input_specs=[spec],
            outputs=function.structured_outputs,
            own_variables=replicated.variables,
        )
    return Endpoint(
        call=lambda batch, training: function(**{input_name: batch}),
        input_specs=[spec],
        outputs=function.structured_outputs,
        functions=[function],
    )


def _variables_in_use(loaded: Any, endpoint: Endpoint) -> list[tf.Variable]:
    """What the functions read or write. A module may hold more, such as a counter of saved checkpoints or copies."""
    used = {id(variable) for function in endpoint.functions for variable in function.variables}
    found = {id(node): node for node in tf.train.TrackableView(loaded).descendants() if id(node) in used}
    return list(found.values())


def _resources(loaded: Any) -> list[Any]:
    """Tables, and the files that come with the module."""
    kinds = (tf.saved_model.experimental.TrackableResource, tf.saved_model.Asset)
    return [node for node in tf.train.TrackableView(loaded).descendants() if isinstance(node, kinds)]


def _trainable_variables(loaded: Any, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Those in the module's own list, or, where it has none, those that were saved as trainable."""
    listed = getattr(loaded, "trainable_variables", None)
    if listed is None:
        return [variable for variable in variables if variable.trainable]
    chosen = {id(variable) for variable in listed}
    return [variable for variable in variables if id(variable) in chosen]
