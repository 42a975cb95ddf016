"""Traces a step under a TPUStrategy and cuts out one replica's program.

`TPUStrategy.run` traces its function once, marks the operations that belong to the replicas, and ties them to their
surroundings by "replicated inputs" (one tensor for each replica) and "replicated outputs". One replica's program is
what carries the mark, fed with the first tensor of each replicated input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf

from trainer.preflight.replica_program import (
    Boundary,
    Constant,
    Foreign,
    Operation,
    ReplicaProgram,
    Variable,
    called_functions,
)

_MARK = "_tpu_replicate"
_OUTSIDE_MARK = "_xla_outside_compilation"
_PLACEMENT = (_MARK, _OUTSIDE_MARK, "_xla_compile_id", "_class")

_ENTRY, _EXIT = "TPUReplicatedInput", "TPUReplicatedOutput"
_FRAME = (_ENTRY, _EXIT, "TPUReplicateMetadata")


def trace_replica(
    strategy: tf.distribute.TPUStrategy,
    step: Callable[[Any], Any],
    batch: Mapping[str, tf.TypeSpec],
    variables: Mapping[str, tf.Variable] | None = None,
    trained: Collection[str] = (),
) -> ReplicaProgram:
    """Traces a step and gives one replica's program.

    Args:
      strategy: of a pretended slice.
      step: what a replica does with its batch, a dict of tensors; returns another such dict, or None.
      batch: `element_spec` of a distributed dataset, or plain specs of what every replica gets.
      variables: names to report variables by; others go by TensorFlow's names.
      trained: those of the names that a gradient is to move.
    """
    # By default batches would be padded to a common shape. Ours have one; where one has not, it shall be seen.
    options = tf.distribute.RunOptions(experimental_enable_dynamic_batch_size=False)

    @tf.function(autograph=False)
    def on_every_replica(per_replica: Any) -> Any:
        return strategy.run(step, args=(per_replica,), options=options)

    concrete = on_every_replica.get_concrete_function(dict(batch))
    # tf.nest, which made the arguments, sorts a dict by its keys.
    input_names = [name for name in sorted(batch) for _ in tf.nest.flatten(batch[name], expand_composites=True)]
    variable_names = {id(_first(strategy, variable).handle): name for name, variable in (variables or {}).items()}
    cutter = _Cutter(concrete, dict(zip((tensor.name for tensor in concrete.inputs), input_names)))
    cutter.name_variables(variable_names, trained)
    outputs = {name: _first(strategy, value) for name, value in (concrete.structured_outputs or {}).items()}
    return cutter.program(strategy.num_replicas_in_sync, outputs)


class _Cutter:
    """Finds one replica's program in a graph, and everything that reaches it from outside."""

    def __init__(self, concrete: Any, input_names: Mapping[str, str]) -> None:
        self._concrete = concrete
        self._input_names = input_names
        self._captured = {placeholder.name: outer for outer, placeholder in concrete.graph.captures}
        self._variable_names: Mapping[int, str] = {}
        self._trained: Collection[str] = ()
        self._inputs: list[Boundary] = []
        self._variables: list[Variable] = []
        self._constants: list[Constant] = []
        self._foreign: list[Foreign] = []

    def name_variables(self, names: Mapping[int, str], trained: Collection[str]) -> None:
        """Tells the names of variables, by the id of a handle, and which of them are trained."""
        self._variable_names, self._trained = names, trained

    def program(self, replicas: int, outputs: Mapping[str, tf.Tensor]) -> ReplicaProgram:
        """Cuts."""
        operations = self._concrete.graph.get_operations()
        inside = {
            operation.name: operation
            for operation in operations
            if _MARK in operation.node_def.attr and operation.type not in _FRAME
        }
        inputs = (tensor for operation in inside.values() for tensor in operation.inputs)
        entering = {tensor.name: tensor for tensor in inputs if tensor.op.name not in inside}
        for tensor in entering.values():
            self._enter(tensor)
        graph, outside = _graph_of(inside, self._concrete.graph.as_graph_def(add_shapes=True))
        return ReplicaProgram(
            replicas=replicas,
            graph=graph,
            inputs=self._inputs,
            outputs=[_exit(name, tensor) for name, tensor in outputs.items()],
            variables=self._variables,
            untouched=sorted(set(self._trained) - {variable.name for variable in self._variables}),
            constants=self._constants,
            foreign=self._foreign,
            outside=outside,
            traced=self._concrete,
        )

    def _enter(self, tensor: tf.Tensor) -> None:
        """Notes what a tensor from outside is."""
        replicated = tensor.op.type == _ENTRY
        copies = list(tensor.op.inputs) if replicated else [tensor]
        first = copies[0]
        outer = self._captured.get(first.name)
        if outer is not None and outer.dtype == tf.resource:
            # A variable that was made outside of the strategy's scope is not replicated.
            if replicated and tf.raw_ops.VarIsInitializedOp(resource=outer):
                name = self._variable_names.get(id(outer)) or re.sub(r"/handle(_\d+)?$", "", tensor.op.name)
                self._variables.append(Variable(tensor.name, name, name in self._trained, outer))
            else:
                self._foreign.append(Foreign(tensor.name, outer))
        elif outer is not None:
            self._constants.append(Constant(tensor.name, outer, len({copy.name for copy in copies}) > 1))
        elif first.name in self._input_names:
            spec = tf.TensorSpec(first.shape, first.dtype, self._input_names[first.name])
            self._inputs.append(Boundary(tensor.name, spec))
        else:
            values = [tf.get_static_value(copy) for copy in copies]
            if any(value is None for value in values):
                raise ValueError(f"{first.name} is computed outside of the replicas, which cannot be cut out")
            differs = any((value != values[0]).any() for value in values)
            self._constants.append(Constant(tensor.name, tf.constant(values[0], first.dtype), differs))


def _first(strategy: tf.distribute.Strategy, value: Any) -> Any:
    return strategy.experimental_local_results(value)[0]


def _exit(name: str, tensor: tf.Tensor) -> Boundary:
    """The tensor inside that leaves as `tensor`."""
    while tensor.op.type != _EXIT:
        (tensor,) = tensor.op.inputs
    inner = tensor.op.inputs[0]
    return Boundary(inner.name, tf.TensorSpec(inner.shape, inner.dtype, name))


def _graph_of(inside: Collection[str], whole: Any) -> tuple[tf.compat.v1.GraphDef, list[Operation]]:
    """The operations inside and the functions that they call, tied to no device; and those marked for the host."""
    graph = tf.compat.v1.GraphDef(versions=whole.versions)
    graph.node.extend(node for node in whole.node if node.name in inside)
    for node in graph.node:
        inputs = [name for name in node.input if not name.startswith("^") or name[1:] in inside]
        del node.input[:]
        node.input.extend(inputs)
    functions = {function.signature.name: function for function in whole.library.function}
    reached: dict[str, Any] = {}
    bodies = [graph.node]
    while bodies:
        for name in called_functions(bodies.pop()):
            if name in functions and name not in reached:
                reached[name] = functions[name]
                bodies.append(functions[name].node_def)
    graph.library.function.extend(reached.values())
    outside = []
    for body in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in body:
            if _OUTSIDE_MARK in node.attr:
                outside.append(Operation(node.op, node.name))
            node.device = ""
            for mark in _PLACEMENT:
                node.attr.pop(mark, None)
    return graph, outside
