"""Submits a job to the cloud: exactly one, checked before anything costs.

    python -m launch submit vertex --accelerator=l4:2 --build -- --data=tfds:tf_flowers --run_dir=gs://bucket/flowers
    python -m launch submit tpu-vm --accelerator=v5litepod-8 --zone=us-west4-a --wait -- --data=digits --run_dir=gs://b/r

`python -m launch plan` with the same options shows what would be sent. --build packages the working tree and lets Cloud
Build make the image first. The job's record is kept (--records), so that `launch list`, `status`, `logs` and `cancel`
know it by its name. --wait prints its log until it has ended, and ends with its exit code. What stands behind -- are
flags of `python -m trainer.task`.
"""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from launch.job_access import JobAccess, add_common_options, as_sentences, open_access
from launch.job_options import add_job_options
from launch.targets import add_target, planned
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError

if TYPE_CHECKING:
    from launch.plan import PlannedBuild
    from launch.records import Record
    from launch.service import JobStatus

NAME = "submit"
SUMMARY = "submit a job to Vertex AI, Cloud TPU or Cloud Build"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_target(parser)
    add_job_options(parser)
    after = parser.add_argument_group("what happens then")
    after.add_argument("--wait", action="store_true", help="print the job's log until it has ended")
    after.add_argument(
        "--submission", default="", metavar="TOKEN", help="the same token twice makes one job (default: a new one)"
    )
    after.add_argument("--json", action="store_true", help="print the job's record as JSON, and no notes")
    add_common_options(after)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Submits the job.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".

    Returns:
      0; with --wait the job's exit code, or 75 where the waiting ended first.

    Raises:
      UserError: something is wrong that the user can mend; no job was made then.
    """
    from launch.image_build import store
    from launch.plan_text import summary
    from launch.submission import record_of, submit
    from launch.submit_checks import require_what_it_needs
    from launch.tables import print_text

    now = datetime.now(timezone.utc)
    submission = options.submission or uuid.uuid4().hex
    plan = planned(options, trainer_flags, os.environ, now, submission, Path.cwd())
    if plan.problems:
        raise UserError(" ".join(plan.problems))
    access = open_access(options)
    if not (options.json or options.quiet):
        print_text(summary(plan))
    with as_sentences():
        require_what_it_needs(access.api(), plan.job, image_is_built=plan.image_build is not None)
        record = record_of(plan, submission, now)
        if plan.image_build:
            store(access.api(), plan.image_build.package, plan.image_build.source)
            if plan.target != "cloud-build" and not _build_image(access, plan.image_build, options):
                return EXIT_PREEMPTED
        service = access.service(record.target)
        record, status = submit(record, service, access.records, may_exist=bool(options.submission))
        _tell(options, access, record, status)
        if options.wait:
            return _wait(access, record)
    return EXIT_DONE


def _build_image(access: JobAccess, planned: PlannedBuild, options: argparse.Namespace) -> bool:
    """Has Cloud Build make the image, and waits for it; says whether the waiting went to its end.

    Raises:
      UserError: there is no image.
    """
    from launch.follow_job import follow_job
    from launch.known_jobs import KnownJob
    from launch.service import State

    service = access.service("cloud-build")
    token = planned.submission
    build = planned.build
    status = service.find(build.project, build.location, token) if options.submission else None
    status = status or service.create(planned.request, token)
    page = service.console_url(status.resource)
    console = access.console(quiet=options.json)
    console.note(f"building {build.image} as {status.resource}")
    console.note(f"  console  {page}")
    job = KnownJob("cloud-build", status.resource, None)
    ended = follow_job(job, access, console, with_lines=not options.json, requests_again=False)
    if ended is not None and ended.state is not State.SUCCEEDED:
        raise UserError(f"{build.image} was not built ({ended.error or ended.said}), and no job was made: see {page}.")
    return ended is not None


def _wait(access: JobAccess, record: Record) -> int:
    from launch.follow_job import follow_job
    from launch.known_jobs import KnownJob

    job = KnownJob(record.target, record.resource, record)
    ended = follow_job(job, access, access.console(), with_lines=True, requests_again=True)
    return EXIT_PREEMPTED if ended is None else ended.launcher_exit_code


def _tell(options: argparse.Namespace, access: JobAccess, record: Record, status: JobStatus) -> None:
    """What was submitted, and how to go on with it."""
    from launch.known_jobs import commands_for
    from launch.tables import print_json, print_text

    if options.json:
        print_json(record.to_json())
        return
    if options.quiet:
        return
    print_text(f"submitted {record.resource}, {status.state.value}")
    print_text(f"console  {access.service(record.target).console_url(record.resource)}")
    for verb, command in commands_for(record.name, options.records).items():
        print_text(f"{verb:8} {command}")
