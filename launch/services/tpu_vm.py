"""Cloud TPU as a service that runs jobs: queued resources over REST (v2), and what their start-up scripts left on gs://.

A queued resource tells how its machines stand and not how the trainer did: that is in RUN_DIR/launch/NAME/ended-*.json
(`launch.services.tpu_startup`), which is still there when the queued resource has deleted itself. What a state means:
google-cloud-tpu 1.28 (tpu_v2.QueuedResourceState) and docs.cloud.google.com/tpu/docs/queued-resources, 2026-11.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from launch.google.google_api import ApiError, GoogleApi
from launch.google.timestamps import optional_moment
from launch.jobs.job import CREATED_BY, NAME_LABEL, SUBMISSION_LABEL
from launch.services.service import ApiRequest, JobStatus, NoSuchJobError, State
from launch.services.tpu_request import again, job_name, parameters, resource_of
from trainer.errors import UserError

LOG = "gcplogs-docker-driver"
"""Where docker's driver for Cloud Logging writes (github.com/moby/moby, daemon/logger/gcplogs, 2026-11)."""

STATES = {
    "CREATING": State.QUEUED,
    "ACCEPTED": State.QUEUED,
    "WAITING_FOR_RESOURCES": State.QUEUED,
    "PROVISIONING": State.QUEUED,
    "ACTIVE": State.RUNNING,
    "FAILED": State.FAILED,
    "DELETING": State.STOPPING,
    "SUSPENDING": State.PREEMPTED,
    "SUSPENDED": State.PREEMPTED,
}
"""What the service's words mean; a word that is new to us is taken for QUEUED."""

_HAS_RUN = ("ACTIVE", "DELETING", "SUSPENDING", "SUSPENDED")
"""The states after which a start-up script may have told something."""

_GONE = "gone"
"""Our word for the state of a queued resource that is there no more."""

_EXPIRY_SECONDS = 600.0
"""How much longer than it may a request is shown as waiting; then nobody but us has noticed that it is over."""

_LARGEST_PAGE = "1000"


class _Ended(NamedTuple):
    """How a job ended, as a start-up script tells it."""

    exit_code: int
    message: str
    when: datetime.datetime | None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> _Ended:
        """Reads what anybody who may write to the bucket can have written."""
        code = content.get("exit_code")
        code = code if isinstance(code, int) and 0 <= code <= 255 else 1
        stage, message = str(content.get("stage", "")), str(content.get("message", ""))
        try:
            when = datetime.datetime.fromisoformat(str(content.get("when", "")))
        except ValueError:
            when = None
        return cls(code, f"{stage}: {message}" if code else message, when if when and when.tzinfo else None)


class TpuVmService:
    """Cloud TPU; see `Service`."""

    def __init__(
        self,
        api: GoogleApi,
        *,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.timezone.utc),
    ) -> None:
        """Asks nothing yet.

        Args:
          api: the way to Google.
          now: the moment, with its time zone.
        """
        self._api = api
        self._now = now

    def create(self, request: ApiRequest, submission: str) -> JobStatus:
        """See `Service`.

        Raises:
          UserError: another job has that name.
          ApiError: it was refused, or nobody knows whether it was made.
        """
        resource = resource_of(request)
        answer = self._api.create_once(request, lambda: self._found(resource, submission))
        if "/operations/" in answer.get("name", ""):
            self._check_operation(answer["name"])
        return self.get_requested(resource, request)

    def find(self, project: str, location: str, submission: str) -> JobStatus | None:
        """See `Service`; the latest request of a job that was requested several times."""
        return next((each for each in self.list(project, location) if each.submission == submission), None)

    def get(self, resource: str) -> JobStatus:
        """See `Service`. Of one that has deleted itself only `get_requested` knows."""
        found = self._queued_resource(resource)
        if found is None:
            raise NoSuchJobError(
                f"{resource} does not exist, or no more: where there is a record of the job, its name tells more."
            )
        return self._status(found, self._ended_of(found))

    def get_requested(self, resource: str, request: ApiRequest) -> JobStatus:
        """One job, whether or not it is still there.

        Args:
          resource: of the job's first request, or a further one.
          request: the first, which says where the start-up script tells how it ended.

        Raises:
          UserError: it may not be seen.
          ApiError: an API failed.
        """
        found = self._queued_resource(resource)
        if found is not None:
            return self._status(found, self._ended_of(found))
        gone = {**(request.body or {}), "name": resource, "state": {"state": _GONE}}
        ended = self._ended(parameters(gone))
        return self._status(gone, ended)

    def request_again(self, request: ApiRequest, attempt: int, submission: str) -> JobStatus:
        """Requests a preempted slice again; once only for an attempt, however often it is called.

        Args:
          request: the job's first.
          attempt: which request this is; the first was 1.
          submission: the token of the job's submission.

        Raises:
          UserError: another job has that name.
          ApiError: it was refused, or nobody knows whether it was made.
        """
        earlier = request if attempt == 2 else again(request, attempt - 1)
        self._delete(resource_of(earlier))
        return self.create(again(request, attempt), submission)

    def list(self, project: str, location: str) -> Iterator[JobStatus]:
        """See `Service`; how the trainers did is not looked up."""
        request = ApiRequest(
            "tpu", "GET", f"v2/projects/{project}/locations/{location}/queuedResources", {"pageSize": _LARGEST_PAGE}
        )
        ours = [each for each in self._api.pages(request, "queuedResources") if _labels(each).get(CREATED_BY[0])]
        for found in sorted(ours, key=lambda each: str(each.get("createTime", "")), reverse=True):
            yield self._status(found, None)

    def cancel(self, resource: str) -> None:
        """See `Service`: deletes the queued resource and its machines."""
        found = self._queued_resource(resource)
        if found is not None and _said(found) not in ("FAILED", "SUSPENDED"):
            self._delete(resource)

    def log_filter(self, status: JobStatus) -> str:
        """See `Service`; lines of all requests of a job, and of the start-up scripts."""
        key, value = (SUBMISSION_LABEL, status.submission) if status.submission else (NAME_LABEL, status.name)
        return _log_filter(status.resource, key, value)

    def console_url(self, resource: str) -> str:
        """See `Service`: the project's TPUs, since a queued resource has no page of its own."""
        return f"https://console.cloud.google.com/compute/tpus?project={resource.split('/')[1]}"

    def gcloud_commands(self, resource: str) -> Mapping[str, tuple[str, ...]]:
        """See `Service`; each is what follows `gcloud`."""
        _, project, _, zone, _, name = resource.split("/")
        place = (name, f"--project={project}", f"--zone={zone}")
        lines = _log_filter(resource, NAME_LABEL, job_name(resource))
        return {
            "logs": ("logging", "read", lines, f"--project={project}", "--format=value(jsonPayload.message)"),
            "status": ("compute", "tpus", "queued-resources", "describe", *place),
            "cancel": ("compute", "tpus", "queued-resources", "delete", *place, "--force", "--quiet", "--async"),
        }

    def _found(self, resource: str, submission: str) -> dict[str, Any] | None:
        """The queued resource, if this submission made it."""
        found = self._queued_resource(resource)
        if found is not None and _labels(found).get(SUBMISSION_LABEL) != submission:
            raise UserError(
                f"{resource} exists already and belongs to another submission: give another --name, or delete that one."
            )
        return found

    def _check_operation(self, name: str) -> None:
        """Raises ApiError where a creation that was begun has failed already."""
        request = ApiRequest("tpu", "GET", f"v2/{name}")
        error = self._api.send(request).get("error")
        if error:
            raise ApiError(400, f"code {error.get('code')}", str(error.get("message", "")), request)

    def _queued_resource(self, resource: str) -> dict[str, Any] | None:
        try:
            return self._api.send(ApiRequest("tpu", "GET", f"v2/{resource}"))
        except ApiError as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise UserError(
                    f"{resource} may not be seen ({error.message}): the role roles/tpu.viewer is needed."
                ) from error
            raise

    def _delete(self, resource: str) -> None:
        try:
            self._api.send(ApiRequest("tpu", "DELETE", f"v2/{resource}", {"force": "true"}))
        except ApiError as error:
            if error.status != 404 and not self._is_being_deleted(resource):
                raise

    def _is_being_deleted(self, resource: str) -> bool:
        found = self._queued_resource(resource)
        return found is None or _said(found) == "DELETING"

    def _ended_of(self, found: Mapping[str, Any]) -> _Ended | None:
        """What the start-up script of a queued resource has told, if it has."""
        if _said(found) not in _HAS_RUN:
            return None
        try:
            return self._ended(parameters(found))
        except ValueError:  # Somebody else's: it has no script of ours.
            return None

    def _ended(self, job: Mapping[str, Any]) -> _Ended | None:
        """What the first worker has told of the end, or else any other, if it was of the same submission."""
        place = re.fullmatch(r"gs://([a-z0-9._-]+)/(.+)", str(job["results"]))
        if not place:
            return None
        listing = ApiRequest("storage", "GET", f"storage/v1/b/{place[1]}/o", {"prefix": f"{place[2]}/ended-"})
        names = sorted((str(item["name"]) for item in self._stored(listing).get("items", [])), key=_worker)
        for name in names:
            path = f"storage/v1/b/{place[1]}/o/{quote(name, safe='')}"
            content = self._stored(ApiRequest("storage", "GET", path, {"alt": "media"}))
            if content.get("submission") == job["submission"]:
                return _Ended.of(content)
        return None

    def _stored(self, request: ApiRequest) -> dict[str, Any]:
        """What Cloud Storage has; {} where it is there no more."""
        try:
            return self._api.send(request)
        except ApiError as error:
            if error.status == 404:
                return {}
            raise

    def _status(self, found: Mapping[str, Any], ended: _Ended | None) -> JobStatus:
        labels = _labels(found)
        said = _said(found)
        state = STATES.get(said, State.QUEUED)
        error = str(found.get("state", {}).get("failedData", {}).get("error", {}).get("message", ""))
        if said == _GONE:
            state = State.CANCELLED
            error = "the queued resource is gone, and its start-up script has told nothing of an end"
        elif found.get("state", {}).get("stateInitiator") == "USER" and state is State.PREEMPTED:
            state = State.CANCELLED
        elif state is State.QUEUED and self._is_expired(found):
            state = State.FAILED
            error = "there were no machines within --max_wait_hours"
        if ended:
            state = State.FAILED if ended.exit_code else State.SUCCEEDED
            error = ended.message
        resource = str(found["name"])
        return JobStatus(
            resource,
            labels.get(NAME_LABEL, job_name(resource)),
            state,
            said,
            created=optional_moment(found.get("createTime", "")),
            ended=ended.when if ended else None,
            error=error,
            exit_code=ended.exit_code if ended else None,
            submission=labels.get(SUBMISSION_LABEL, ""),
            details=_details(found),
        )

    def _is_expired(self, found: Mapping[str, Any]) -> bool:
        """Whether a request may not be fulfilled any more, though its state does not say so yet."""
        seconds = str(found.get("queueingPolicy", {}).get("validUntilDuration", "")).removesuffix("s")
        created = optional_moment(found.get("createTime", ""))
        if not seconds or created is None or _said(found) == "PROVISIONING":
            return False
        return (self._now() - created).total_seconds() > float(seconds) + _EXPIRY_SECONDS


def _details(found: Mapping[str, Any]) -> dict[str, str]:
    """What a person may ask for beside: machines, image, results, limit."""
    node = (found.get("tpu", {}).get("nodeSpec") or [{}])[0].get("node", {})
    try:
        job = parameters(found)
    except ValueError:
        job = {}
    hours = f"{job['max_run_seconds'] / 3600:g} h for each request" if job.get("max_run_seconds") else ""
    details = {
        "hardware": node.get("acceleratorType", ""),
        "image": job.get("image", ""),
        "results": job.get("results", ""),
        "provisioning": "spot" if "spot" in found else "reserved" if found.get("reservationName") else "standard",
        "time limit": hours,
    }
    return {name: str(value) for name, value in details.items() if value}


def _said(found: Mapping[str, Any]) -> str:
    return str(found.get("state", {}).get("state", ""))


def _labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of the slice: a queued resource has none itself."""
    specs = found.get("tpu", {}).get("nodeSpec", [])
    labels: Mapping[str, str] = specs[0].get("node", {}).get("labels", {}) if specs else {}
    return labels


def _worker(name: str) -> int:
    """The number of the worker that wrote an object."""
    number = re.search(r"ended-([0-9]{1,6})\.json$", name)
    return int(number[1]) if number else 10**6


def _log_filter(resource: str, key: str, value: str) -> str:
    project = resource.split("/")[1]
    return f'logName="projects/{project}/logs/{LOG}" AND jsonPayload.container.metadata."{key}"="{value}"'
