"""What one TPU core would be given to compile, and its form in HLO, the language of XLA's compilers.

TensorFlow lowers a program for a TPU by tf2xla, which is in every TensorFlow. So it is lowered here too, or refused
by an error that names the operation that has no place on a TPU. `trainer.preflight.tracing` makes the programs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import tensorflow as tf

REPLICA_SUM = "CrossReplicaSum"
"""The type of the operation that adds up a tensor over all replicas."""

REPLICA_EXCHANGE = "AllToAll"
"""The type of the operation by which every replica gets a part of every other's tensor. TPUStrategy makes all replicas
take the first one's value by it, for variables with that kind of aggregation, such as the counter of a Keras optimizer.
"""

EXCHANGE_MARK = "preflight.all_to_all"
"""The target of the custom call that stands for an exchange in HLO; its backend_config has the dimensions, as JSON."""


class Operation(NamedTuple):
    """An operation of a program: its type, such as "PrintV2", and its name, such as "backbone/PrintV2"."""

    type: str
    name: str


class Boundary(NamedTuple):
    """A tensor that enters or leaves: its name in the graph, and its type and shape, with a name such as "image"."""

    tensor: str
    spec: tf.TensorSpec


class Variable(NamedTuple):
    """A variable of which each replica has a copy.

    Attributes:
      tensor: name of its handle in the graph.
      name: for a person, such as "classifier/head/kernel".
      trained: whether a gradient is to move it.
      handle: resource, the first replica's copy.
    """

    tensor: str
    name: str
    trained: bool
    handle: tf.Tensor


class Constant(NamedTuple):
    """A value that was known when the program was traced.

    Attributes:
      tensor: its name in the graph.
      value: that of the first replica.
      differs: whether the other replicas have others, as with the number of the replica.
    """

    tensor: str
    value: tf.Tensor
    differs: bool


class Foreign(NamedTuple):
    """A resource that is no variable of the strategy, such as a table: its name in the graph, and its handle."""

    tensor: str
    handle: tf.Tensor


class AllReduce(NamedTuple):
    """A sum over replicas in the lowered program; `type` is XLA's name of it, such as "f32"."""

    name: str
    type: str
    shape: tuple[int, ...]


class LoweringError(Exception):
    """A program has no form that XLA could compile. `operations` are those to blame, as far as they are known."""

    def __init__(self, message: str, operations: Sequence[Operation]) -> None:
        """`message` is TensorFlow's."""
        super().__init__(message)
        self.operations = list(operations)


@dataclass(frozen=True, eq=False)
class ReplicaProgram:
    """One replica's program.

    Attributes:
      replicas: how many replicas run it together.
      graph: its operations, as they were traced, with the functions that they call. What enters from outside is in
        the lists below, under the names that the graph has for it.
      inputs: the replica's batch, in the order of the lowered program's arguments.
      outputs: what the step returns.
      variables: what it reads or writes.
      untouched: names of variables that a gradient is to move, and that are not among these.
      constants: what else enters.
      foreign: resources that a TPU has no access to.
      outside: operations that are marked to run on the host.
      traced: the function that it was cut out of. Kept because TensorFlow forgets the functions that a graph calls
        when nobody holds the first who named them.
    """

    replicas: int
    graph: tf.compat.v1.GraphDef
    inputs: list[Boundary]
    outputs: list[Boundary]
    variables: list[Variable]
    untouched: list[str]
    constants: list[Constant]
    foreign: list[Foreign]
    outside: list[Operation]
    traced: Any

    def nodes(self) -> Iterator[Any]:
        """All operations as NodeDef protos, those of the functions included."""
        yield from self.graph.node
        for function in self.graph.library.function:
            yield from function.node_def

    @cached_property
    def hlo(self) -> str:
        """The program as XLA's text, before any optimization.

        Raises:
          LoweringError: there is no such form.
        """
        return str(self._lowered("hlo"))

    @cached_property
    def hlo_proto(self) -> bytes:
        """The same as a serialized HloModuleProto, which is what compilers take.

        Raises:
          LoweringError: there is no such form.
        """
        return bytes(self._lowered("hlo_serialized"))

    def _lowered(self, stage: str) -> Any:
        specs = [tf.TensorSpec(entry.spec.shape, entry.spec.dtype) for entry in self.inputs]
        try:
            # "CPU" says for which of this machine's devices to lower: a TensorFlow without a TPU has no other word.
            return self._compiled.experimental_get_compiler_ir(*specs)(stage=stage, platform_name="CPU")
        except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            raise LoweringError(str(error), _blamed(str(error))) from error

    @cached_property
    def _compiled(self) -> Any:
        specs = [tf.TensorSpec(entry.spec.shape, entry.spec.dtype) for entry in self.inputs]
        return tf.function(self._as_function(), jit_compile=True, input_signature=specs, autograph=False)

    @property
    def all_reduces(self) -> list[AllReduce]:
        """The sums over replicas, in the order of the lowered program, which need not be the step's.

        Raises:
          LoweringError: see `hlo`.
        """
        found = re.findall(r"= (\w+)\[([\d,]*)\]\S* all-reduce\(.*?op_name=\"([^\"]*)\"", self.hlo)
        return [AllReduce(name, kind, tuple(map(int, filter(None, sizes.split(","))))) for kind, sizes, name in found]

    def _as_function(self) -> Callable[..., list[tf.Tensor]]:
        graph = _with_xla_collectives(self.graph)

        def program(*arguments: tf.Tensor) -> list[tf.Tensor]:
            capture = tf.compat.v1.get_default_graph().capture
            fed = {entry.tensor: argument for entry, argument in zip(self.inputs, arguments)}
            fed |= {variable.tensor: capture(variable.handle) for variable in self.variables}
            fed |= {resource.tensor: capture(resource.handle) for resource in self.foreign}
            fed |= {entry.tensor: capture(entry.value) for entry in self.constants}
            return tf.graph_util.import_graph_def(graph, fed, [entry.tensor for entry in self.outputs], name="")

        return program


def called_functions(nodes: Sequence[Any]) -> set[str]:
    """The functions that some nodes name, as their type or in an attribute; types of operations are among them too."""
    names = {node.op for node in nodes}
    for attribute in (attribute for node in nodes for attribute in node.attr.values()):
        names.add(attribute.func.name)
        names.update(function.name for function in attribute.list.func)
    return names


def _with_xla_collectives(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """The same graph without the TPU's own collective operations, for which only TPUs have kernels."""
    changed = tf.compat.v1.GraphDef()
    changed.CopyFrom(graph)
    bodies = [changed.node, *(function.node_def for function in changed.library.function)]
    for node in (node for body in bodies for node in body):
        if node.op == REPLICA_SUM:
            node.op = "XlaAllReduce"
            node.attr["reduce_op"].s = b"Add"
            node.attr["mode"].s = b"CrossReplica"
        elif node.op == REPLICA_EXCHANGE:
            _mark_exchange(node)
    return changed


def _mark_exchange(node: Any) -> None:
    """Makes a call of something unknown out of an exchange between replicas, which tf2xla has no form for."""
    arguments = {name: node.attr[name].i for name in ("split_dimension", "concat_dimension", "split_count")}
    kind, shapes = node.attr["T"].type, node.attr["_output_shapes"].list.shape
    inputs = [node.input[0], *(name for name in node.input if name.startswith("^"))]
    marked = type(node)(name=node.name, op="XlaCustomCallV2", input=inputs)
    marked.attr["call_target_name"].s = EXCHANGE_MARK.encode()
    marked.attr["backend_config"].s = json.dumps(arguments).encode()
    marked.attr["has_side_effect"].b = False
    marked.attr["operand_dtypes"].list.type.append(kind)
    marked.attr["result_dtypes"].list.type.append(kind)
    marked.attr["result_shapes"].list.shape.extend(shapes)
    node.CopyFrom(marked)


def _blamed(message: str) -> list[Operation]:
    """The operations that tf2xla names in an error."""
    found = re.findall(r"(\w+) \(No registered '\w+' OpKernel[^\n]*?\{\{node ([^}]+)\}\}", message)
    return [Operation(kind, name) for kind, name in dict.fromkeys(found)]
