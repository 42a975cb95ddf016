"""Lists the jobs that were submitted, newest first.

    python -m launch list
    python -m launch list --project=P --region=us-central1 --zone=us-west4-a     those too that others submitted there
    python -m launch list --all --json

Records say which jobs there are, and the services how they stand: all services that records name are asked. What a job
has cost is its hourly price, where it is known, for the time since its first worker began. When a service does not
answer, its jobs are "unknown", and the exit code is 75 if trying again may help, otherwise 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from launch.option_types import whole_number
from launch.records.job_access import (
    JobAccess,
    add_common_options,
    as_sentences,
    open_access,
    refuse_trainer_flags,
)
from launch.records.records import RESOURCE_PATTERN, print_warning
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.wording import counted

if TYPE_CHECKING:
    from launch.records.job_facts import JobFacts
    from launch.records.job_listing import Answer, Place
    from launch.tables import Look

NAME = "list"
SUMMARY = "list the jobs that were submitted"

DEFAULT_LIMIT = 25
"""Jobs: a screen."""

TITLES = ("NAME", "STATE", "AGE", "RAN", "COST", "TARGET", "LOCATION", "HARDWARE")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    parser.add_argument("--project", default="", help="list what runs there too, whoever submitted it")
    parser.add_argument(
        "--region", default="", help="of that project, for Vertex AI and Cloud Build (default: gcloud's)"
    )
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
    from launch.records.job_listing import ask_all, joined, look_up_slices, places_of

    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        records = access.records.all()
        places = [*dict.fromkeys([*places_of(records), *_given_places(options, os.environ)])]
        answers = ask_all(access, places)
        jobs = joined(records, answers, access.clock())
        shown, answers_on_slices = look_up_slices(jobs if options.all else jobs[: options.limit], access)
    silent = [answer for answer in (*answers, *answers_on_slices) if answer.error]
    if options.json:
        _print_json(shown, silent, len(jobs))
    else:
        _print_jobs(shown, len(jobs), access)
    for sentence in dict.fromkeys(answer.error for answer in silent):  # Missing credentials are missing everywhere.
        print_warning(sentence)
    if not silent:
        return EXIT_DONE
    return EXIT_PREEMPTED if all(answer.passes for answer in silent) else EXIT_USER


def _given_places(options: argparse.Namespace, environment: Mapping[str, str]) -> list[Place]:
    """Whom the options name.

    Raises:
      UserError: a place is asked for, and its project or all of its locations are not given.
    """
    from launch.jobs.defaults import gcloud_default
    from launch.records.job_listing import Place

    given = {name: getattr(options, name) for name in ("project", "region", "zone")}
    if not any(given.values()):
        return []
    project, region, zone = (value or gcloud_default(name, environment) for name, value in given.items())
    if not project:
        raise UserError("No project is given, and gcloud is set to none: add --project=ID.")
    if not (region or zone):
        raise UserError(f"--project={project}: jobs are in regions and zones; add --region or --zone.")
    for location in filter(None, (region, zone)):
        if not RESOURCE_PATTERN.fullmatch(f"projects/{project}/locations/{location}/jobs/any"):
            raise UserError(f"{location} of {project!r} is no place: give --project=ID with --region or --zone.")
    in_region = [Place("vertex", project, region), Place("cloud-build", project, region)] if region else []
    return [*in_region, *([Place("tpu-vm", project, zone)] if zone else [])]


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
    from launch.records.job_facts import GONE, UNKNOWN

    age = rough(max(0.0, now - job.created.timestamp())) if job.created else "-"
    ran = "-" if job.seconds is None else rough(job.seconds)
    cost = "-" if job.dollars is None else f"${job.dollars:,.2f}"
    if cost == "-" and job.most_dollars is not None and job.state not in (GONE, UNKNOWN):
        cost = f"<${job.most_dollars:,.2f}"
    return (job.name, job.state, age, ran, cost, job.target, job.location, job.hardware or "-")


def rough(seconds: float) -> str:
    """How long something took, as in "45 s", "12 min", "3 h 05 min" and "4 d"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{seconds / 86400:.0f} d"


def _blocks(rows: Sequence[Sequence[str]], look: Look) -> list[str]:
    """Two or more lines for each job, for a narrow terminal."""
    from launch.tables import folded

    lines = []
    for name, state, age, ran, cost, *where in rows:
        facts = [state, f"{age} old", *([f"ran {ran}"] if ran != "-" else []), *([cost] if cost != "-" else [])]
        first, *others = folded("  ", ", ".join([*facts, *(cell for cell in where if cell != "-")]), look)
        lines += [look.text(name), first.replace(state, look.state(state), 1), *others]
    return lines
