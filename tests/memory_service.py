"""A service in memory whose jobs go through scripted states, and a clock that goes on when somebody sleeps."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from launch.google.api_errors import ApiError
from launch.records.records import Record
from launch.services.service import ApiRequest, JobStatus, LogLine, NoSuchJobError, State

START = datetime.datetime(2026, 11, 22, 17, 0, tzinfo=datetime.timezone.utc)
PARENT = "projects/my-project/locations/us-central1"
JOB = f"{PARENT}/customJobs/123"

Event = State | Exception | type[KeyboardInterrupt]


@dataclass
class Time:
    """A clock that only sleeping moves."""

    seconds: float = START.timestamp()

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def moment(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.seconds, datetime.timezone.utc)


@dataclass
class MemoryService:
    """A service.

    Attributes:
      time: dates what happens.
      jobs: by their resources.
      scripts: what the next looks at a job find, or fail with; the last state stays.
      cancelled: resources that were asked to end; they are CANCELLED two looks later.
      list_error: what `list` fails with.
      created: requests that came.
    """

    time: Time = field(default_factory=Time)
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    scripts: dict[str, list[Event]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    list_error: Exception | None = None
    created: list[ApiRequest] = field(default_factory=list)

    def add(self, *events: Event, resource: str = JOB, **fields: object) -> JobStatus:
        """Makes a job; `events` are its script, the first is its state already."""
        first = events[0] if events and isinstance(events[0], State) else State.RUNNING
        status = JobStatus(resource, "flowers", first, f"JOB_STATE_{first.name}", created=self.time.moment())
        self.jobs[resource] = replace(status, **fields)  # type: ignore[arg-type]
        self.scripts[resource] = list(events)
        return self.jobs[resource]

    def create(self, request: ApiRequest, submission: str) -> JobStatus:
        self.created.append(request)
        name = request.query.get("queuedResourceId", "new")
        resource = f"{request.path.partition('/')[2]}/{name}"
        self.add(State.QUEUED, State.RUNNING, State.SUCCEEDED, resource=resource, name=name, submission=submission)
        return self.jobs[resource]

    def find(self, project: str, location: str, submission: str) -> JobStatus | None:
        return next((job for job in self.list(project, location) if job.submission == submission), None)

    def get(self, resource: str) -> JobStatus:
        if resource not in self.jobs:
            raise NoSuchJobError(f"There is no job {resource}.")
        script = self.scripts[resource]
        if script:
            event = script.pop(0)
            if not isinstance(event, State):
                raise event
            self._move(resource, event)
        return self.jobs[resource]

    def _move(self, resource: str, state: State) -> None:
        job = self.jobs[resource]
        started = job.started or (None if state is State.QUEUED else self.time.moment())
        ended = job.ended or (self.time.moment() if state.has_ended else None)
        self.jobs[resource] = replace(job, state=state, said=f"JOB_STATE_{state.name}", started=started, ended=ended)

    def list(self, project: str, location: str) -> Iterator[JobStatus]:
        if self.list_error:
            raise self.list_error
        parent = f"projects/{project}/locations/{location}/"
        yield from [job for name, job in self.jobs.items() if name.startswith(parent)]

    def cancel(self, resource: str) -> None:
        self.cancelled.append(resource)
        self.scripts[resource] = [State.STOPPING, State.CANCELLED]

    def log_filter(self, status: JobStatus) -> str:
        return f'resource.labels.job_id="{status.resource}"'

    def console_url(self, resource: str) -> str:
        return f"https://console.cloud.google.com/{resource}"

    def gcloud_commands(self, resource: str) -> Mapping[str, tuple[str, ...]]:
        return {"status": ("ai", "custom-jobs", "describe", resource)}


class MemoryLog:
    """A log of which each look finds the next part."""

    def __init__(self, *parts: list[str] | Exception) -> None:
        self.parts = list(parts)
        self.looks = 0

    def new_lines(self) -> Iterator[LogLine]:
        self.looks += 1
        part = self.parts.pop(0) if self.parts else []
        if isinstance(part, Exception):
            raise part
        for text in part:
            worker, _, said = text.partition(": ")
            yield LogLine(START, text, worker, "DEFAULT", said)


def unavailable(status: int = 503, message: str = "try later") -> ApiError:
    """What an API fails with."""
    return ApiError(status, "UNAVAILABLE", message, ApiRequest("aiplatform", "GET", "v1/x"))


def record(name: str = "flowers", **changes: object) -> Record:
    """A record of the job `JOB`."""
    request = ApiRequest("aiplatform", "POST", f"v1/{PARENT}/customJobs", {}, {"displayName": name})
    made = Record(
        name=name,
        target="vertex",
        project="my-project",
        location="us-central1",
        submission=f"token-{name}",
        created=START.isoformat(),
        request=request,
        run_dir="gs://bucket/flowers",
        config={"epochs": 3, "splits": [75, 15, 10]},
        trainer_flags=("--epochs=3",),
        image="us-central1-docker.pkg.dev/my-project/hub-trainer/trainer-gpu:abc",
        commit="abc",
        clean=True,
        hourly_price=1.5,
        max_run_hours=24.0,
        max_requests=3,
        provisioning="spot",
    )
    return replace(made, **changes)  # type: ignore[arg-type]
