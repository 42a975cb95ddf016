"""Whether a TPU would take a program as it is: one rule after the other, each with a way out.

    shape        a batch whose shape is not known before it comes
    resource     something other than the strategy's variables, such as a table
    host         an operation that only the host can do, or that is marked for it
    lowering     what TensorFlow cannot turn into HLO for another reason
    type         numbers that TPUs do not have
    emulated     float64: the compiler takes it and makes many float32 operations of each
    dynamic      a shape inside that depends on the data
    gradients    a variable whose copies drift apart, whose gradient is summed more than once, or that never moves

With soft placement, its default, TensorFlow may move what a TPU cannot do to the host instead of failing
(`tf.config.set_soft_device_placement`, "automatic outside compilation"): then every step waits for the host. A step
of ours is to have none of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from trainer.preflight.replica_program import REPLICA_SUM, LoweringError, ReplicaProgram
from trainer.preflight.replica_values import values_after

Rule = Literal["shape", "resource", "host", "lowering", "type", "emulated", "dynamic", "gradients"]

HOST_OPERATIONS = {
    "EagerPyFunc": "tf.py_function",
    "PyFunc": "tf.numpy_function",
    "PyFuncStateless": "tf.numpy_function",
    "PrintV2": "tf.print",
    "StringFormat": "tf.print",
    "LookupTableFindV2": "A lookup table",
    "LookupTableImportV2": "A lookup table",
    "DecodeJpeg": "tf.io.decode_jpeg",
}
"""How operations that only the host can do are written in Python. Others are found by lowering, and go by their type.
"""

_FLOAT8_TYPES = ("f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e4m3b11fnuz", "f8e5m2fnuz")
_INTEGER_TYPES = ("pred", "s4", "s8", "s16", "s32", "s64", "u4", "u8", "u16", "u32", "u64")
TPU_TYPES = frozenset((*_INTEGER_TYPES, *_FLOAT8_TYPES, "f16", "bf16", "f32", "f64", "c64"))
"""What TensorFlow registers for TPUs, in XLA's names: kTpuAllTypes of tensorflow/core/tpu/tpu_defs.h, TensorFlow 2.20
and 2.21 (2026-11)."""

_HARDWARE_TYPES = TPU_TYPES - {"f64"}

_OPTIONAL = "OptionalFromValue"
"""What TensorFlow wraps values in that the gradient of a branch of a loaded function needs (2.21; 2026-11)."""

_FOR_THE_HOST = "would make every step wait for the host: do it in the input pipeline, or between the steps."
_EMULATED = "takes float64, which TPUs do not have: compute in float32 or mixed_bfloat16."
_SHOWN = 3
"""How many names a message lists."""

_LONGEST_REASON = 300
"""How many characters of TensorFlow's own words a message repeats."""


class Finding(NamedTuple):
    """Something in a program that a TPU would not take.

    Attributes:
      rule: which one it breaks.
      name: of the operation, tensor or variable, the first where there are several.
      message: a sentence that says what it is and a way out.
    """

    rule: Rule
    name: str
    message: str


def check_program(program: ReplicaProgram) -> list[Finding]:
    """All findings, none where a TPU would take the program.

    Whether gradients are summed once shows only where there are several replicas: of one, it is taken as right.
    """
    entering = [*_unfit_inputs(program), *_foreign_resources(program)]
    host = list(_host_operations(program))
    # Lowering would fail at these as well, and say less.
    lowered = [] if entering else list(_in_lowered_form(program))
    return [*entering, *host, *lowered, *_gradients(program)]


def _unfit_inputs(program: ReplicaProgram) -> Iterator[Finding]:
    for _, spec in program.inputs:
        if not spec.shape.is_fully_defined():
            yield Finding(
                "shape",
                spec.name,
                f'"{spec.name}" has the shape {spec.shape}, and a TPU compiles for one shape: make all batches of one '
                "size, by drop_remainder=True or by padding.",
            )
        if spec.dtype == tf.string:
            yield Finding("type", spec.name, f'"{spec.name}" is text, which no TPU can hold: give numbers.')


def _foreign_resources(program: ReplicaProgram) -> Iterator[Finding]:
    for tensor, handle in program.foreign:
        name = tensor.split(":")[0]
        if 'type="tensorflow::Var"' in repr(handle):
            way_out = "is a variable that was made outside of strategy.scope(), which no replica has: make it inside."
        else:
            way_out = "is a table or the like, which stays on the host: look things up in the input pipeline."
        yield Finding("resource", name, f"{name} {way_out}")


def _host_operations(program: ReplicaProgram) -> Iterator[Finding]:
    names: dict[str, list[str]] = {}
    for node in program.nodes():
        if node.op in HOST_OPERATIONS:
            names.setdefault(HOST_OPERATIONS[node.op], []).append(node.name)
    for operation in program.outside:
        names.setdefault("An operation that is marked for the host", []).append(operation.name)
    for what, where in names.items():
        yield Finding("host", where[0], f"{what} ({_shown(where)}) {_FOR_THE_HOST}")


def _in_lowered_form(program: ReplicaProgram) -> Iterator[Finding]:
    """What lowering shows."""
    if summed := [node.name for node in program.nodes() if _sums_float64(node)]:
        yield Finding("emulated", summed[0], f"The sum over replicas ({_shown(summed)}) {_EMULATED}")
        return
    try:
        lines = [line for line in program.hlo.splitlines() if " = " in line]
    except LoweringError as error:
        yield from _failures(error)
        return
    if dynamic := [_origin(line) for line in lines if _has_open_shape(line)]:
        yield Finding(
            "dynamic",
            dynamic[0],
            f"A shape depends on the data ({_shown(dynamic)}): keep the shape and mask, as tf.where does.",
        )
    for rule, kind, where in _types(lines):
        why = _EMULATED if rule == "emulated" else f"takes {kind}, which TPUs do not have: take another type."
        yield Finding(rule, where[0], f"The step ({_shown(where)}) {why}")


def _has_open_shape(line: str) -> bool:
    """Whether a line gives a tensor a size that is known when it runs: f32[<=8]. Where XLA knows it, it is f32[8]."""
    result, is_set, _ = line.partition(" set-dimension-size(")
    return bool(is_set) and "<=" in result


def _sums_float64(node: Any) -> bool:
    """TensorFlow can write such a sum down; XLA's does not take it (`XlaAllReduce`, TensorFlow 2.21)."""
    return node.op == REPLICA_SUM and node.attr["T"].type == tf.float64.as_datatype_enum


def _failures(error: LoweringError) -> Iterator[Finding]:
    for kind, name in error.operations:
        if kind == _OPTIONAL:
            yield Finding(
                "lowering",
                name,
                "The gradient of a tf.cond in a loaded module has no form for TPUs, as where a module takes `training` "
                "as a tensor: keep the module frozen, or take a version that is not so.",
            )
        elif kind not in HOST_OPERATIONS:
            yield Finding("host", name, f"{kind} ({name}) has no form for TPUs and {_FOR_THE_HOST}")
    if not error.operations:
        reason = str(error).removeprefix("Failed getting HLO text: '").split("\n")[0][:_LONGEST_REASON]
        yield Finding("lowering", "", f"TensorFlow cannot lower the step: {reason}")


def _types(lines: Iterable[str]) -> Iterator[tuple[Rule, str, list[str]]]:
    """The types in lowered lines that TPUs do not have, each with a rule and the operations where it occurs."""
    where: dict[str, list[str]] = {}
    for line in lines:
        code = line.split(", metadata=")[0]
        for kind in set(re.findall(r"\b(pred|[a-z]+\d\w*)\[", code)) - _HARDWARE_TYPES:
            where.setdefault(kind, []).append(_origin(line))
    for kind, names in where.items():
        of_tensorflow = [name for name in names if not name.startswith("%")]
        yield "emulated" if kind in TPU_TYPES else "type", kind, of_tensorflow or names


def _gradients(program: ReplicaProgram) -> Iterator[Finding]:
    after = values_after(program)
    trained = {variable.tensor: variable.name for variable in program.variables if variable.trained}
    several = program.replicas > 1
    apart = [name for tensor, name, *_ in program.variables if tensor in after and after[tensor].varies]
    twice = [name for tensor, name in trained.items() if tensor in after and after[tensor].summed_twice]
    # The gradient of a single replica is summed with none, and shows by coming from its batch.
    moved = {tensor for tensor, facts in after.items() if facts.summed or facts.varies}
    never = [*program.untouched, *(name for tensor, name in trained.items() if tensor not in moved)]
    if several and apart:
        yield Finding(
            "gradients",
            apart[0],
            f"Replicas drift apart: what {_shown(apart)} becomes depends on the replica; sum gradients and average "
            "statistics over replicas first (ReplicaContext.all_reduce).",
        )
    if several and twice:
        yield Finding(
            "gradients",
            twice[0],
            f"What moves {_shown(twice)} is summed over replicas a second time, which multiplies it by "
            f"{program.replicas}: leave one sum out, such as that of a Keras optimizer's apply().",
        )
    if never:
        yield Finding("gradients", never[0], f"No gradient reaches {_shown(never)}: train them, or freeze them.")


def _origin(line: str) -> str:
    """The TensorFlow operation that a line of HLO comes from, or XLA's own name for it where that is not said."""
    name = re.search(r'op_name="([^"]*)"', line)
    return name[1] if name else line.split(" = ")[0].split()[-1]


def _shown(names: Iterable[str]) -> str:
    """A few names, each once, and how many more there are."""
    different = list(dict.fromkeys(names))
    more = len(different) - _SHOWN
    return ", ".join(different[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
