"""Ends a job, and waits until it is really over.

    python -m launch cancel JOB

A job that has ended stays as it is. Ctrl-C ends the waiting; the job was asked to end all the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
from trainer.wording import duration

if TYPE_CHECKING:
    from launch.local.worker_logs import Console
    from launch.records.known_jobs import KnownJob
    from launch.services.service import JobStatus, Service

NAME = "cancel"
SUMMARY = "end a job, and wait until it is over"

MOST_SECONDS = 1800.0
"""How long the end is waited for. A worker may save for --stop_seconds first, and machines take minutes to go."""

_NEWS_SECONDS = 60.0
"""Between two lines that say that it goes on."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_job_argument(parser)
    add_common_options(parser)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Ends the job.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--": nothing.

    Returns:
      0 when it has ended, however; 75 where the waiting ended first.

    Raises:
      UserError: there is no such job, or it may not be ended.
    """
    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        job = access.find(options.job)
        return _cancel(job, access, access.console())


def _cancel(job: KnownJob, access: JobAccess, console: Console) -> int:
    from launch.records.follow import described
    from launch.records.known_jobs import commands_for, status_of
    from launch.services.service import NoSuchJobError

    service = access.service(job.target)
    status_command = commands_for(job.label, access.place)["status"]
    try:
        status = status_of(job, service)
        if status.state.has_ended:
            console.note(f"{job.label} had ended before: {described(status, access.clock())}.")
            return EXIT_DONE
        service.cancel(job.resource)
        console.note(f"{job.label} is asked to end.")
        status = _wait(job, service, access, console)
    except NoSuchJobError:
        if not job.record:  # Whether there ever was one nobody here knows.
            raise
        console.note(f"{job.label} is over: {job.target} does not have it any more.")
        return EXIT_DONE
    except KeyboardInterrupt:
        console.warning(f"Interrupted: it is not waited for any more; {status_command} tells how {job.label} stands.")
        return EXIT_PREEMPTED
    if not status.state.has_ended:
        console.warning(
            f"{duration(MOST_SECONDS)} after it was asked to end {job.label} is {described(status, access.clock())} "
            f"and may cost money still: {status_command} tells how it stands."
        )
        return EXIT_PREEMPTED
    return EXIT_DONE


def _wait(job: KnownJob, service: Service, access: JobAccess, console: Console) -> JobStatus:
    from launch.records.follow import Follower
    from launch.records.known_jobs import status_of

    follower = Follower(
        lambda resource: status_of(job, service, resource),
        console,
        most_seconds=MOST_SECONDS,
        heartbeat_seconds=_NEWS_SECONDS,
        sleep=access.sleep,
        clock=access.clock,
    )
    return follower.follow(job.resource)
