"""Records of what was submitted: which job, where, with what, and how to ask for it again.

Without one, a job whose terminal was closed is an id in a console. A record is a JSON file, NAME.json, in a folder or
under a gs:// address, so that several people and machines see the same jobs. It is written before the job is created
(`resource` is "" then) and again after.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from launch.jobs.job import NAME_PATTERN, Provisioning
from launch.services.service import ApiRequest
from trainer.errors import UserError
from trainer.terminal import printable

if TYPE_CHECKING:
    from launch.google.google_api import GoogleApi

RecordTarget = Literal["vertex", "tpu-vm", "cloud-build"]
"""Who runs what was submitted; an image's build is kept track of too."""

PLACE_VARIABLE = "HUB_TRAINER_JOBS"
"""The environment variable that names where records are."""

FORMAT = "hub-trainer job 1"
"""What a record's file says it is; another number stands for fields that mean something else."""

RESOURCE_PATTERN = re.compile(
    r"projects/(?P<project>[a-z0-9.:-]+)/locations/(?P<location>[a-z0-9-]+)/(?P<collection>\w+)/[A-Za-z0-9_-]+"
)
"""The full name of a job at its service. What fits changes nothing but the end of an address that it is put into."""


@dataclass(frozen=True)
class Record:
    """One submission.

    Attributes:
      name: the job's; fits `launch.jobs.job.NAME_PATTERN`.
      target: who runs it.
      project: id of the Google Cloud project.
      location: the region or zone.
      resource: the full name at the service of the latest request; "" until it is known.
      submission: the token that the job is labelled with.
      created: when it was submitted, ISO 8601, UTC.
      request: as sent, for another request of a preempted slice.
      attempts: the resources requested so far, oldest first.
      run_dir: where the run leaves everything.
      config: the trainer's, by field.
      trainer_flags: what `trainer.task` is given.
      image: the container.
      commit: of the working tree that the image was built from; "": not known.
      clean: whether that tree was as committed; None: not known.
      hourly_price: of all machines together in US dollars; None: not known.
      max_run_hours: after which it is ended.
      max_requests: how often a slice is requested in all when it is preempted.
      provisioning: how the machines are come by.
      preflight: what the check before the bill said; "": there was none.
    """

    name: str
    target: RecordTarget
    project: str
    location: str
    submission: str
    created: str
    request: ApiRequest
    resource: str = ""
    attempts: tuple[str, ...] = ()
    run_dir: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    trainer_flags: tuple[str, ...] = ()
    image: str = ""
    commit: str = ""
    clean: bool | None = None
    hourly_price: float | None = None
    max_run_hours: float = 0.0
    max_requests: int = 1
    provisioning: Provisioning = "standard"
    preflight: str = ""

    @property
    def created_at(self) -> datetime.datetime:
        """`created`, with its time zone."""
        moment = datetime.datetime.fromisoformat(re.sub("Z$", "+00:00", self.created))
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)

    def requested(self, resource: str) -> Record:
        """The same record after another request, which made that resource."""
        attempts = self.attempts if resource in self.attempts else (*self.attempts, resource)
        return replace(self, resource=resource, attempts=attempts)

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: bytes, name: str) -> Record:
        """Reads what `to_json` gave.

        Args:
          content: of the file.
          name: of the job that the file is named after.

        Raises:
          ValueError: it is no such record; the message says why.
        """
        try:
            values = json.loads(content)
        except ValueError:  # Of UTF-8 and of JSON.
            raise ValueError("it is no JSON") from None
        found = values.pop("format", None) if isinstance(values, dict) else None
        if found != FORMAT:
            is_another = isinstance(found, str) and found.startswith(FORMAT.rstrip("1"))
            raise ValueError("another version of launch wrote it" if is_another else "it says nothing of a job")
        record = _parsed(values)
        if record.name != name:
            raise ValueError(f"it is the record of {record.name}")
        problem = _problem(record)
        if problem:
            raise ValueError(problem)
        return record


class Records(Protocol):
    """The records in one place."""

    def save(self, record: Record) -> None:
        """Keeps a record, in place of an earlier one of the same submission.

        Raises:
          UserError: the name is another job's already, or is none; or nothing can be written there.
          ApiError: Cloud Storage failed.
        """

    def forget(self, record: Record) -> None:
        """Removes the record of a submission that made no job; another submission's of that name stays.

        Raises:
          UserError: it cannot be removed.
          ApiError: Cloud Storage failed.
        """

    def load(self, name: str) -> Record | None:
        """The record of that job; None where there is none that can be read.

        Raises:
          UserError: the place cannot be read.
          ApiError: Cloud Storage failed.
        """

    def all(self) -> list[Record]:
        """Every record, newest first. A file that is damaged or no record is named, passed over, and left alone.

        Raises:
          UserError: the place cannot be read.
          ApiError: Cloud Storage failed.
        """


def default_place(environment: Mapping[str, str]) -> str:
    """Where records are kept if nobody says so.

    Args:
      environment: `PLACE_VARIABLE` names the place; XDG_DATA_HOME the folder for it, if it is absolute
        (XDG Base Directory Specification 0.8).
    """
    named = environment.get(PLACE_VARIABLE, "")
    if named:
        return named
    data_home = environment.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):
        data_home = os.path.expanduser("~/.local/share")
    return os.path.join(data_home, "hub-trainer", "jobs")


def add_records_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --records, whose value `open_records` takes."""
    parser.add_argument(
        "--records",
        default="",
        metavar="PLACE",
        help=f"where the records of jobs are: a folder or gs://BUCKET/PREFIX (default: ${PLACE_VARIABLE}, or "
        "~/.local/share/hub-trainer/jobs)",
    )


def print_warning(sentence: str) -> None:
    """Prints to standard error, on one line."""
    print(f"warning: {printable(sentence, sys.stderr.encoding)}", file=sys.stderr)


def open_records(place: str, api: Callable[[], GoogleApi], *, warn: Callable[[str], None] = print_warning) -> Records:
    """The records of a place; reads nothing yet.

    Args:
      place: a folder, which need not be there yet, or gs://BUCKET[/PREFIX].
      api: gives the way to Cloud Storage; is called where it is needed.
      warn: is told of files that are passed over.

    Raises:
      UserError: the place is neither.
    """
    from launch.records.record_bucket import BucketRecords
    from launch.records.record_folder import FolderRecords

    if place.startswith("gs://"):
        return BucketRecords(place, api, warn)
    if not place or "://" in place or "\0" in place:
        raise UserError(f"--records={place}: must be a folder, or gs://BUCKET/PREFIX.")
    return FolderRecords(os.path.abspath(os.path.expanduser(place)), warn)


@cache
def _reader() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def _parsed(values: dict[str, Any]) -> Record:
    from pydantic import ValidationError

    try:
        record: Record = _reader().validate_python(values)
        return record
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _problem(record: Record) -> str:
    """What is wrong with a record beside the types of its values; "" if nothing is.

    It may come from a bucket that others write to: what is put into addresses, and sent again, must be what it seems.
    """
    try:
        record.created_at  # noqa: B018 (it raises)
    except ValueError:
        return f"created: {record.created} is no time"
    place = RESOURCE_PATTERN.fullmatch(f"projects/{record.project}/locations/{record.location}/jobs/any")
    if not NAME_PATTERN.fullmatch(record.name) or not place:
        return "its name, project or location is none"
    for resource in (*record.attempts, *filter(None, [record.resource])):
        if not RESOURCE_PATTERN.fullmatch(resource):
            return f"{resource} is the name of no job"
    parent = re.escape(f"projects/{record.project}/locations/{record.location}")
    if record.request.method != "POST" or not re.fullmatch(rf"v\w+/{parent}/\w+", record.request.path):
        return "its request creates no job"
    return ""
