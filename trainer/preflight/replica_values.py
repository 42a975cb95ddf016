"""What replicas have in common, and what was summed over them: followed through a program, operation by operation.

Under TPUStrategy every replica has its own copy of each variable, and nothing but the program keeps the copies equal.
Here the program is interpreted with facts in place of numbers. A replica's batch `varies`; what is computed from it
varies too, until a sum over replicas makes it `summed` and equal everywhere. A sum of what is equal everywhere because
it was summed before is `summed_twice`: it counts every replica's part as often as there are replicas.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from trainer.preflight.replica_program import REPLICA_EXCHANGE, REPLICA_SUM, ReplicaProgram

_SUMS = (REPLICA_SUM, "XlaAllReduce")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_CONDITIONS = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")
_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")
_PASSED_ON = ("Enter", "Exit", "Switch", "Merge")
"""Operations that may hand on the handle of a variable."""

_VARYING = ("XlaReplicaId", "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal")
"""Operations that give each replica a value of its own."""


class Facts(NamedTuple):
    """What is known of a tensor or of a variable.

    Attributes:
      varies: replicas may have different values.
      summed: a sum over replicas is part of it.
      summed_twice: so is a sum over replicas of what had been summed, and was equal on all of them.
      handles: for a resource: the variables that it may be.
      truth: for a boolean that was known when the program was traced, such as whether a module is to train: what it is.
    """

    varies: bool = False
    summed: bool = False
    summed_twice: bool = False
    handles: frozenset[str] = frozenset()
    truth: bool | None = None

    def summed_over_replicas(self) -> Facts:
        """What is known of the sum of this over replicas."""
        again = self.summed and not self.varies
        return Facts(varies=False, summed=True, summed_twice=self.summed_twice or again)


def values_after(program: ReplicaProgram) -> dict[str, Facts]:
    """For each variable that a program assigns, by the name of its handle, what is known of its last value.

    All variables are taken to be equal on all replicas at first, and to have had no part in a sum.
    """
    keys = _keys(program)
    entering = {tensor: Facts(handles=frozenset([key])) for tensor, key in keys.items()}
    entering |= {entry.tensor: Facts(varies=True) for entry in program.inputs}
    entering |= {entry.tensor: Facts(varies=entry.differs) for entry in program.constants}
    entering |= {entry.tensor: Facts() for entry in program.foreign}
    interpreter = _Interpreter(program)
    interpreter.run(program.graph.node, entering)
    return {tensor: interpreter.contents[key] for tensor, key in keys.items() if key in interpreter.assigned}


def _keys(program: ReplicaProgram) -> dict[str, str]:
    """For each handle in the graph, one name for the variable behind it: two handles may have one."""
    first: dict[int, str] = {}
    return {variable.tensor: first.setdefault(id(variable.handle), variable.tensor) for variable in program.variables}


def _join(facts: Iterable[Facts]) -> Facts:
    """What is known of something computed from all of these, or equal to any of them."""

    def both(one: Facts, other: Facts) -> Facts:
        return Facts(
            one.varies or other.varies,
            one.summed or other.summed,
            one.summed_twice or other.summed_twice,
            one.handles | other.handles,
        )

    return reduce(both, facts, Facts())


class _Body(NamedTuple):
    """A function, in the form of a graph."""

    nodes: Sequence[Any]
    arguments: list[str]
    results: list[str]


class _Interpreter:
    """Runs a program on facts.

    Attributes:
      contents: what is known of each variable's present value.
      assigned: the variables that were written to.
    """

    def __init__(self, program: ReplicaProgram) -> None:
        self.contents = dict.fromkeys(_keys(program).values(), Facts())
        self.assigned: set[str] = set()
        self._functions = {function.signature.name: function for function in program.graph.library.function}
        self._bodies: dict[str, _Body] = {}
        self._library = tf.Graph()
        with self._library.as_default():
            library = tf.compat.v1.GraphDef(versions=program.graph.versions, library=program.graph.library)
            tf.graph_util.import_graph_def(library, name="")

    def run(self, nodes: Sequence[Any], entering: dict[str, Facts]) -> dict[str, Facts]:
        """Runs a graph on what enters it; gives what is known of everything that it computes (see `_of`)."""
        known = dict(entering)
        for node in _in_order(nodes):
            # What a loop of TensorFlow 1 brings back is not followed round: it may be anything.
            returns = node.op == "NextIteration"
            inputs = [] if returns else [_of(known, name) for name in node.input if not name.startswith("^")]
            results = Facts(varies=True) if returns else self._apply(node, inputs)
            if isinstance(results, Facts):
                known[node.name] = results
            else:
                known.update((f"{node.name}:{place}", result) for place, result in enumerate(results))
        return known

    def _apply(self, node: Any, inputs: list[Facts]) -> Facts | list[Facts]:
        """What is known of an operation's outputs: of each one, or of all alike."""
        if node.op in _CALLS:
            return self._call(node.attr["f"].func.name, inputs)
        if node.op in self._functions:
            return self._call(node.op, inputs)
        if node.op in _CONDITIONS:
            attributes = ("then_branch", "else_branch") if "If" in node.op else ("branches",)
            functions = [f for name in attributes for f in (node.attr[name].list.func or [node.attr[name].func])]
            if inputs[0].truth is not None and "If" in node.op:
                return self._call(functions[0 if inputs[0].truth else 1].name, inputs[1:])
            return self._choose([function.name for function in functions], inputs[0], inputs[1:])
        if node.op in _LOOPS:
            return self._repeat(node.attr["cond"].func.name, node.attr["body"].func.name, inputs)
        if node.op in ("Identity", "IdentityN"):
            return inputs
        if node.op == "Const" and node.attr["dtype"].type == tf.bool.as_datatype_enum:
            value = tf.make_ndarray(node.attr["value"].tensor)
            return Facts(truth=bool(value) if value.ndim == 0 else None)
        return self._compute(node.op, inputs)

    def _compute(self, kind: str, inputs: list[Facts]) -> Facts:
        """An operation that calls no function; variables that it is given are read, and unless it only reads, moved."""
        if kind in _SUMS:
            return inputs[0].summed_over_replicas()
        if kind == REPLICA_EXCHANGE:
            return inputs[0]._replace(varies=False)
        if kind in _PASSED_ON:
            return _join(inputs)
        handles = _join(inputs).handles
        values = _join(facts._replace(handles=frozenset()) for facts in inputs)
        if kind == "AssignVariableOp" and len(handles) == 1:
            (handle,) = handles
            self.contents[handle] = values
        elif handles:
            values = _join([values, *(self.contents[handle] for handle in handles)])
            if kind not in _READS:
                self.contents.update((handle, _join([values, self.contents[handle]])) for handle in handles)
        if kind not in _READS:
            self.assigned |= handles
        return values._replace(varies=True) if kind in _VARYING else values

    def _call(self, name: str, arguments: list[Facts]) -> list[Facts]:
        body = self._body(name)
        known = self.run(body.nodes, dict(zip(body.arguments, arguments)))
        return [_of(known, result) for result in body.results]

    def _choose(self, names: list[str], choice: Facts, arguments: list[Facts]) -> list[Facts]:
        """One of several functions: which one is as much part of the result as what it gives."""
        before, assigned_before = dict(self.contents), self.assigned
        results, contents, assigned = [], [], set()
        for name in names:
            self.contents, self.assigned = dict(before), set()
            results.append(self._call(name, arguments))
            contents.append(self.contents)
            assigned |= self.assigned
        self.contents = {handle: _join(branch[handle] for branch in contents) for handle in before}
        self.contents.update((handle, _join([self.contents[handle], choice])) for handle in assigned)
        self.assigned = assigned_before | assigned
        return [_join([choice, *outcomes]) for outcomes in zip(*results)]

    def _repeat(self, condition: str, body: str, state: list[Facts]) -> list[Facts]:
        """A loop: any number of rounds, none included, so until nothing new becomes known."""
        while True:
            before = (dict(self.contents), state)
            (choice,) = self._call(condition, state)
            state = [_join([old, new, choice]) for old, new in zip(state, self._call(body, state))]
            for handle, facts in before[0].items():
                if self.contents[handle] != facts:
                    self.contents[handle] = _join([facts, self.contents[handle], choice])
            if (self.contents, state) == before:
                return state

    def _body(self, name: str) -> _Body:
        if name not in self._bodies:
            function = self._functions[name]
            with self._library.as_default():
                graph, flat_names = function_def_to_graph_def(function)
            arguments = [argument.name for argument in function.signature.input_arg]
            self._bodies[name] = _Body(
                nodes=[node for node in graph.node if node.name not in arguments],
                arguments=[f"{argument}:0" for argument in arguments],
                results=[flat_names[function.ret[result.name]] for result in function.signature.output_arg],
            )
        return self._bodies[name]


def _in_order(nodes: Sequence[Any]) -> Iterable[Any]:
    """Each operation after those that it takes values from or waits for, otherwise as they stand in the graph."""
    places = {node.name: place for place, node in enumerate(nodes)}
    followers: dict[int, list[int]] = {}
    waiting: list[int] = []
    for place, node in enumerate(nodes):
        names = () if node.op == "NextIteration" else node.input
        earlier = {places[name] for name in map(_operation, names) if name in places}
        waiting.append(len(earlier))
        for other in earlier:
            followers.setdefault(other, []).append(place)
    ready = [place for place, count in enumerate(waiting) if not count]
    while ready:
        place = heapq.heappop(ready)
        yield nodes[place]
        for follower in followers.get(place, ()):
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)


def _operation(name: str) -> str:
    return name.removeprefix("^").split(":")[0]


def _of(known: dict[str, Facts], name: str) -> Facts:
    """What is known of a tensor: by its own name, as in "node:0", or by that of the operation that it comes from."""
    full = name if ":" in name else f"{name}:0"
    return known[full] if full in known else known[_operation(name)]
