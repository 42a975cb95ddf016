"""Tells how a job stands.

    python -m launch status JOB
    python -m launch status JOB --wait      follows its states to its end, and ends with its exit code
    python -m launch status JOB --json

With --wait, a TPU slice that is preempted is requested again, as often as --max_requests of the submission says.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch.job_access import (
    JobAccess,
    add_common_options,
    add_job_argument,
    as_sentences,
    open_access,
    refuse_trainer_flags,
)
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED

if TYPE_CHECKING:
    from launch.job_facts import JobFacts
    from launch.known_jobs import KnownJob
    from launch.service import JobStatus, Service
    from launch.tables import Look

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
    refuse_trainer_flags(trainer_flags)
    access = open_access(options)
    with as_sentences():
        job = access.find(options.job)
        service = access.service(job.target)
        if not options.wait:
            status = service.get(job.resource)
        else:
            ended = access.follow(job, quiet=options.json or options.quiet)
            if ended is None:
                return EXIT_PREEMPTED
            status, job = ended, access.find(options.job)
        _print(access, job, status, service, as_json=options.json)
    return status.launcher_exit_code if options.wait else EXIT_DONE
