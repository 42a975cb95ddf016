"""What is told of a job: its record and what its service says, put together. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.records.records import Record, RecordTarget
from launch.services.service import ApiRequest, JobStatus, State

GONE = "gone"
"""The state of a job that its service does not have any more, or never got."""

UNKNOWN = "unknown"
"""The state of a job whose service did not answer."""

REPORT = "report/index.html"
"""The page of a run, in its run directory."""


@dataclass(frozen=True)
class JobFacts:
    """One job.

    Attributes:
      name: the record's, or what the service calls it.
      target: who runs it.
      project: id or number.
      location: region or zone.
      resource: the full name of the latest request; "" where there is none.
      state: a `State`'s value, `GONE` or `UNKNOWN`.
      said: the service's word for that.
      created: when it was submitted; None where nobody tells, here and below.
      started: when the latest request began to run.
      ended: when that ended.
      seconds: how long all requests that the service knows of have run.
      age: seconds from its submission to its end, or until now.
      error: what the service says went wrong, or "".
      hardware: in a few words; "" where it is not known.
      hourly_price: in US dollars.
      record: what is kept of it here.
    """

    name: str
    target: RecordTarget
    project: str
    location: str
    resource: str
    state: str
    said: str = ""
    created: datetime.datetime | None = None
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    seconds: float | None = None
    age: float | None = None
    error: str = ""
    hardware: str = ""
    hourly_price: float | None = None
    record: Record | None = None

    @property
    def dollars(self) -> float | None:
        """What it has cost so far at the hourly price, from the first worker's start on; None where that is unknown."""
        if self.hourly_price is None or (self.seconds is None and self.state != State.QUEUED.value):
            return None
        return self.hourly_price * (self.seconds or 0.0) / 3600

    @property
    def most_dollars(self) -> float | None:
        """What it would have cost by now had it run ever since it was submitted; None where that is unknown."""
        if self.hourly_price is None or self.age is None:
            return None
        return self.hourly_price * self.age / 3600

    @property
    def run_dir(self) -> str:
        """Where the run leaves everything; "" where that is not known."""
        return self.record.run_dir.rstrip("/") if self.record else ""

    @property
    def report(self) -> str:
        """Where the run's page is, once there is one; "" where that is not known."""
        return f"{self.run_dir}/{REPORT}" if self.run_dir else ""

    def to_json(self) -> dict[str, Any]:
        """For programs; moments in ISO 8601."""
        return {
            "name": self.name,
            "target": self.target,
            "project": self.project,
            "location": self.location,
            "resource": self.resource,
            "state": self.state,
            "said": self.said,
            "created": _iso(self.created),
            "started": _iso(self.started),
            "ended": _iso(self.ended),
            "run_seconds": self.seconds,
            "error": self.error,
            "hardware": self.hardware,
            "hourly_price_usd": self.hourly_price,
            "cost_usd": _cents(self.dollars),
            "cost_at_most_usd": _cents(self.most_dollars),
            "run_dir": self.run_dir,
            "report": self.report,
            "recorded": self.record is not None,
            "requests": list(self.record.attempts) if self.record else [],
        }


def facts_of(
    target: RecordTarget, record: Record | None, statuses: Sequence[JobStatus], now: float, *, missing: str = GONE
) -> JobFacts:
    """Puts together what is known of one job.

    Args:
      target: who runs it.
      record: what is kept of it here.
      statuses: what the service says of its requests, which may be none, in any order. Not empty without a record.
      now: seconds since 1970.
      missing: the state where the service says nothing of the latest request.
    """
    latest = _latest(record, statuses)
    resource = latest.resource if latest else record.resource if record else ""
    parts = resource.split("/")
    created = record.created_at if record else latest.created if latest else None
    until = latest.ended.timestamp() if latest and latest.ended else now
    running = [seconds for seconds in (run_seconds(status, now) for status in statuses) if seconds is not None]
    return JobFacts(
        name=record.name if record else latest.name if latest else resource,
        target=target,
        project=record.project if record else parts[1],
        location=record.location if record else parts[3],
        resource=resource,
        state=latest.state.value if latest else missing,
        said=latest.said if latest else "",
        created=created,
        started=latest.started if latest else None,
        ended=latest.ended if latest else None,
        seconds=sum(running) if running else None,
        age=max(0.0, until - created.timestamp()) if created else None,
        error=latest.error if latest else "",
        hardware=hardware_of(record.request) if record else latest.details.get("hardware", "") if latest else "",
        hourly_price=record.hourly_price if record else None,
        record=record,
    )


def run_seconds(status: JobStatus, now: float) -> float | None:
    """How long one request has run; None if it has not begun.

    Args:
      status: of the request.
      now: seconds since 1970.
    """
    if status.started is None:
        return None
    until = status.ended.timestamp() if status.ended else now
    return max(0.0, until - status.started.timestamp())


def hardware_of(request: ApiRequest) -> str:
    """The machines that a request asks for, as in "2 x g2-standard-12 with 1 NVIDIA_L4"; "" where it names none."""
    body = request.body or {}
    if request.api == "tpu":
        nodes = [_at(spec, "node") for spec in _at(body, "tpu").get("nodeSpec", [])]
        return ", ".join(str(node.get("acceleratorType") or _slice(_at(node, "acceleratorConfig"))) for node in nodes)
    pools = _at(body, "jobSpec").get("workerPoolSpecs", [])
    counts: dict[str, int] = {}
    for pool in pools:
        machine = _machine(_at(pool, "machineSpec"))
        counts[machine] = counts.get(machine, 0) + int(pool.get("replicaCount", 1))
    return ", ".join(f"{count} x {machine}" if count > 1 else machine for machine, count in counts.items())


def _machine(spec: Mapping[str, Any]) -> str:
    machine = str(spec.get("machineType", ""))
    if spec.get("acceleratorType"):
        return f"{machine} with {spec.get('acceleratorCount', 1)} {spec['acceleratorType']}"
    return f"{machine} ({spec['tpuTopology']})" if spec.get("tpuTopology") else machine


def _slice(config: Mapping[str, Any]) -> str:
    return f"{config.get('type', '')} {config.get('topology', '')}".strip()


def _at(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _latest(record: Record | None, statuses: Sequence[JobStatus]) -> JobStatus | None:
    if record and record.resource:
        return next((status for status in statuses if status.resource == record.resource), None)
    earliest = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
    return max(statuses, key=lambda status: status.created or earliest, default=None)


def _cents(dollars: float | None) -> float | None:
    return None if dollars is None else round(dollars, 4)


def _iso(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
