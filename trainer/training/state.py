"""What training changes, by name: taken out for a checkpoint, and put back from one.

    model/PATH         weights and moving statistics, by their Keras path
    averages/PATH      their moving averages
    optimizer/PATH     the update rule: step count and slots
    loss_scale/NAME    of mixed_float16

The names do not depend on the strategy: what two replicas saved, one device restores. Weights that no step changes, as
those of a frozen module, are not saved again and again: they come from the module, and a fingerprint makes sure that it
is still the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.model.classifier import Classifier
from trainer.model.optimizer import Optimizer
from trainer.training.checkpoint import Checkpoint
from trainer.training.checkpoint_file import Tensors

WEIGHTS = (_MODEL, _AVERAGES) = ("model/", "averages/")
"""Beginnings of the names of what a model computes with."""

_SHOWN = 3
"""How many names an error tells."""


class TrainingState:
    """All variables that the steps of a run change."""

    def __init__(self, model: Classifier, optimizer: Optimizer) -> None:
        """Finds them; both must be complete."""
        changing = {id(variable) for variable in [*optimizer.variables, *model.backbone.moved_by_calls]}
        named = by_path(model.variables)
        frozen = {path: variable for path, variable in named.items() if id(variable) not in changing}
        self.frozen_fingerprint = _fingerprint(frozen)
        self._variables = {
            **{f"{_MODEL}{path}": variable.value for path, variable in named.items() if path not in frozen},
            **{f"{_AVERAGES}{path}": average for path, average in optimizer.averages.by_path().items()},
            **{f"optimizer/{path}": variable.value for path, variable in by_path(optimizer.rule.variables).items()},
            **{f"loss_scale/{name}": variable for name, variable in optimizer.loss_scale.by_name().items()},
        }

    @property
    def variables(self) -> list[tf.Variable]:
        """All of them."""
        return list(self._variables.values())

    def snapshot(self) -> dict[str, tf.Tensor]:
        """Their values at this moment, which later steps do not touch. Every worker must call it, in step.

        On a device they are still there: `tensor.numpy()` brings them to the host, in whatever thread.
        """
        return {name: _read(variable) for name, variable in self._variables.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Gives them the values of a checkpoint.

        Raises:
          UserError: the checkpoint is of other variables, or of another module; nothing was changed.
        """
        _check_frozen(checkpoint, self.frozen_fingerprint)
        _check_fits(checkpoint, self._variables, checkpoint.tensors)
        _assign(self._variables, checkpoint.tensors)


def weights(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """The weights that a run evaluates and exports, by path: their averages where the checkpoint has some."""
    return _under(_MODEL, checkpoint.tensors) | _under(_AVERAGES, checkpoint.tensors)


def restore_weights(checkpoint: Checkpoint, model: Classifier) -> None:
    """Gives a model, which need not be the one that was trained, the `weights` of a checkpoint of its own run.

    Raises:
      UserError: the checkpoint is of other variables, or of another module; nothing was changed.
    """
    named, saved = by_path(model.variables), weights(checkpoint)
    _check_frozen(checkpoint, _fingerprint({path: named[path] for path in named if path not in saved}))
    variables = {path: named[path].value for path in saved if path in named}
    _check_fits(checkpoint, variables, saved)
    _assign(variables, saved)


def by_path(variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """Variables by path; a path that comes again gets a number."""
    named: dict[str, keras.Variable] = {}
    for variable in variables:
        path, number = variable.path, 2
        while path in named:
            path, number = f"{variable.path}#{number}", number + 1
        named[path] = variable
    return named


def _read(variable: tf.Variable) -> tf.Tensor:
    """A variable's value: of one that is no strategy's by the operation itself, which takes a third of the time."""
    if isinstance(variable, tf.distribute.DistributedValues):
        return tf.convert_to_tensor(variable)
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def _under(prefix: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fingerprint(variables: Mapping[str, keras.Variable]) -> str:
    """64 hexadecimal digits of names and values; "" where there are none."""
    if not variables:
        return ""
    digest = hashlib.sha256()
    for path, variable in sorted(variables.items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(tf.convert_to_tensor(variable.value).numpy()).data)
    return digest.hexdigest()


def _check_frozen(checkpoint: Checkpoint, fingerprint: str) -> None:
    if checkpoint.position.frozen_fingerprint != fingerprint:
        raise UserError(
            f"The frozen weights are not those that {checkpoint.place} was saved with: the module behind --backbone "
            "has changed since, or another part of it was frozen. Put it back, or give another --run_dir."
        )


def _check_fits(checkpoint: Checkpoint, variables: Mapping[str, tf.Variable], saved: Tensors) -> None:
    """Makes sure that just these variables were saved, in their shapes."""
    there = {name: tuple(value.shape) for name, value in saved.items()}
    here = {name: tuple(variable.shape) for name, variable in variables.items()}
    others = sorted(name for name in {**there, **here} if there.get(name) != here.get(name))
    if others:
        named = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        raise UserError(
            f"The checkpoint {checkpoint.place} does not fit this model, which differs in {named}: give the "
            "configuration that saved it, or another --run_dir."
        )


def _assign(variables: Mapping[str, tf.Variable], values: Tensors) -> None:
    for name, variable in variables.items():
        variable.assign(values[name])
