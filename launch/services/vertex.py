"""Vertex AI as a service that runs jobs: custom jobs over REST (v1).

What states and errors mean: google-cloud-aiplatform 2.7 (JobState, CustomJob) and the pages "understanding-training-
service" and "use-spot-vms" of https://docs.cloud.google.com/vertex-ai/docs/training, 2026-11.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from launch.google.timestamps import as_timestamp, optional_moment
from launch.jobs.job import CREATED_BY, NAME_LABEL, SUBMISSION_LABEL
from launch.records.job_facts import hardware_of
from launch.services.found_by_token import ServiceOfTokens
from launch.services.service import ApiRequest, JobStatus, State
from trainer.errors import EXIT_PREEMPTED

_API = "aiplatform"

_PAGE_SIZE = "100"

_STATES = {
    "JOB_STATE_QUEUED": State.QUEUED,
    "JOB_STATE_PENDING": State.QUEUED,
    "JOB_STATE_PAUSED": State.QUEUED,
    "JOB_STATE_RUNNING": State.RUNNING,
    "JOB_STATE_UPDATING": State.RUNNING,
    "JOB_STATE_CANCELLING": State.STOPPING,
    "JOB_STATE_SUCCEEDED": State.SUCCEEDED,
    "JOB_STATE_FAILED": State.FAILED,
    "JOB_STATE_EXPIRED": State.FAILED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": State.FAILED,
    "JOB_STATE_CANCELLED": State.CANCELLED,
}
"""The service's words. A word that is new to us is taken for RUNNING, and for FAILED once the job has an end."""

_EXIT = re.compile(r"exited with a non-zero status of (\d+)")
"""How the service tells a worker's exit code; of several, the one that it names first."""

_NO_MACHINES = re.compile(r"Resources are insufficient in region|\bSTOCKOUT\b|\bpreempted\b", re.IGNORECASE)
"""How the service tells that a job's spot machines were taken away more often than it gets others."""


class VertexService(ServiceOfTokens):
    """Vertex AI; see `Service`. The token is a label."""

    api_name = _API
    collection = "customJobs"
    title = "Vertex AI"

    def list(self, project: str, location: str) -> Iterator[JobStatus]:
        """See `Service`. The API promises no order, so that all are read before the first is given."""
        found = self._labelled(f"v1/projects/{project}/locations/{location}", *CREATED_BY)
        yield from sorted(map(_status, found), key=_age, reverse=True)

    def log_filter(self, status: JobStatus) -> str:
        """See `Service`; lines of the workers and of Vertex AI itself, as `gcloud` (528) reads them."""
        job = f'resource.type="ml_job" AND resource.labels.job_id="{status.resource.rpartition("/")[2]}"'
        return f'{job} AND timestamp>="{as_timestamp(status.created)}"' if status.created else job

    def console_url(self, resource: str) -> str:
        """See `Service`; the address is that of google-cloud-aiplatform 2.7."""
        _, project, _, location, _, number = resource.split("/")
        place = f"https://console.cloud.google.com/agent-platform/locations/{location}/training/{number}"
        return f"{place}?project={project}"

    def gcloud_commands(self, resource: str) -> Mapping[str, tuple[str, ...]]:
        """See `Service`; each is what follows `gcloud`."""
        verbs = {"logs": "stream-logs", "status": "describe", "cancel": "cancel"}
        return {name: ("ai", "custom-jobs", verb, resource) for name, verb in verbs.items()}

    def _of_submission(self, parent: str, submission: str) -> Iterator[dict[str, Any]]:
        return self._labelled(parent, SUBMISSION_LABEL, submission)

    def _status(self, job: Mapping[str, Any]) -> JobStatus:
        return _status(job)

    def _labelled(self, parent: str, label: str, value: str) -> Iterator[dict[str, Any]]:
        """The jobs of a place that have a label, page by page."""
        query = {"filter": f'labels.{label}="{value}"', "pageSize": _PAGE_SIZE}
        return self._api.pages(ApiRequest(_API, "GET", f"{parent}/customJobs", query), "customJobs")


def _status(job: Mapping[str, Any]) -> JobStatus:
    """A CustomJob as a job's status."""
    labels = job.get("labels", {})
    said = str(job.get("state", ""))
    message = str(job.get("error", {}).get("message", ""))
    exit_code = _EXIT.search(message)
    return JobStatus(
        resource=str(job["name"]),
        name=str(labels.get(NAME_LABEL, job.get("displayName", ""))),
        state=_state(job, said, message),
        said=said,
        created=optional_moment(job.get("createTime", "")),
        started=optional_moment(job.get("startTime", "")),
        ended=optional_moment(job.get("endTime", "")),
        error=message,
        exit_code=int(exit_code[1]) if exit_code else None,
        submission=str(labels.get(SUBMISSION_LABEL, "")),
        details=_details(job),
    )


def _age(status: JobStatus) -> datetime.datetime:
    return status.created or datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


def _state(job: Mapping[str, Any], said: str, message: str) -> State:
    """How it stands. A job that failed was preempted if its spot machines were taken away once it had some, or if its
    trainer ended with the exit code that asks for another start."""
    state = _STATES.get(said, State.FAILED if "endTime" in job else State.RUNNING)
    if said != "JOB_STATE_FAILED":
        return state
    exit_code = _EXIT.search(message)
    if exit_code:
        return State.PREEMPTED if int(exit_code[1]) == EXIT_PREEMPTED else state
    spot = job.get("jobSpec", {}).get("scheduling", {}).get("strategy") == "SPOT"
    return State.PREEMPTED if spot and "startTime" in job and _NO_MACHINES.search(message) else state


def _details(job: Mapping[str, Any]) -> dict[str, str]:
    """What a person may ask for beside: machines, image, results, limits, and ways into the containers."""
    spec = job.get("jobSpec", {})
    pools = spec.get("workerPoolSpecs") or [{}]
    found = {
        "hardware": hardware_of(ApiRequest(_API, "GET", "", body=job)),
        "image": pools[0].get("containerSpec", {}).get("imageUri"),
        "results": spec.get("baseOutputDirectory", {}).get("outputUriPrefix"),
        "provisioning": spec.get("scheduling", {}).get("strategy"),
        "time limit": spec.get("scheduling", {}).get("timeout"),
        **{f"shell of {worker}": address for worker, address in job.get("webAccessUris", {}).items()},
    }
    return {name: str(value) for name, value in found.items() if value}
