"""What holds for records wherever they are: what may be written, and what is not overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterable

from launch.jobs.job import NAME_PATTERN
from launch.records.records import Record
from trainer.config_values import credentials_problem
from trainer.errors import UserError

LARGEST = 2**20
"""Bytes; the largest part of a record, a start-up script, may have 256 KiB (Compute Engine's limit for a value of
metadata, 2026-11)."""

ENDING = ".json"
"""Of a record's file, behind its name."""


def as_bytes(record: Record) -> bytes:
    """The content of a record's file."""
    return (json.dumps(record.to_json(), indent=2) + "\n").encode()


def check(record: Record) -> None:
    """Refuses what must not be written.

    Raises:
      UserError: the name is no file's, or there are secrets.
    """
    if not NAME_PATTERN.fullmatch(record.name):
        raise UserError(f"{record.name!r} is no name of a job: lower-case letters, digits and dashes, at most 50.")
    for value in (record.image, record.run_dir, *record.trainer_flags):
        problem = credentials_problem(value)
        if problem:
            raise UserError(f"What is submitted as {record.name} {problem}.")


def check_is_earlier(place: str, content: bytes, record: Record) -> None:
    """Refuses to replace what is no earlier record of the same submission.

    Args:
      place: of what is there.
      content: of that.
      record: is to take its place.

    Raises:
      UserError: it is something else.
    """
    try:
        earlier = Record.from_json(content, record.name)
    except ValueError as error:
        raise UserError(f"{place} is in the way ({error}): move it, or give the job another name.") from None
    if earlier.submission != record.submission:
        raise UserError(f"A job named {record.name} was submitted already ({place}): give this one another --name.")


def newest_first(records: Iterable[Record | None]) -> list[Record]:
    """The records that could be read, in the order of `launch.records.records.Records.all`."""
    found = [record for record in records if record is not None]
    return sorted(found, key=lambda record: (record.created_at, record.name), reverse=True)


def passed_over(place: str, error: Exception) -> str:
    """What is told of a file that is no record, for a reason."""
    return f"{place} is passed over: {error}."
