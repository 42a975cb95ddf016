"""How fast the input pipeline of a run is on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainer.data.bad_images import naming_bad_images
from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.preflight.verdict import Number
from trainer.preparation import Built, Prepared

SECONDS = 2.0
"""For how long it is measured."""

_BATCH = 32
"""Of any size: what an example costs does not depend on it."""


def input_rate(
    prepared: Prepared, built: Built, clock: Callable[[], float] = time.perf_counter, seconds: float = SECONDS
) -> Number:
    """Examples a second, read, decoded and augmented on all processors, by this machine alone.

    Args:
      prepared: has the examples.
      built: its model's preprocessing is applied.
      clock: seconds.
      seconds: for how long, from the first batch on.

    Raises:
      UserError: an image cannot be read.
    """
    source, config = prepared.source, prepared.config
    steps = max(2, len(prepared.train) * config.epochs // _BATCH)
    share = Share(_BATCH, replicas=1, first_replica=0, local_replicas=1)
    model_input = built.model.model_input
    with naming_bad_images(source, lambda sentence: None):
        batches = iter(training_batches(source, prepared.train, config, model_input, share, 0, steps))
        next(batches)
        began = now = clock()
        done = 0
        for _ in batches:
            done, now = done + _BATCH, clock()
            if now - began >= seconds:
                break
    return Number.measured(done / (now - began), f"{source.kind}s/s", "the input pipeline on this machine")
