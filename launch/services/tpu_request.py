"""A job as a Cloud TPU queued resource: the request that makes it, and the one that asks for a preempted slice again.

Fields and their forms: google-cloud-tpu 1.28 (tpu_v2.QueuedResource, Node) and gcloud 528 (its bundled tpu v2 client),
both 2026-11. v2 knows no maximal time to run: only v2alpha1 has "runDuration", with Flex-start; so the slice's own
start-up script (`launch.services.tpu_startup`) keeps to the limit.
"""

from __future__ import annotations

import copy
import json
import math
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.google.gcloud_command import GcloudCommand
from launch.jobs.job import Job
from launch.services.service import ApiRequest

SCRIPT_KEY = "startup-script"
"""The key of a machine's metadata whose text Compute Engine runs at every boot (Compute Engine's documentation)."""

PARAMETERS_KEY = "hub-trainer"
"""The key of a machine's metadata under which that script finds what to run, as JSON."""

SERVER_PORT = 8470
"""Where the TPU servers of a slice of several hosts listen: the port of every Cloud TPU (google-cloud-tpu 1.28)."""

SERVER = ("python", "-m", "trainer.tpu_server", f"--port={SERVER_PORT}")
"""What runs on every host of such a slice."""

DEFAULT_NETWORK = "default"
"""The network that gcloud and the API take where none is named."""

LARGEST_METADATA = 256 * 1024
"""Bytes of one value of a machine's metadata (Compute Engine's documentation, 2026-11)."""

_SPOT_SECONDS = 30
"""What a spot machine has from the notice to its end (Compute Engine's documentation of spot VMs, 2026-11)."""

_REGISTRY = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/[a-z0-9._/-]+(:[\w.-]+|@sha256:[0-9a-f]{64})?")
"""An image's address with the registry's host, as in "us-central1-docker.pkg.dev/p/r/i:tag"."""

_FURTHER = re.compile(r"-r[0-9]+$")
"""The end of the name of a preempted slice's further requests."""

_SCRIPT_FILE = "tpu_startup.py"
_PARAMETERS_FILE = "hub-trainer.json"


def create_request(job: Job, submission: str) -> ApiRequest:
    """The request that makes the queued resource, and with it the slice once there is one.

    Args:
      job: of the target "tpu-vm".
      submission: the token of this submission.
    """
    parent = f"projects/{job.project}/locations/{job.location}"
    body: dict[str, Any] = {
        "tpu": {"nodeSpec": [{"parent": parent, "nodeId": job.name, "node": _node(job, submission)}]}
    }
    if job.provisioning == "spot":
        body["spot"] = {}
    if job.provisioning == "reserved":
        body["reservationName"] = f"{parent}/reservations/-"  # Whichever of the project's has room, as gcloud says it.
    if job.max_wait_hours:
        body["queueingPolicy"] = {"validUntilDuration": _seconds(job.max_wait_hours)}
    query = {"queuedResourceId": job.name, "requestId": _request_id(submission, job.name)}
    return ApiRequest("tpu", "POST", f"v2/{parent}/queuedResources", query, body)


def again(request: ApiRequest, attempt: int) -> ApiRequest:
    """The request for the same slice under another name, NAME-r2 and so on: a spot slice does not come back by itself.

    Args:
      request: the job's first, as `create_request` made it.
      attempt: which request this is; the first was 1.

    Raises:
      ValueError: `attempt` is none that follows.
    """
    if attempt < 2:
        raise ValueError(f"attempt {attempt} is no further one")
    body: dict[str, Any] = copy.deepcopy(dict(request.body or {}))
    spec = body["tpu"]["nodeSpec"][0]
    name = f"{request.query['queuedResourceId']}-r{attempt}"
    metadata = spec["node"]["metadata"]
    job = parameters(body)
    job["queued_resource"] = f"{spec['parent']}/queuedResources/{name}"
    spec["nodeId"] = name
    metadata[PARAMETERS_KEY] = _as_text(job)
    query = {"queuedResourceId": name, "requestId": _request_id(job["submission"], name)}
    return ApiRequest(request.api, request.method, request.path, query, body)


def job_name(resource: str) -> str:
    """The name of the job that a queued resource, of the first or a further request, belongs to."""
    return _FURTHER.sub("", resource.rpartition("/")[2])


def resource_of(request: ApiRequest) -> str:
    """The full name of the queued resource that a request makes."""
    return f"{request.path.removeprefix('v2/')}/{request.query['queuedResourceId']}"


def parameters(queued_resource: Mapping[str, Any]) -> dict[str, Any]:
    """What the start-up script of a queued resource is told; `_parameters` has the keys.

    Args:
      queued_resource: a request's body, or what the API says of one.

    Raises:
      ValueError: it was not made by `launch`.
    """
    try:
        found: dict[str, Any] = json.loads(queued_resource["tpu"]["nodeSpec"][0]["node"]["metadata"][PARAMETERS_KEY])
        return {**found, "submission": found["submission"], "results": found["results"]}
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its metadata has no {PARAMETERS_KEY} of ours") from error


def gcloud_create(job: Job, submission: str) -> GcloudCommand:
    """The command of gcloud that sends the same body, with the two values of metadata in files.

    Args:
      job: of the target "tpu-vm".
      submission: the token of this submission.
    """
    request = create_request(job, submission)
    spec = (request.body or {})["tpu"]["nodeSpec"][0]
    node = spec["node"]
    flags = [
        f"--project={job.project}",
        f"--zone={job.location}",
        f"--node-id={spec['nodeId']}",
        f"--accelerator-type={node['acceleratorType']}",
        f"--runtime-version={node['runtimeVersion']}",
        f"--network={node['networkConfig']['network']}",
    ]
    if job.service_account:
        flags.append(f"--service-account={job.service_account}")
    if job.provisioning in ("spot", "reserved"):
        flags.append(f"--{job.provisioning}")
    if job.max_wait_hours:
        flags.append(f"--valid-until-duration={_seconds(job.max_wait_hours)}")
    flags += [
        f"--labels={','.join(f'{key}={value}' for key, value in node['labels'].items())}",
        f"--metadata-from-file={SCRIPT_KEY}={_SCRIPT_FILE},{PARAMETERS_KEY}={_PARAMETERS_FILE}",
        "--async",
    ]
    files = {_SCRIPT_FILE: node["metadata"][SCRIPT_KEY], _PARAMETERS_FILE: node["metadata"][PARAMETERS_KEY]}
    arguments = ("compute", "tpus", "queued-resources", "create", job.name, *flags)
    return GcloudCommand(arguments, files, {_SCRIPT_FILE: "launch.services.tpu_startup"})


def host_commands(job: Job) -> dict[str, tuple[str, ...]]:
    """What runs in which host's containers, by who runs it; for people."""
    if job.hardware.workers == 1:
        return {"the one worker": job.worker_command}
    servers = ",".join(f"HOST{number}:{SERVER_PORT}" for number in range(job.hardware.workers))
    trainer = (*job.worker_command, f"--tpu=grpc://{servers}")
    return {"worker 0, with TPU_LOAD_LIBRARY=0": trainer, "every worker": SERVER}


def problems(job: Job) -> list[str]:
    """What Cloud TPU would refuse, or what would go wrong there without a word; [] if nothing.

    Args:
      job: of the target "tpu-vm"; what goes wrong on every target is told by `launch.jobs.job_problems`.
    """
    config = job.config
    found = []
    if _FURTHER.search(job.name):
        found.append(f"--name={job.name} ends as the name of a further request would: let it end otherwise.")
    if not _REGISTRY.fullmatch(job.image):
        found.append(
            f"--image={job.image} is no address that a TPU VM can pull from: push it, and give one such as "
            f"us-central1-docker.pkg.dev/{job.project}/hub-trainer/trainer-tpu:TAG."
        )
    if not job.runtime:
        found.append("No TPU software version is given: v5e has v2-alpha-tpuv5-lite, for example.")
    if config.strategy != "tpu":
        found.append(f"--strategy={config.strategy} leaves the TPU idle: give --strategy=tpu.")
    if config.max_minutes:
        # The trainer then leaves with 75, after which the start-up script starts it again.
        found.append(
            f"--max_minutes={config.max_minutes:g} would be begun again and again on the same slice: leave it out, and "
            "limit the job by --max_run_hours."
        )
    if job.provisioning == "spot" and config.stop_seconds > _SPOT_SECONDS:
        found.append(
            f"--stop_seconds={config.stop_seconds:g}: a spot machine is gone {_SPOT_SECONDS} s after the notice; give "
            "at most 25."
        )
    if job.provisioning == "flex-start":
        # A preview (cloud.google.com/tpu/docs/request-using-flex-start, 2025-08), in v2alpha1 alone (gcloud 528).
        found.append(
            "Version 2 of Cloud TPU has no flex-start: take spot, reserved, or standard with --max_wait_hours."
        )
    if job.max_run_hours <= 0:
        found.append(f"--max_run_hours={job.max_run_hours:g}: give a number above 0, so that the slice ends some time.")
    if job.tensorboard or job.web_access:
        found.append("A Tensorboard instance and web access are Vertex AI's: leave them out for a TPU VM.")
    return found


def _node(job: Job, submission: str) -> dict[str, Any]:
    script = Path(__file__).with_name(_SCRIPT_FILE).read_text(encoding="utf-8")
    return {
        "acceleratorType": job.hardware.accelerator,
        "runtimeVersion": job.runtime,
        # Without external addresses the network would need Private Google Access to reach registry and bucket.
        "networkConfig": {"network": job.network or DEFAULT_NETWORK, "enableExternalIps": True},
        "serviceAccount": {"email": job.service_account} if job.service_account else {},
        "labels": job.all_labels(submission),
        "metadata": {SCRIPT_KEY: script, PARAMETERS_KEY: _as_text(_parameters(job, submission))},
    }


def _parameters(job: Job, submission: str) -> dict[str, Any]:
    """What `launch.services.tpu_startup` is told, by its keys."""
    return {
        "job": job.name,
        "submission": submission,
        "project": job.project,
        "queued_resource": f"projects/{job.project}/locations/{job.location}/queuedResources/{job.name}",
        "hosts": job.hardware.workers,
        "image": job.image,
        "command": list(job.worker_command),
        "server_command": list(SERVER),
        "server_port": SERVER_PORT,
        "environment": job.environment,
        "results": f"{job.run_dir}/launch/{job.name}",
        "max_run_seconds": math.ceil(job.max_run_hours * 3600),
        "stop_seconds": job.config.stop_seconds,
        "delete_when_done": job.delete_when_done,
    }


def _as_text(values: dict[str, Any]) -> str:
    """JSON that ends with a line end, as the files of a shell's here-documents do."""
    return f"{json.dumps(values, indent=1)}\n"


def _seconds(hours: float) -> str:
    return f"{math.ceil(hours * 3600)}s"


def _request_id(submission: str, name: str) -> str:
    """A UUID by which Cloud TPU knows a request that comes twice ("Optional. Idempotent request UUID.")."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"hub-trainer/{submission}/{name}"))
