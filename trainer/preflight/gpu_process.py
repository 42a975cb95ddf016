"""Finds out what the steps of a run take of a GPU's memory: what runs in a process of its own, on CPUs.

    python -m trainer.preflight.gpu_process REQUEST RESULTS

REQUEST is a JSON file, see `trainer.preflight.gpu_memory`; RESULTS gets a JSON object a line, one for each step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.preflight.compiler_process import end_with_parent


def main(request_path: str, results_path: str) -> int:
    """Does what a request says; gives 0."""
    end_with_parent(seconds=1.0)
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    with open(results_path, "w", encoding="utf-8") as results:
        for entry in found(request["config"], Path(request["folder"]), request["trial_bytes"]):
            results.write(json.dumps(entry) + "\n")
            results.flush()
    return 0


def found(values: Mapping[str, Any], folder: Path, trial_bytes: int) -> Iterator[dict[str, Any]]:
    """What each step of a run takes: "name", "batch", "trials", "compiled", and "refusal" where there is no "compiled".

    It must come before anything else that uses TensorFlow in the process, since it sets things that hold from then on.

    Args:
      values: fields of the Config, with the batch of one GPU.
      folder: an empty one.
      trial_bytes: see `trainer.preflight.step_memory.run_trials`.
    """
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf

    from trainer.cluster import Cluster
    from trainer.config import Config
    from trainer.preflight.step_functions import step_functions
    from trainer.preflight.step_memory import compiled_bytes, rows_of, run_trials, xla_flags
    from trainer.preflight.verdict import TRAIN
    from trainer.preparation import build, prepare
    from trainer.records.console import Console

    os.environ["XLA_FLAGS"] = xla_flags(str(folder))
    # So that operations follow each other, as on a GPU's one stream.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    prepared = prepare(Config.parse(dict(values)), Cluster(strategy, "CPU", "preflight"), Console(quiet=True))
    built = build(prepared)
    for name, function in step_functions(prepared, built).items():
        began = time.monotonic()
        entry: dict[str, Any] = {"name": name, "batch": rows_of(function)}
        unit = prepared.config.smallest_replica_batch if name == TRAIN else 1
        trials = run_trials(function, strategy, unit, trial_bytes)
        entry["trials"] = [asdict(trial) for trial in trials]
        try:
            entry["compiled"] = compiled_bytes(name, function, strategy, folder)
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            entry["refusal"] = str(error)
        yield {**entry, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
