"""Parameter groups: which variables are trained, and at which multiple of the learning rate.

Patterns are regular expressions, looked for anywhere in a variable's path, such as "backbone/MobilenetV2/Conv/weights"
or "classifier/head/kernel".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from trainer.config import Config
from trainer.errors import UserError

_SHOWN_PATHS = 3
"""How many paths an error names, for a person to see what they look like."""


@dataclass(frozen=True, eq=False)
class Group:
    """Variables that learn at the same rate.

    Attributes:
      rate_scale: what the schedule's rate is multiplied by.
      variables: in the order of the model.
    """

    rate_scale: float
    variables: list[keras.Variable]


def parameter_groups(config: Config, trainable: Sequence[keras.Variable]) -> list[Group]:
    """Sorts the trainable variables by `--freeze` and `--lr_scale`.

    Args:
      config: `freeze` and `lr_scale` are used.
      trainable: what the model could train.

    Returns:
      A group for each factor that is used, in the order of the factors' first patterns; a factor of 0 freezes.

    Raises:
      UserError: a pattern fits no variable, or nothing is left to train.
    """
    left = list(trainable)
    if config.freeze:
        frozen = _matching("--freeze", config.freeze, left)
        left = [variable for variable in left if variable.path not in frozen]
    by_factor: dict[float, list[keras.Variable]] = {}
    scales = config.rate_scales
    for scale in scales:
        _matching(f"--lr_scale={scale.pattern}:{scale.factor:g}", scale.pattern, trainable)
        by_factor.setdefault(scale.factor, [])
    for variable in left:
        factor = next((scale.factor for scale in scales if re.search(scale.pattern, variable.path)), 1.0)
        by_factor.setdefault(factor, []).append(variable)
    groups = [Group(factor, variables) for factor, variables in by_factor.items() if factor and variables]
    if not groups:
        raise UserError(
            f"--freeze={config.freeze or 'empty'} with --lr_scale={','.join(config.lr_scale) or 'empty'} leaves "
            "nothing to train: take patterns that spare some variables, such as the head's."
        )
    return groups


def _matching(flag: str, pattern: str, variables: Sequence[keras.Variable]) -> set[str]:
    """The paths that the pattern is found in.

    Raises:
      UserError: there are none.
    """
    found = {variable.path for variable in variables if re.search(pattern, variable.path)}
    if not found:
        paths = [variable.path for variable in variables]
        shown = ", ".join(dict.fromkeys([*paths[: _SHOWN_PATHS - 1], *paths[-1:]]))
        name = flag if "=" in flag else f"{flag}={pattern}"
        raise UserError(f"{name} fits none of the {len(paths)} trainable variables, such as {shown}.")
    return found
