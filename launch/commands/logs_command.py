"""Prints what a job's workers print, until the job has ended, and ends with the job's exit code.

    python -m launch logs JOB
    python -m launch logs JOB --since=10m
    python -m launch logs JOB --nofollow      what there is by now

Ctrl-C ends the printing, not the job; the exit code is 75 then.
"""

from __future__ import annotations

import argparse
import datetime
import re
from collections.abc import Callable, Sequence

from launch.records.job_access import (
    add_common_options,
    add_job_argument,
    as_sentences,
    open_access,
    refuse_trainer_flags,
)
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError

NAME = "logs"
SUMMARY = "print what a job's workers print, until it has ended"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_job_argument(parser)
    parser.add_argument("--nofollow", action="store_true", help="print what there is, and do not wait for more")
    parser.add_argument(
        "--since",
        type=_moment_reader(datetime.datetime.now(datetime.timezone.utc)),
        metavar="WHEN",
        help="only lines since then: 90s, 10m, 2h, 1d ago, or a moment such as 2026-11-22T17:00:00Z (default: all)",
    )
    add_common_options(parser)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Prints the lines.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--": nothing.

    Returns:
      The job's exit code; with --nofollow 0 where it has not ended yet; 75 where the printing ended first.

    Raises:
      UserError: there is no such job, or its log may not be read.
    """
    from launch.records.follow import print_new
    from launch.records.follow_job import follow_job, open_log
    from launch.records.known_jobs import status_of

    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        job = access.find(options.job)
        console = access.console()
        if options.nofollow:
            status = status_of(job, access.service(job.target))
            log = open_log(job, status, access, options.since)
            colors: dict[str, int] = {}
            print_new(log, console.out, colors)
            print_new(log, console.out, colors)  # What the log keeps back until it is settled.
            return status.launcher_exit_code if status.state.has_ended else EXIT_DONE
        ended = follow_job(job, access, console, with_lines=True, requests_again=False, since=options.since)
    return EXIT_PREEMPTED if ended is None else ended.launcher_exit_code


def _moment_reader(now: datetime.datetime) -> Callable[[str], datetime.datetime]:
    """A reader of moments, and of times before `now`, for argparse."""

    def read(text: str) -> datetime.datetime:
        ago = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
        if ago:
            return now - datetime.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.datetime.fromisoformat(re.sub("Z$", "+00:00", text))
        except ValueError:
            raise UserError(f"--since={text}: must be such as 90s, 10m, 2h, 1d or 2026-11-22T17:00:00Z.") from None
        return moment if moment.tzinfo else moment.astimezone()

    return read
