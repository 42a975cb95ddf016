"""Asks the fake cloud directly, and bodies that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from fakes.credentials import PROJECT
from fakes.server import FakeServer

REGION = f"projects/{PROJECT}/locations/us-central1"
ZONE = f"projects/{PROJECT}/locations/us-west4-a"
VERTEX = f"aiplatform/v1/{REGION}/customJobs"
TPU = f"tpu/v2/{ZONE}/queuedResources"
BUILDS = f"cloudbuild/v1/{REGION}/builds"


def ask(cloud: FakeServer, method: str, path: str, body: Any = None, status: int = 200, **query: Any) -> Any:
    """The JSON that is answered, with the status that is expected."""
    answer = requests.request(method, f"{cloud.address}/{path}", json=body, params=query, timeout=10)
    assert answer.status_code == status, answer.text
    return answer.json()


def job_body(**changes: Any) -> dict[str, Any]:
    pool = {
        "machineSpec": {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1},
        "replicaCount": "1",
        "containerSpec": {"imageUri": "image"},
    }
    return {"displayName": "flowers", "jobSpec": {"workerPoolSpecs": [pool], **changes.pop("spec", {})}, **changes}


def pool_body(machine: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    pool = {"machineSpec": machine, "replicaCount": 1, "containerSpec": {"imageUri": "image"}, **changes}
    return job_body(spec={"workerPoolSpecs": [pool]})


def slice_body(name: str = "slice-1", node: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    wanted = {"acceleratorType": "v5litepod-8", "runtimeVersion": "v2-tpuv5-litepod", **(node or {})}
    return {"tpu": {"nodeSpec": [{"parent": ZONE, "nodeId": name, "node": wanted}]}, **changes}


def build_body(**changes: Any) -> dict[str, Any]:
    return {"steps": [{"name": "ubuntu", "id": "one"}], **changes}
