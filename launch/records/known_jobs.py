"""Which job somebody means: by its record's name, by the beginning of one, or by its full name at the service."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from launch.records.records import Record, Records, RecordTarget
from launch.services.by_target import target_of
from launch.services.service import JobStatus, Service
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.services.tpu_vm import TpuVmService

_MOST_NAMED = 5
"""Names in a sentence; more would be a list."""


@dataclass(frozen=True)
class KnownJob:
    """A job that can be asked about.

    Attributes:
      target: who runs it.
      resource: its full name there.
      record: what is kept of its submission; None where it was submitted from elsewhere.
    """

    target: RecordTarget
    resource: str
    record: Record | None

    @property
    def label(self) -> str:
        """What a command takes for it: the record's name, or the full one."""
        return self.record.name if self.record else self.resource


def find_job(text: str, records: Records, service_of: Callable[[RecordTarget], Service]) -> KnownJob:
    """The job that a text means.

    Args:
      text: as given on a command line.
      records: of the jobs.
      service_of: gives the service of a target; is asked where a record does not know what its submission made.

    Raises:
      UserError: it means none, or several.
      ApiError: an API failed.
    """
    if not text.strip():
        raise UserError("JOB is empty: give a job's name; python -m launch list shows them.")
    if "/" in text:
        return _by_resource(text, records)
    record = records.load(text) or _by_beginning(text, records)
    if not record.resource:
        record = _with_resource(record, records, service_of(record.target))
    return KnownJob(record.target, record.resource, record)


def status_of(job: KnownJob, service: Service, resource: str = "") -> JobStatus:
    """How a job stands.

    Args:
      job: which one.
      service: runs it.
      resource: of another request than the latest.

    Raises:
      NoSuchJobError: the service does not have it, and nothing else tells of it.
      UserError: it may not be seen.
      ApiError: an API failed.
    """
    resource = resource or job.resource
    if job.record and job.target == "tpu-vm":  # A slice deletes itself; only its request says where it told of its end.
        try:
            return cast("TpuVmService", service).get_requested(resource, job.record.request)
        except ValueError as error:
            raise UserError(f"The record of {job.record.name} is damaged ({error}): ask for {resource}.") from error
    return service.get(resource)


def commands_for(label: str, place: str) -> dict[str, str]:
    """What a person types to go on with a job: "logs", "status" and "cancel".

    Args:
      label: the job's name or full name.
      place: as given by --records; "": the default one.
    """
    records = f" --records={shlex.quote(place)}" if place else ""
    return {verb: f"python -m launch {verb} {label}{records}" for verb in ("logs", "status", "cancel")}


def _by_resource(text: str, records: Records) -> KnownJob:
    target = target_of(text)
    if target is None:
        raise UserError(
            f"{text} is no job: give its name, or all of projects/PROJECT/locations/REGION/customJobs/NUMBER (Vertex "
            "AI), …/queuedResources/NAME (Cloud TPU) or …/builds/ID (Cloud Build)."
        )
    record = next((each for each in records.all() if text in (each.resource, *each.attempts)), None)
    return KnownJob(target, text, record)


def _by_beginning(text: str, records: Records) -> Record:
    known = records.all()
    fitting = [record for record in known if record.name.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"{text} is the beginning of {len(fitting)} jobs' names: {_named(fitting)}.")
    near = difflib.get_close_matches(text, [record.name for record in known], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(
        f"No job is recorded as {text}: {hint}python -m launch list shows those that are; --records names another "
        "place."
    )


def _named(records: Sequence[Record]) -> str:
    names = [record.name for record in records[:_MOST_NAMED]]
    return ", ".join([*names, "…"] if len(records) > _MOST_NAMED else names)


def _with_resource(record: Record, records: Records, service: Service) -> Record:
    """Completes a record that was written before its job was made and not after."""
    found = service.find(record.project, record.location, record.submission)
    if found is None:
        raise UserError(
            f"{record.name} was about to be submitted at {record.created}, and {record.location} has no such job: "
            "submit it again, under another --name."
        )
    record = record.requested(found.resource)
    records.save(record)
    return record
