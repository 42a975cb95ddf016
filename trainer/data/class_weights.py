"""How much each class counts in the training loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.config import Config
from trainer.errors import UserError


def class_weights(
    config: Config, class_names: Sequence[str], train_labels: NDArray[np.int32]
) -> NDArray[np.float32] | None:
    """The weight of each class, or None where all count 1.

    `balanced` gives class c the weight n / (classes * n_c), n_c of the n training images being its own, so that the
    weights of all images add up to n (the formula of scikit-learn's "balanced"). A class without training
    images gets 0.

    Args:
      config: `class_weights` is used.
      class_names: in the order of the labels.
      train_labels: int32 `[n]`, of the training images.

    Returns:
      Float32 `[classes]`.

    Raises:
      UserError: a class is named that the data do not have.
    """
    if config.balances_classes:
        counts = np.bincount(train_labels, minlength=len(class_names))
        weights = len(train_labels) / (len(class_names) * np.maximum(counts, 1))
        return np.where(counts > 0, weights, 0.0).astype(np.float32)
    named = config.named_class_weights
    if not named:
        return None
    for name in named:
        if name not in class_names:
            raise UserError(f"--class_weights names {name}, but the classes are {', '.join(class_names)}.")
    return np.array([named.get(name, 1.0) for name in class_names], np.float32)
