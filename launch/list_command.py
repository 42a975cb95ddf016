"""Lists the jobs that were submitted, newest first.

    python -m launch list
    python -m launch list --project=P --region=us-central1 --zone=us-west4-a     those too that others submitted there
    python -m launch list --all --json

Records say which jobs there are, and the services how they stand: all services that records name are asked. What a job has
cost is its hourly price, where it is known, for the time since its first worker began. The exit code is 2, or 75 if trying
again may help, when a service did not answer; its jobs are "unknown" then.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from launch.job_access import (
    JobAccess,
    add_common_options,
    as_sentences,
    open_access,
    refuse_trainer_flags,
    sentence_of,
)
from launch.option_types import whole_number
from launch.records import print_warning
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.wording import counted, duration

if TYPE_CHECKING:
    from launch.job_facts import JobFacts
    from launch.records import Record, RecordTarget
    from launch.service import JobStatus
    from launch.tables import Look

NAME = "list"
SUMMARY = "list the jobs that were submitted"

DEFAULT_LIMIT = 25
"""Jobs: a screen."""

_MOST_LISTED = 10_000
"""Jobs of one service in one place; whoever has more is told, and an endless list ends."""

_CONNECTIONS = 8
"""Services that are asked at the same time."""

TITLES = ("NAME", "STATE", "AGE", "RAN", "COST", "TARGET", "LOCATION", "HARDWARE")


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    parser.add_argument("--project", default="", help="list what runs there too, whoever submitted it")
    parser.add_argument("--region", default="", help="of that project, for Vertex AI and Cloud Build (default: gcloud's)")
    parser.add_argument("--zone", default="", help="of that project, for Cloud TPU (default: gcloud's)")
    parser.add_argument(
        "--limit",
        type=whole_number("--limit", 1, 1_000_000),
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"how many jobs at most (default: {DEFAULT_LIMIT})",
    )
    parser.add_argument("--all", action="store_true", help="all jobs, whatever --limit says")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_common_options(parser)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Prints the list.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--": nothing.

    Returns:
      The exit code; see the module's head.

    Raises:
      UserError: the records cannot be read, or an option is not accepted.
    """
    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        records = access.records.all()
        answers = ask_all(access, places(records, options, os.environ))
    jobs = joined(records, answers, access.clock())
    shown = jobs if options.all else jobs[: options.limit]
    silent = [answer for answer in answers if answer.error]
    if options.json:
        _print_json(shown, silent, len(jobs))
    else:
        _print_jobs(shown, len(jobs), access)
    for sentence in dict.fromkeys(answer.error for answer in silent):  # Missing credentials are missing everywhere.
        print_warning(sentence)
    if not silent:
        return EXIT_DONE
    return EXIT_PREEMPTED if all(answer.passes for answer in silent) else EXIT_USER


def places(records: Iterable[Record], options: argparse.Namespace, environment: Mapping[str, str]) -> list[Place]:
    """Whom to ask: the services of the records, and those that the options name.

    Raises:
      UserError: a place is asked for, and its project or all of its locations are not given.
    """
    from launch.defaults import gcloud_default

    found = {Place(record.target, record.project, record.location): None for record in records}
    given = {name: getattr(options, name) for name in ("project", "region", "zone")}
    if not any(given.values()):
        return list(found)
    project, region, zone = (value or gcloud_default(name, environment) for name, value in given.items())
    if not project:
        raise UserError("No project is given, and gcloud is set to none: add --project=ID.")
    if not (region or zone):
        raise UserError(f"--project={project}: jobs are in regions and zones; add --region or --zone.")
    if region:
        found.update({Place("vertex", project, region): None, Place("cloud-build", project, region): None})
    if zone:
        found[Place("tpu-vm", project, zone)] = None
    return list(found)


def ask_all(access: JobAccess, places: Sequence[Place]) -> list[Answer]:
    """Asks all services at once; one that fails does not hide the others."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(lambda place: _ask(access, place), places))


def joined(records: Sequence[Record], answers: Sequence[Answer], now: float) -> list[JobFacts]:
    """Every job once, newest first, whether it is known by its record, its service or both.

    Args:
      records: of the jobs.
      answers: of the services.
      now: seconds since 1970.
    """
    from launch.job_facts import GONE, UNKNOWN, facts_of

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


def _ask(access: JobAccess, place: Place) -> Answer:
    from launch.google_api import ApiError

    try:
        listed = access.service(place.target).list(place.project, place.location)
        jobs = list(itertools.islice(listed, _MOST_LISTED + 1))
    except ApiError as error:
        return Answer(place, error=f"{place}: {sentence_of(error)}", passes=error.passes)
    except UserError as error:
        return Answer(place, error=str(error))
    if len(jobs) > _MOST_LISTED:
        return Answer(place, jobs[:-1], f"{place}: only the first {_MOST_LISTED} jobs are shown.")
    return Answer(place, jobs)


def _print_json(jobs: Sequence[JobFacts], silent: Sequence[Answer], total: int) -> None:
    from launch.tables import print_json

    unanswered = [{**answer.place._asdict(), "error": answer.error} for answer in silent]
    print_json({"jobs": [job.to_json() for job in jobs], "unanswered": unanswered, "total": total})


def _print_jobs(jobs: Sequence[JobFacts], total: int, access: JobAccess) -> None:
    from launch.tables import look_of, print_lines, table

    if not jobs and not access.quiet:
        print_lines(["No jobs are recorded here; --project with --region or --zone lists what runs there."])
    if not jobs:
        return
    look = look_of(sys.stdout, os.environ)
    now = access.clock()
    rows = [_row(job, now) for job in jobs]
    print_lines(table(TITLES, rows, TITLES.index("STATE"), look) or _blocks(rows, look))
    if total > len(jobs) and not access.quiet:
        print_lines([f"{counted(total - len(jobs), 'older job')} not shown; --all shows all."])


def _row(job: JobFacts, now: float) -> tuple[str, ...]:
    """The cells of a job; "-" for what is not known."""
    age = duration(max(0.0, now - job.created.timestamp())) if job.created else "-"
    ran = "-" if job.seconds is None else duration(job.seconds)
    cost = "-" if job.dollars is None else f"${job.dollars:,.2f}"
    return (job.name, job.state, age, ran, cost, job.target, job.location, job.hardware or "-")


def _blocks(rows: Sequence[Sequence[str]], look: Look) -> list[str]:
    """Two or more lines for each job, for a narrow terminal."""
    from launch.tables import folded

    lines = []
    for name, state, age, ran, cost, *where in rows:
        lines.append(f"{look.text(name)}  {look.state(state)}")
        facts = [f"{age} old", *([f"ran {ran}"] if ran != "-" else []), *([cost] if cost != "-" else [])]
        lines += folded("  ", ", ".join([*facts, *(cell for cell in where if cell != "-")]), look)
    return lines
