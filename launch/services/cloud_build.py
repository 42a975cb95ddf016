"""Cloud Build as a service that runs builds, over REST (v1).

What states mean: google-cloud-build 3.43 (Build.Status) and cloud.google.com/build/docs, 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launch.google.timestamps import as_timestamp, optional_moment
from launch.jobs.job import NAME_LABEL, SUBMISSION_LABEL
from launch.services.build_request import CREATED_BY_TAG, submission_tag
from launch.services.found_by_token import ServiceOfTokens
from launch.services.service import ApiRequest, JobStatus, State

_API = "cloudbuild"

_PAGE_SIZE = "1000"

_STATES = {
    "PENDING": State.QUEUED,
    "QUEUED": State.QUEUED,
    "WORKING": State.RUNNING,
    "SUCCESS": State.SUCCEEDED,
    "FAILURE": State.FAILED,
    "INTERNAL_ERROR": State.FAILED,
    "TIMEOUT": State.FAILED,
    "EXPIRED": State.FAILED,
    "CANCELLED": State.CANCELLED,
}
"""The service's words. A word that is new to us is taken for RUNNING, and for FAILED once the build has an end."""


class CloudBuildService(ServiceOfTokens):
    """Cloud Build; see `Service`. The token is a tag."""

    api_name = _API
    collection = "builds"
    title = "Cloud Build"

    def list(self, project: str, location: str) -> Iterator[JobStatus]:
        """See `Service`; the newest first, as the API gives them."""
        return map(_status, self._tagged(f"v1/projects/{project}/locations/{location}", CREATED_BY_TAG))

    def log_filter(self, status: JobStatus) -> str:
        """See `Service`; as `gcloud` (528) reads the lines of a build."""
        project = status.resource.split("/")[1]
        build = (
            f'logName="projects/{project}/logs/cloudbuild" AND resource.type="build" AND '
            f'resource.labels.build_id="{status.resource.rpartition("/")[2]}"'
        )
        return f'{build} AND timestamp>="{as_timestamp(status.created)}"' if status.created else build

    def console_url(self, resource: str) -> str:
        """See `Service`."""
        _, project, _, location, _, number = resource.split("/")
        return f"https://console.cloud.google.com/cloud-build/builds;region={location}/{number}?project={project}"

    def gcloud_commands(self, resource: str) -> Mapping[str, tuple[str, ...]]:
        """See `Service`; each is what follows `gcloud`. Logs are in Cloud Logging, from which only the
        beta command reads them while the build runs."""
        _, project, _, location, _, number = resource.split("/")
        where = (number, f"--region={location}", f"--project={project}")
        return {
            "logs": ("beta", "builds", "log", "--stream", *where),
            "status": ("builds", "describe", *where),
            "cancel": ("builds", "cancel", *where),
        }

    def _of_submission(self, parent: str, submission: str) -> Iterator[dict[str, Any]]:
        return self._tagged(parent, submission_tag(submission))

    def _status(self, job: Mapping[str, Any]) -> JobStatus:
        return _status(job)

    def _created(self, answer: dict[str, Any]) -> JobStatus:
        return _status(answer.get("metadata", {}).get("build", answer))  # An operation, or the build that was found.

    def _tagged(self, parent: str, tag: str) -> Iterator[dict[str, Any]]:
        """The builds of a place that have a tag, page by page."""
        query = {"filter": f'tags="{tag}"', "pageSize": _PAGE_SIZE}
        return self._api.pages(ApiRequest(_API, "GET", f"{parent}/builds", query), "builds")


def _status(build: Mapping[str, Any]) -> JobStatus:
    """A Build as a job's status."""
    said = str(build.get("status", ""))
    state = _STATES.get(said, State.FAILED if "finishTime" in build else State.RUNNING)
    tags = [str(tag) for tag in build.get("tags", [])]
    return JobStatus(
        resource=str(build["name"]),
        name=_behind(f"{NAME_LABEL}-", tags),
        state=state,
        said=said,
        created=optional_moment(build.get("createTime", "")),
        started=optional_moment(build.get("startTime", "")),
        ended=optional_moment(build.get("finishTime", "")),
        error=_error(build) if state is State.FAILED else "",
        submission=_behind(f"{SUBMISSION_LABEL}-", tags),
        details=_details(build),
    )


def _behind(start: str, tags: list[str]) -> str:
    """The rest of the tag that begins so; "" if none does."""
    return next((tag.removeprefix(start) for tag in tags if tag.startswith(start)), "")


def _error(build: Mapping[str, Any]) -> str:
    """What went wrong, and in which step."""
    steps = [step.get("id", "") for step in build.get("steps", []) if step.get("status") in ("FAILURE", "TIMEOUT")]
    step = f"step {steps[0]}: " if steps and steps[0] else ""
    return step + str(build.get("failureInfo", {}).get("detail") or build.get("statusDetail", ""))


def _details(build: Mapping[str, Any]) -> dict[str, str]:
    """What a person may ask for beside: what was built from what, and its log in the console."""
    source = build.get("source", {}).get("storageSource", {})
    made = [f"{image['name']}@{image['digest']}" for image in build.get("results", {}).get("images", [])]
    found = {
        "image": ", ".join(made or build.get("images", [])),
        "source": f"gs://{source['bucket']}/{source['object']}" if source else "",
        "log": build.get("logUrl", ""),
    }
    return {name: str(value) for name, value in found.items() if value}
