"""Custom jobs as Vertex AI keeps them (v1), strict about what it takes.

Rules are those of the comments in Google's own class (google-cloud-aiplatform 2.7, CustomJob) and of
cloud.google.com/vertex-ai/docs/training/create-custom-job, 2026-11. That a job which has ended cannot be cancelled
(400 FAILED_PRECONDITION) is the stricter of two ways to read them.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from fakes.filters import predicate
from fakes.rest import PAGE_PARAMETERS, Clock, GoogleError, Route, body_of, check_labels, checked, page, routed, stamp
from fakes.server import Answer, Request

ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")

SUCCEEDING = ("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED")
"""What a job goes through after JOB_STATE_QUEUED if nobody says otherwise: one step whenever it is looked at."""

LONGEST_DISPLAY_NAME = 128
LONGEST_LABEL = 64

_OUTPUT_ONLY = ("name", "state", "createTime", "startTime", "endTime", "updateTime", "error", "webAccessUris")
_PARENT = r"/v1/(projects/[^/]+/locations/[a-z]+-[a-z]+\d+)/customJobs"


class CustomJob:
    """One job.

    Attributes:
      resource: as the API gives it.
      script: the states it goes through yet, one whenever somebody gets it; None where something else moves it.
      cancel_requested: is set when somebody asks for it to be ended.
    """

    def __init__(self, resource: dict[str, Any], script: list[str] | None, lock: threading.RLock, clock: Clock) -> None:
        self.resource = resource
        self.script = script
        self.cancel_requested = threading.Event()
        self._lock = lock
        self._clock = clock

    @property
    def name(self) -> str:
        """Such as "projects/P/locations/R/customJobs/123"."""
        return str(self.resource["name"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its jobSpec, as Google's class writes it."""
        return self.resource["jobSpec"]  # type: ignore[no-any-return]

    @property
    def state(self) -> str:
        """Such as "JOB_STATE_RUNNING"."""
        return str(self.resource["state"])

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def set_state(self, state: str, error: str = "") -> None:
        """Moves it, from whatever thread, and notes when.

        Args:
          state: of Google's class.
          error: what the service says went wrong.
        """
        with self._lock:
            now = stamp(self._clock())
            self.resource.update(state=state, updateTime=now)
            if state == "JOB_STATE_RUNNING":
                self.resource.setdefault("startTime", now)
            if state in ENDED:
                self.resource["endTime"] = now
            if error:
                self.resource["error"] = {"code": 3, "message": error}

    def step(self) -> None:
        """Takes the next step of its script."""
        if self.script:
            state = self.script.pop(0)
            failed = "The replica workerpool0-0 exited with a non-zero status of 1."
            self.set_state(state, failed if state == "JOB_STATE_FAILED" else "")

    def cancel(self) -> None:
        if self.has_ended:
            raise GoogleError(400, f"{self.name} has ended already", reason="FAILED_PRECONDITION")
        self.cancel_requested.set()
        self.set_state("JOB_STATE_CANCELLING")
        if self.script is not None:
            self.script = ["JOB_STATE_CANCELLED"]


class VertexApi:
    """The service.

    Attributes:
      jobs: by their full names, the oldest first.
      script: that of the next jobs.
      on_create: is given each job that is made while its maker still waits for the answer; what it is moved by then
        is the callback's business, and the job has no script.
    """

    def __init__(self, lock: threading.RLock, clock: Clock) -> None:
        self.jobs: dict[str, CustomJob] = {}
        self.script: tuple[str, ...] = SUCCEEDING
        self.on_create: Callable[[CustomJob], None] | None = None
        self._lock = lock
        self._clock = clock
        self._numbers = itertools.count(7_000_000_000_000_000_001)

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request.

        Args:
          request: as it came.
          path: that of this API, from the version on.
        """
        routes = (
            Route("POST", _PARENT, self._create),
            Route("GET", _PARENT, self._list, PAGE_PARAMETERS),
            Route("GET", rf"{_PARENT}/(\d+)", self._get),
            Route("POST", rf"{_PARENT}/(\d+):cancel", self._cancel),
            Route("DELETE", rf"{_PARENT}/(\d+)", self._delete),
        )
        return routed(request, path, routes)

    def _create(self, request: Request, parent: str) -> dict[str, Any]:
        from google.cloud.aiplatform_v1.types import CustomJob as Schema

        resource = checked(Schema, body_of(request), _OUTPUT_ONLY)
        check_job(resource)
        now = stamp(self._clock())
        name = f"{parent}/customJobs/{next(self._numbers)}"
        resource.update(name=name, state="JOB_STATE_QUEUED", createTime=now, updateTime=now)
        job = CustomJob(resource, None if self.on_create else list(self.script), self._lock, self._clock)
        self.jobs[name] = job
        created = dict(resource)
        if self.on_create:
            self.on_create(job)
        return created

    def _list(self, request: Request, parent: str) -> dict[str, Any]:
        fits = predicate(request.query.get("filter", ""))
        there = [job.resource for job in reversed(self.jobs.values()) if job.name.startswith(f"{parent}/")]
        return page(request, [resource for resource in there if fits(_with_snake_case(resource))], "customJobs")

    def _get(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        job = self._job(parent, number)
        job.step()
        return job.resource

    def _cancel(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        self._job(parent, number).cancel()
        return {}

    def _delete(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        job = self._job(parent, number)
        if not job.has_ended:
            raise GoogleError(400, f"{job.name} has not ended", reason="FAILED_PRECONDITION")
        del self.jobs[job.name]
        empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return {"name": f"{parent}/operations/{number}", "done": True, "response": empty}

    def _job(self, parent: str, number: str) -> CustomJob:
        name = f"{parent}/customJobs/{number}"
        if name not in self.jobs:
            raise GoogleError(404, f"The CustomJob {name} does not exist.")
        return self.jobs[name]


def check_job(resource: Mapping[str, Any]) -> None:
    """Refuses what fits Google's class and is no job all the same."""
    if not 1 <= len(resource.get("displayName", "")) <= LONGEST_DISPLAY_NAME:
        raise GoogleError(400, f"display_name must have 1 to {LONGEST_DISPLAY_NAME} characters")
    check_labels(resource.get("labels", {}), LONGEST_LABEL)
    spec = resource.get("jobSpec", {})
    pools = spec.get("workerPoolSpecs", [])
    if not pools or not pools[0]:
        raise GoogleError(400, "job_spec.worker_pool_specs[0] is required")
    for number, pool in enumerate(pools):
        if pool:
            _check_pool(f"job_spec.worker_pool_specs[{number}]", pool)
    if pools[0].get("replicaCount") != "1":
        raise GoogleError(400, "job_spec.worker_pool_specs[0].replica_count must be 1")
    output = spec.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if output is not None and not re.fullmatch(r"gs://[a-z0-9][\w.-]+(/.*)?", output):
        raise GoogleError(400, f"{output} is not a valid Cloud Storage path")
    tensorboard = spec.get("tensorboard")
    if tensorboard and not re.fullmatch(r"projects/[^/]+/locations/[^/]+/tensorboards/[^/]+", tensorboard):
        raise GoogleError(400, f"{tensorboard} is not the name of a Tensorboard")
    if tensorboard and not (spec.get("serviceAccount") and output):
        raise GoogleError(400, "tensorboard needs service_account and base_output_directory")


def _check_pool(where: str, pool: Mapping[str, Any]) -> None:
    machine = pool.get("machineSpec", {})
    machine_type = machine.get("machineType", "")
    if not re.fullmatch(r"[a-z]\d?[a-z0-9]*-[a-z0-9-]+", machine_type):
        raise GoogleError(400, f"{where}.machine_spec.machine_type {machine_type!r} is not supported")
    if int(pool.get("replicaCount", 0)) < 1:
        raise GoogleError(400, f"{where}.replica_count must be at least 1")
    if ("acceleratorType" in machine) != (machine.get("acceleratorCount", 0) > 0):
        raise GoogleError(400, f"{where}.machine_spec: accelerator_type and accelerator_count go together")
    if "acceleratorType" in machine and "tpuTopology" in machine:
        raise GoogleError(400, f"{where}.machine_spec: tpu_topology goes without accelerator_type")
    if ("tpuTopology" in machine) != machine_type.startswith(("ct5lp-", "ct6e-", "ct5p-", "tpu7x-")):
        raise GoogleError(400, f"{where}.machine_spec: tpu_topology goes with a TPU machine")
    if "containerSpec" not in pool and "pythonPackageSpec" not in pool:
        raise GoogleError(400, f"{where} needs container_spec or python_package_spec")
    if "containerSpec" in pool and not pool["containerSpec"].get("imageUri"):
        raise GoogleError(400, f"{where}.container_spec.image_uri is required")


def _with_snake_case(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as filters name its fields, which is display_name as well as displayName."""
    return {**resource, **{re.sub(r"(?=[A-Z])", "_", key).lower(): value for key, value in resource.items()}}
