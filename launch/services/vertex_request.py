"""A Job as the request that creates a custom job of Vertex AI, and as the gcloud command that sends the same.

Pure: what is made here is what `plan` prints and what `submit` sends. The fields are those of CustomJob (v1) as
google-cloud-aiplatform 2.7 and gcloud 528 have them; what they mean is said at
https://docs.cloud.google.com/vertex-ai/docs/training (as of 2026-11). What the service would refuse is said by
`launch.services.vertex_problems`.
"""

from __future__ import annotations

import json
from typing import Any

from launch.google.gcloud_command import GcloudCommand
from launch.jobs.catalog import VERTEX_ACCELERATOR_TYPES
from launch.jobs.job import TRAINER, Hardware, Job, Provisioning
from launch.services.service import ApiRequest
from launch.services.vertex_problems import problems
from trainer.accelerators import slice_named

__all__ = ["create_request", "gcloud_create", "host_commands", "problems"]

_STRATEGIES: dict[Provisioning, str] = {
    "standard": "STANDARD",
    "spot": "SPOT",
    "flex-start": "FLEX_START",
    "reserved": "STANDARD",  # Machines of a reservation are ordinary ones; `problems` says that none can be named.
}

_CONFIG_FILE = "job.json"


def create_request(job: Job, submission: str) -> ApiRequest:
    """What creates the job.

    Args:
      job: for Vertex AI.
      submission: the token of this submission; it becomes a label.
    """
    path = f"v1/projects/{job.project}/locations/{job.location}/customJobs"
    body = {"displayName": job.name, "labels": job.all_labels(submission), "jobSpec": _job_spec(job)}
    return ApiRequest("aiplatform", "POST", path, body=body)


def gcloud_create(job: Job, submission: str) -> GcloudCommand:
    """The gcloud command that sends what `create_request` gives.

    Args:
      job: for Vertex AI.
      submission: as for `create_request`.
    """
    labels = ",".join(f"{key}={value}" for key, value in job.all_labels(submission).items())
    arguments = (
        *("ai", "custom-jobs", "create"),
        f"--project={job.project}",
        f"--region={job.location}",
        f"--display-name={job.name}",
        f"--labels={labels}",
        f"--config={_CONFIG_FILE}",
    )
    return GcloudCommand(arguments, {_CONFIG_FILE: json.dumps(_job_spec(job), indent=2) + "\n"})


def host_commands(job: Job) -> dict[str, tuple[str, ...]]:
    """What runs in which machine's container, by who runs it; for people."""
    workers = job.hardware.workers
    return {"the one worker" if workers == 1 else f"each of {workers} workers": job.worker_command}


def _job_spec(job: Job) -> dict[str, Any]:
    """CustomJobSpec. Boot disks are the service's, 100 GB of SSD; nothing that a worker leaves there is missed."""
    optional = {
        "serviceAccount": job.service_account,
        "network": job.network,
        "tensorboard": job.tensorboard,
        "enableWebAccess": job.web_access,
    }
    return {
        "workerPoolSpecs": _worker_pools(job),
        "scheduling": _scheduling(job),
        # Vertex sets AIP_MODEL_DIR, AIP_CHECKPOINT_DIR and AIP_TENSORBOARD_LOG_DIR by it.
        "baseOutputDirectory": {"outputUriPrefix": job.run_dir},
        **{key: value for key, value in optional.items() if value},
    }


def _worker_pools(job: Job) -> list[dict[str, Any]]:
    """Pool 0 is the chief alone, pool 1 all other workers; Vertex tells them of each other by CLUSTER_SPEC.

    A replica count is a string, as all 64 bit numbers are in the JSON of Google's APIs.
    """
    pool = {
        "machineSpec": _machine(job.hardware),
        "containerSpec": {
            "imageUri": job.image,
            "command": list(TRAINER),
            "args": list(job.trainer_flags),
            "env": [{"name": name, "value": value} for name, value in job.environment.items()],
        },
    }
    counts = [1] if job.hardware.is_tpu or job.hardware.workers == 1 else [1, job.hardware.workers - 1]
    return [{**pool, "replicaCount": str(count)} for count in counts]


def _machine(hardware: Hardware) -> dict[str, Any]:
    """MachineSpec. TPU v5e is named by its machine type and topology alone; of v2 and v3 the cores are counted."""
    machine: dict[str, Any] = {"machineType": hardware.machine}
    if hardware.accelerator in VERTEX_ACCELERATOR_TYPES:
        machine["acceleratorType"] = VERTEX_ACCELERATOR_TYPES[hardware.accelerator]
        machine["acceleratorCount"] = (
            slice_named(hardware.accelerator).tensor_cores if hardware.is_tpu else hardware.count
        )
    elif hardware.is_tpu:
        machine["tpuTopology"] = hardware.topology
    return machine


def _scheduling(job: Job) -> dict[str, Any]:
    """Scheduling: which machines, for how long, and which restarts.

    Restarts that can be had (understanding-training-service and use-spot-vms in the documentation, as of 2026-11):

    - A machine that is taken away, for maintenance or because it is a spot one, is replaced by another of the same host
      name. Workers that compute together cannot be joined again half-way, hence restartJobOnWorkerRestart for several:
      all begin anew and go on from the last checkpoint. Spot jobs are restarted up to six times. One worker that is not
      on a spot machine is restarted whether or not the flag is set.
    - A worker that crashes as by SIGABRT or SIGSEGV (134, 139) has the job tried again, up to three times.
    - A worker that ends with any other exit code ends the job for good: also the 75 by which the trainer says "start me
      again". Nothing in a request changes that: whoever follows the job has to submit it again, and it goes on from
      the last checkpoint.

    The time is always limited; the service's own default is seven days.
    """
    scheduling: dict[str, Any] = {
        "strategy": _STRATEGIES[job.provisioning],
        "timeout": _seconds(job.max_run_hours),
    }
    if job.provisioning == "flex-start":
        scheduling["maxWaitDuration"] = _seconds(job.max_wait_hours)  # 0 s: without end; left out it would be a day.
    if job.hardware.workers > 1 or job.provisioning == "spot":
        scheduling["restartJobOnWorkerRestart"] = True
    return scheduling


def _seconds(hours: float) -> str:
    """A duration in the JSON of Google's APIs, in whole seconds."""
    return f"{round(hours * 3600)}s"
