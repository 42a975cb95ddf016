"""Tells how a job stands.

    python -m launch status JOB
    python -m launch status JOB --wait      follows its states to its end, and ends with its exit code
    python -m launch status JOB --json

With --wait, a TPU slice that is preempted is requested again, as often as --max_requests of the submission says.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from launch.records.job_access import (
    JobAccess,
    add_common_options,
    add_job_argument,
    as_sentences,
    open_access,
    refuse_trainer_flags,
)
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED

if TYPE_CHECKING:
    from launch.records.job_facts import JobFacts
    from launch.records.known_jobs import KnownJob
    from launch.services.service import JobStatus, Service

NAME = "status"
SUMMARY = "tell how a job stands, or wait for its end"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_job_argument(parser)
    parser.add_argument("--wait", action="store_true", help="wait until it has ended")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_common_options(parser)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Prints the job.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--": nothing.

    Returns:
      0; with --wait, the job's exit code, or 75 where the waiting ended first.

    Raises:
      UserError: there is no such job, or it may not be seen.
    """
    from launch.records.follow_job import follow_job

    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        job = access.find(options.job)
        if options.wait:
            ended = follow_job(job, access, access.console(quiet=options.json), with_lines=False, requests_again=True)
            if ended is None:
                return EXIT_PREEMPTED
            job = access.find(options.job)  # Its record has more requests now, if some were made.
        statuses = _statuses(job, access.service(job.target))
    if not options.quiet or options.json or not options.wait:
        _print(job, statuses, access, as_json=options.json)
    return ended.launcher_exit_code if options.wait and ended else EXIT_DONE


def _statuses(job: KnownJob, service: Service) -> list[JobStatus]:
    """What the service says of the requests of a job; of the earlier ones, as far as it still knows them."""
    from launch.records.known_jobs import status_of
    from launch.services.service import NoSuchJobError

    latest = status_of(job, service)
    earlier = []
    for resource in job.record.attempts if job.record else ():
        if resource != job.resource:
            with contextlib.suppress(NoSuchJobError):
                earlier.append(status_of(job, service, resource))
    return [*earlier, latest]


def _print(job: KnownJob, statuses: Sequence[JobStatus], access: JobAccess, *, as_json: bool) -> None:
    from launch.records.job_facts import facts_of
    from launch.records.known_jobs import commands_for
    from launch.tables import folded, look_of, print_json, print_lines

    facts = facts_of(job.target, job.record, statuses, access.clock())
    service = access.service(job.target)
    commands = commands_for(job.label, access.place)
    console_url = service.console_url(job.resource)
    if as_json:
        gcloud = {verb: list(words) for verb, words in service.gcloud_commands(job.resource).items()}
        details = dict(statuses[-1].details)
        print_json(
            {**facts.to_json(), "console": console_url, "commands": commands, "gcloud": gcloud, "details": details}
        )
        return
    look = look_of(sys.stdout, os.environ)
    told = dict(_told(facts, statuses[-1], access.clock()))
    details = {title: text for title, text in statuses[-1].details.items() if not told.get(title)}
    lines: list[str] = []
    for title, text in {**told, **details, "console": console_url, **commands}.items():
        if text:
            lines += folded(f"{look.text(title):<13} ", text, look)
    print_lines(lines)


def _told(facts: JobFacts, status: JobStatus, now: float) -> Iterator[tuple[str, str]]:
    """Titles and what is known of the job, for a person."""
    from launch.records.follow import described

    record = facts.record
    yield "job", facts.name
    yield "state", described(status, now)
    yield "error", facts.error
    yield "where", f"{facts.target} in {facts.location} of {facts.project}"
    if record:
        yield "provisioning", record.provisioning
    yield "hardware", facts.hardware
    yield "cost", _cost(facts)
    if facts.created:
        yield "submitted", f"{facts.created:%Y-%m-%d %H:%M:%S} UTC"
    if record:
        yield "image", record.image
        unclean = " with changes" if record.clean is False else ""
        yield "commit", f"{record.commit}{unclean}" if record.commit else ""
        yield "results", facts.run_dir
        yield "report", facts.report
    if record and len(record.attempts) > 1:
        yield "requests", f"{len(record.attempts)} of at most {record.max_requests}"


def _cost(facts: JobFacts) -> str:
    if facts.hourly_price is None:
        return "unknown: no price of its machines was known when it was submitted"
    an_hour = f"at ${facts.hourly_price:,.2f} an hour"
    if facts.dollars is not None:
        return f"about ${facts.dollars:,.2f} by now, {an_hour}"
    return (
        f"unknown by now, {an_hour}"
        if facts.most_dollars is None
        else f"at most ${facts.most_dollars:,.2f} by now, {an_hour}"
    )
