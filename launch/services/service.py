"""What a cloud service does for a job, whichever it is: the face that the commands of `launch` know.

`launch.services.vertex`, `launch.services.tpu_vm` and `launch.services.cloud_build` are the three behind it.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainer.errors import EXIT_DONE, UserError


class State(enum.Enum):
    """How a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.PREEMPTED)


@dataclass(frozen=True)
class ApiRequest:
    """One request to a Google API, as it is sent.

    Attributes:
      api: as gcloud names it: aiplatform, tpu, cloudbuild, logging, storage, artifactregistry, serviceusage, ...
      method: of HTTP.
      path: from the version on, such as "v1/projects/P/locations/R/customJobs".
      query: parameters behind the path; several values of one that is repeated.
      body: as JSON; None: none.
    """

    api: str
    method: str
    path: str
    query: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class JobStatus:
    """A job as its service tells it.

    Attributes:
      resource: the full name, such as "projects/P/locations/R/customJobs/123".
      name: the job's own.
      state: how it stands.
      said: the service's word for that, such as "JOB_STATE_PENDING".
      created: when it was created; None where the service does not tell, here and below.
      started: when the first worker began.
      ended: when it ended.
      error: what the service says went wrong, or "".
      exit_code: of the trainer, where the service tells.
      submission: the token of its submission, or "".
      details: whatever else the service tells that a person may ask for, by name.
    """

    resource: str
    name: str
    state: State
    said: str
    created: datetime.datetime | None = None
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    error: str = ""
    exit_code: int | None = None
    submission: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def launcher_exit_code(self) -> int:
        """What `launch logs` and `--wait` end with: 0, the trainer's own exit code, or 1."""
        if self.state is State.SUCCEEDED:
            return EXIT_DONE
        return self.exit_code or 1


@dataclass(frozen=True)
class LogLine:
    """One line that a worker printed.

    Attributes:
      moment: when, as the service noted it; lines are told apart by this and `insert_id`.
      insert_id: Cloud Logging's id of the entry.
      worker: who printed it, such as "workerpool0-0".
      severity: of Cloud Logging, such as "ERROR"; "DEFAULT" where none is given.
      text: the line.
    """

    moment: datetime.datetime
    insert_id: str
    worker: str
    severity: str
    text: str


class NoSuchJobError(UserError):
    """The service has no job of that name, or has it no more."""


class Service(Protocol):
    """One cloud service. All methods but `log_filter`, `console_url` and `gcloud_commands` ask it."""

    def create(self, request: ApiRequest, submission: str) -> JobStatus:
        """Creates a job, exactly once, though answers get lost.

        Args:
          request: as the target's `create_request` makes it.
          submission: the token that is among the request's labels or tags.

        Raises:
          ApiError: it was refused, or nobody knows whether it was made.
        """

    def find(self, project: str, location: str, submission: str) -> JobStatus | None:
        """The job that a submission made; None if it made none."""

    def get(self, resource: str) -> JobStatus:
        """One job.

        Raises:
          NoSuchJobError: there is none of that name.
          UserError: it may not be seen.
        """

    def list(self, project: str, location: str) -> Iterator[JobStatus]:
        """The jobs that `launch` made there, the newest first where the service orders them."""

    def cancel(self, resource: str) -> None:
        """Asks for a job to be ended; returns before it is. One that has ended already stays as it is."""

    def log_filter(self, status: JobStatus) -> str:
        """The Cloud Logging filter that a job's lines fit."""

    def console_url(self, resource: str) -> str:
        """The page of the job in Google's console."""

    def gcloud_commands(self, resource: str) -> Mapping[str, tuple[str, ...]]:
        """gcloud's own commands for "logs", "status" and "cancel", where it has one."""
