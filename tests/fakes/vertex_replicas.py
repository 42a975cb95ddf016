"""What Vertex AI starts for a custom job: a command for each replica, and what it is told by its environment.

As documented at docs.cloud.google.com/vertex-ai/docs/training/distributed-training (CLUSTER_SPEC), in `CustomJobSpec`
of the v1 API (AIP_…_DIR) and in google-cloud-aiplatform 2.7, `training_utils` (CLOUD_ML_JOB_ID,
AIP_TENSORBOARD_RESOURCE_NAME), 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from launch.local.worker_processes import LOOPBACK, free_ports

ClusterShape = Literal["pools", "tasks"]
"""pools: as Vertex AI documents CLUSTER_SPEC, by worker pool. tasks: with TensorFlow's names, as AI Platform had it."""

_TASKS = ("chief", "worker", "ps", "evaluator")
"""What TensorFlow calls the replicas of each worker pool."""


@dataclass(frozen=True)
class Replica:
    """One container.

    Attributes:
      name: such as "workerpool1-0", as Vertex AI names it in errors and logs.
      command: program and arguments.
      environment: all its variables.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def replicas_of(
    job_name: str, spec: Mapping[str, Any], image: Mapping[str, str], shape: ClusterShape = "pools"
) -> list[Replica]:
    """All replicas of a job, the primary first. Their addresses are free ports of this machine.

    TF_CONFIG, which Vertex AI documents for distributed jobs beside CLUSTER_SPEC, is left out: whoever reads it first
    would not look at CLUSTER_SPEC.

    Args:
      job_name: "projects/P/locations/R/customJobs/N".
      spec: the job's, as Google's class writes it.
      image: the variables that the container image sets.
      shape: of CLUSTER_SPEC.
    """
    pools = {number: pool for number, pool in enumerate(spec["workerPoolSpecs"]) if pool}
    counts = {number: int(pool["replicaCount"]) for number, pool in pools.items()}
    ports = iter(free_ports(sum(counts.values())))
    names = {number: _TASKS[number] if shape == "tasks" else f"workerpool{number}" for number in pools}
    cluster = {names[n]: [f"{LOOPBACK}:{next(ports)}" for _ in range(count)] for n, count in counts.items()}
    return [
        Replica(
            f"workerpool{number}-{index}",
            _command(pool["containerSpec"]),
            {
                **image,
                **_variables_of_job(job_name, spec),
                "CLUSTER_SPEC": json.dumps(
                    {
                        "cluster": cluster,
                        "environment": "cloud",
                        "task": {"type": names[number], "index": index},
                        "job": spec,
                    }
                ),
                **{each["name"]: each.get("value", "") for each in pool["containerSpec"].get("env", [])},
            },
        )
        for number, pool in pools.items()
        for index in range(counts[number])
    ]


def _command(container: Mapping[str, Any]) -> tuple[str, ...]:
    """What is run; there is no image here whose entry point could be."""
    assert container.get("command"), "a job without a command runs the image's own, and there is no image"
    return (*container["command"], *container.get("args", []))


def _variables_of_job(job_name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    variables = {"CLOUD_ML_JOB_ID": job_name.rpartition("/")[2]}
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if base:
        variables["AIP_MODEL_DIR"] = f"{base}/model/"
        variables["AIP_CHECKPOINT_DIR"] = f"{base}/checkpoints/"
        variables["AIP_TENSORBOARD_LOG_DIR"] = f"{base}/logs/"
    if spec.get("tensorboard"):
        variables["AIP_TENSORBOARD_RESOURCE_NAME"] = spec["tensorboard"]
    return variables
