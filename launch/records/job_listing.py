"""The jobs that records and services know of, put together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from launch.google.api_errors import ApiError, sentence
from launch.records.job_access import JobAccess
from launch.records.job_facts import GONE, UNKNOWN, JobFacts, facts_of
from launch.records.known_jobs import KnownJob, status_of
from launch.records.records import Record, RecordTarget
from launch.services.service import JobStatus, NoSuchJobError, State
from trainer.errors import UserError

_MOST_LISTED = 10_000
"""Jobs of one service in one place; whoever has more is told, and an endless list ends."""

_CONNECTIONS = 8
"""Services that are asked at the same time."""


class Place(NamedTuple):
    """Where a service lists jobs."""

    target: RecordTarget
    project: str
    location: str

    def __str__(self) -> str:
        return f"{self.target} in {self.location} of {self.project}"


@dataclass(frozen=True)
class Answer:
    """What a service said: its jobs, or why it said nothing.

    Attributes:
      place: which service, and where.
      jobs: that it has.
      error: a sentence; "" where it answered.
      passes: whether asking again may help.
    """

    place: Place
    jobs: Sequence[JobStatus] = ()
    error: str = ""
    passes: bool = False


def places_of(records: Iterable[Record]) -> list[Place]:
    """Whom to ask about the jobs of records."""
    return list(dict.fromkeys(Place(record.target, record.project, record.location) for record in records))


def ask_all(access: JobAccess, places: Sequence[Place]) -> list[Answer]:
    """Asks all services at once; one that fails does not hide the others."""
    if not places:
        return []
    try:
        access.api()
    except UserError as error:  # Without credentials nobody can be asked.
        return [Answer(place, error=str(error)) for place in places]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(lambda place: _ask(access, place), places))


def joined(records: Sequence[Record], answers: Sequence[Answer], now: float) -> list[JobFacts]:
    """Every job once, newest first, whether it is known by its record, its service or both.

    Args:
      records: of the jobs.
      answers: of the services.
      now: seconds since 1970.
    """
    silent = {answer.place for answer in answers if answer.error}
    by_submission: dict[tuple[str, str], list[JobStatus]] = {}
    by_resource: dict[str, JobStatus] = {}
    for answer in answers:
        for status in answer.jobs:
            by_resource[status.resource] = status
            by_submission.setdefault((answer.place.target, status.submission), []).append(status)
    jobs = []
    recorded: set[str] = set()
    for record in records:
        mine = [by_resource[name] for name in record.attempts if name in by_resource]
        mine += [status for status in by_submission.get((record.target, record.submission), []) if status not in mine]
        recorded.update(status.resource for status in mine)
        missing = UNKNOWN if Place(record.target, record.project, record.location) in silent else GONE
        jobs.append(facts_of(record.target, record, mine, now, missing=missing))
    for answer in answers:
        others = (status for status in answer.jobs if status.resource not in recorded)
        jobs += [facts_of(answer.place.target, None, [status], now) for status in others]
    return sorted(jobs, key=lambda job: job.created.timestamp() if job.created else 0.0, reverse=True)


def look_up_slices(jobs: Sequence[JobFacts], access: JobAccess) -> tuple[list[JobFacts], list[Answer]]:
    """Asks how slices ended that are not listed any more, or not with how their trainers did: each told its own end.

    Args:
      jobs: as `joined` gives them.
      access: leads to Cloud TPU.

    Returns:
      The jobs with what was found out, and whom nobody could ask.
    """
    unclear = (GONE, State.PREEMPTED.value)
    asked = [job for job in jobs if job.target == "tpu-vm" and job.record and job.resource and job.state in unclear]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        answers = dict(zip((job.resource for job in asked), pool.map(lambda job: _look_up(job, access), asked)))
    now = access.clock()
    found = [
        facts_of(job.target, job.record, answers[job.resource].jobs, now)
        if job.resource in answers and answers[job.resource].jobs
        else job
        for job in jobs
    ]
    return found, [answer for answer in answers.values() if answer.error]


def _look_up(job: JobFacts, access: JobAccess) -> Answer:
    place = Place(job.target, job.project, job.location)
    try:
        return Answer(place, [status_of(KnownJob(job.target, job.resource, job.record), access.service(job.target))])
    except NoSuchJobError:
        return Answer(place)
    except ApiError as error:
        return Answer(place, error=f"{place}: {sentence(error)}", passes=error.passes)
    except UserError as error:
        return Answer(place, error=str(error))


def _ask(access: JobAccess, place: Place) -> Answer:
    try:
        listed = access.service(place.target).list(place.project, place.location)
        jobs = list(itertools.islice(listed, _MOST_LISTED + 1))
    except ApiError as error:
        return Answer(place, error=f"{place}: {sentence(error)}", passes=error.passes)
    except UserError as error:
        return Answer(place, error=str(error))
    if len(jobs) > _MOST_LISTED:
        return Answer(place, jobs[:-1], f"{place}: only the first {_MOST_LISTED} jobs are shown.")
    return Answer(place, jobs)
