"""Several workers, one run: they meet, and make sure that they see the same images, checkpoint and run directory.

What is not agreed on here shows as a hang or as a wrong result: each worker would wait for collective operations that
the others never reach, or sum up gradients of other images.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from trainer.cluster import Cluster
from trainer.config import Config
from trainer.errors import UserError
from trainer.lease import Lease
from trainer.records.console import Console
from trainer.roll_call import meet
from trainer.storage import RunDirectory
from trainer.topology import Topology, read_topology


class Meeting(NamedTuple):
    """What the workers agreed on before TensorFlow's devices are touched.

    Attributes:
      topology: who they are; None where one process does it all.
      run_dir: where the run leaves everything.
    """

    topology: Topology | None
    run_dir: str


def come_together(
    config: Config, environment: Mapping[str, str], console: Console, lease: Lease | None = None
) -> Meeting:
    """Finds out who trains with whom, and where to; waits for the other workers.

    Args:
      config: the run.
      environment: has TF_CONFIG or CLUSTER_SPEC where `--strategy=multi_worker`.
      console: is told who is missing.
      lease: of the run directory, in the process that writes there; without one, a directory is chosen here.

    Raises:
      UserError: the environment does not tell, a worker does not come, or one has another configuration.
    """
    topology = read_topology(environment) if config.strategy == "multi_worker" else None
    run_dir = lease.run_dir if lease else config.run_dir
    if not run_dir and (topology is None or topology.is_chief):
        run_dir = config.new_run_dir(datetime.datetime.now())
    if topology and not topology.trains and not run_dir:
        raise UserError("The evaluator needs --run_dir: give it that of the workers.")
    if topology and topology.trains:
        mine = config.model_copy(update={"run_dir": run_dir})
        run_dir = meet(topology, mine, timeout=config.worker_timeout, announce=console.note).run_dir
    return Meeting(topology, run_dir)


def check_agreement(cluster: Cluster, data_fingerprint: str, step: int) -> None:
    """Makes sure that all workers have the same images and start at the same step. All must call it.

    One process alone agrees with itself.

    Args:
      cluster: of the workers.
      data_fingerprint: 16 hexadecimal digits, of the images that this worker sees.
      step: of the checkpoint that it would go on from.

    Raises:
      UserError: they do not; every worker raises it.
    """
    topology = cluster.topology
    if topology is None:
        return
    halves = [int(data_fingerprint[:8], 16), int(data_fingerprint[8:], 16)]
    rows = cluster.gather(np.array([*halves, step]))
    for index, row in enumerate(rows):
        if not np.array_equal(row[:2], rows[0, :2]):
            raise UserError(
                f"{topology.name_of(index)} sees other examples than the chief: make --data the same on all workers."
            )
        if row[2] != rows[0, 2]:
            raise UserError(
                f"{topology.name_of(index)} would start at step {int(row[2])} and the chief at step {int(rows[0, 2])}: "
                "give a --run_dir that all workers share, such as one on gs://."
            )


def check_shared(cluster: Cluster, run: RunDirectory, name: str) -> None:
    """Makes sure that all workers see what the chief has written. All must call it, the chief after writing.

    One process alone has nobody to show it to.

    Args:
      cluster: of the workers.
      run: the run directory.
      name: of a file in it.

    Raises:
      UserError: a worker does not see it; every worker raises it.
    """
    topology = cluster.topology
    if topology is None:
        return
    cluster.barrier()
    seen = cluster.gather(np.array([run.exists(name)]))[:, 0]
    for index in np.flatnonzero(seen == 0):
        raise UserError(
            f"{topology.name_of(int(index))} does not see what the chief writes to --run_dir={run.path}: give a "
            "folder that all workers share, such as one on gs://."
        )
