"""Which line of code made an operation of a program."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from trainer.preflight.replica_program import ReplicaProgram, called_functions

_LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (tf, keras))
_PROJECT = Path(__file__).parents[2]
_PREFLIGHT = str(Path(__file__).parent)


def origin(program: ReplicaProgram, operation: str) -> str:
    """The line of code that made an operation, such as "trainer/training/step.py:212".

    Of an operation inside of a loaded module, whose code is not here, it is the line that calls the module, and the
    operation's name behind it. Where the operation is not known: "".

    Args:
      program: that has it.
      operation: its name.
    """
    top = _caller(program, operation)
    if not top:
        return ""
    frames = program.traced.graph.get_operation_by_name(top).traceback
    ours = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, _PREFLIGHT))]
    line = f"{_short(ours[-1].filename)}:{ours[-1].lineno}" if ours else ""
    return line if top == operation else f"{line}, which calls {operation}".removeprefix(", ")


def _caller(program: ReplicaProgram, operation: str) -> str:
    """The operation of the graph itself that an operation belongs to, which may be itself; "" where it is unknown."""
    top = {node.name: node for node in program.graph.node}
    if operation in top:
        return operation
    functions = {function.signature.name: function for function in program.graph.library.function}
    wanted = {name for name, body in functions.items() if any(node.name == operation for node in body.node_def)}
    while wanted:
        for node in top.values():
            if called_functions([node]) & wanted:
                return str(node.name)
        wanted = {
            name for name, body in functions.items() if name not in wanted and called_functions(body.node_def) & wanted
        }
    return ""


def _short(path: str) -> str:
    """A path inside of the project without what stands above the project."""
    return str(Path(path).relative_to(_PROJECT)) if path.startswith(f"{_PROJECT}/") else path
