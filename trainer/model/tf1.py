"""TF1-format modules under TF2's strategies.

`tf.saved_model.load` puts the variables of a TF1 graph on one device, whatever strategy is in scope: other replicas
would fetch every weight from there at every step, and a TPU could not read them at all. Here the graph is taken out
of the loaded function and run on variables of our own, which the strategy in scope replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class ReplicatedFunction(NamedTuple):
    """A TF1 signature with variables of its own.

    Attributes:
      call: image batch, in the dtype of the signature's input, to all outputs by name.
      variables: made in the strategy's scope, none trainable; named as in the module.
      resources: what else the graph reads, such as tables; it stays on the device where it was loaded.
    """

    call: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    variables: list[tf.Variable]
    resources: list[tf.Tensor]


def replicate(function: Any, loaded_variables: list[tf.Variable]) -> ReplicatedFunction:
    """Copies the variables that a TF1 signature reads into the strategy in scope, and the graph onto them.

    Args:
      function: concrete function of a TF1 signature with one input, from `tf.saved_model.load`.
      loaded_variables: all variables of the loaded module.

    Returns:
      The same computation; its result has no gradient with respect to the variables.
    """
    by_handle = {id(variable.handle): variable for variable in loaded_variables}
    captures = list(function.captured_inputs)
    first_capture = len(function.inputs) - len(captures)
    image_placeholder = function.inputs[0].name
    variables: list[tf.Variable] = []
    resources: list[tf.Tensor] = []
    variable_inputs: list[str] = []
    resource_inputs: list[str] = []
    for placeholder, captured in zip(function.inputs[first_capture:], captures, strict=True):
        loaded = by_handle.get(id(captured))
        if loaded is None:
            resources.append(captured)
            resource_inputs.append(placeholder.name)
        else:
            name = loaded.name.split(":")[0]
            variables.append(tf.Variable(loaded.numpy(), trainable=False, name=name, dtype=loaded.dtype))
            variable_inputs.append(placeholder.name)
    graph_def = _without_inputs(function)
    inputs = [image_placeholder, *variable_inputs, *resource_inputs]
    outputs = {name: tensor.name for name, tensor in function.structured_outputs.items()}

    # A function of the handles, so that one graph serves every replica; and a graph of its own, because importing
    # into the graph of a TPU replica fails.
    @tf.function(autograph=False)
    def run_graph(values: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        fed = dict(zip(inputs, values, strict=True))
        found = tf.graph_util.import_graph_def(graph_def, fed, list(outputs.values()), name="")
        return dict(zip(outputs, found, strict=True))

    def call(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return run_graph([images, *map(_local_handle, variables), *resources])

    return ReplicatedFunction(call, variables, resources)


def _local_handle(variable: tf.Variable) -> tf.Tensor:
    """The handle of this replica's copy, or of the first one where no replica is meant."""
    if tf.distribute.in_cross_replica_context():
        return tf.distribute.get_strategy().experimental_local_results(variable)[0].handle
    return variable.handle


def _without_inputs(function: Any) -> tf.compat.v1.GraphDef:
    """The function's graph without its input placeholders, tied to no device."""
    fed = {tensor.op.name for tensor in function.inputs}
    graph_def = function.graph.as_graph_def()
    kept = [node for node in graph_def.node if node.name not in fed]
    for node in kept:
        node.device = ""
        # Colocation may name a placeholder that is gone; which device a node runs on is the strategy's business.
        node.attr.pop("_class", None)
    bare = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    bare.node.extend(kept)
    return bare
