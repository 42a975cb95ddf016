"""One worker of a cluster: judges examples together with the others and saves what all of them found.

TF_CONFIG=… python evaluate_as_worker.py OUT.npz LOCAL_REPLICAS GLOBAL_BATCH COUNT
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

import numpy as np

from trainer.agreement import come_together
from trainer.cluster import connect
from trainer.config import Config
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.training.evaluation import Evaluator


def main(out: str, local_replicas: int, global_batch: int, count: int) -> None:
    console = Console(quiet=True)
    config = Config(
        data="digits", seed=3, batch_size=global_batch, strategy="multi_worker", virtual_devices=local_replicas
    )
    cluster = connect(config, come_together(config, os.environ, console).topology)
    prepared = prepare(config, cluster, console)
    evaluation = Evaluator(cluster, build(prepared).model, prepared.source, global_batch)(prepared.train[:count])
    np.savez(out, **dataclasses.asdict(evaluation))
    cluster.barrier()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
