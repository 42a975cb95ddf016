"""Submits a job to the cloud: exactly one, checked before anything costs.

    python -m launch submit vertex --accelerator=l4:2 --build -- FLAGS
    python -m launch submit tpu-vm --accelerator=v5litepod-8 --wait -- FLAGS

`python -m launch plan` with the same options shows what would be sent. --build packages the working tree and lets Cloud
Build make the image first. The job's record is kept (--records), so that `launch list`, `status`, `logs` and `cancel`
know it by its name. --wait prints its log until it has ended, and ends with its exit code. FLAGS are those
of `python -m trainer.task`, and name a --run_dir on gs://.
"""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from launch.jobs.job_options import add_job_options
from launch.jobs.preflight import add_preflight_option, ask, objections
from launch.jobs.targets import add_target, planned
from launch.records.job_access import JobAccess, add_common_options, as_sentences, open_access
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.terminal import print_error

if TYPE_CHECKING:
    from launch.jobs.plan import Plan, PlannedBuild
    from launch.jobs.preflight import Preflight
    from launch.records.records import Record
    from launch.services.service import JobStatus

NAME = "submit"
SUMMARY = "submit a job to Vertex AI, Cloud TPU or Cloud Build"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_target(parser)
    add_job_options(parser)
    add_preflight_option(parser)
    after = parser.add_argument_group("what happens then")
    after.add_argument("--wait", action="store_true", help="print the job's log until it has ended")
    after.add_argument(
        "--sweep",
        default="",
        metavar="GRID",
        help="a job for each combination, as in --sweep='learning_rate=1e-4,1e-3 seed=0,1', in folders of --run_dir",
    )
    after.add_argument(
        "--submission", default="", metavar="TOKEN", help="the same token twice makes one job (default: a new one)"
    )
    after.add_argument("--json", action="store_true", help="print the records as JSON, a line each, and no notes")
    add_common_options(after)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Submits the job, or the jobs of a sweep.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".

    Returns:
      0; with --wait the job's exit code, or 75 where the waiting ended first.

    Raises:
      UserError: something is wrong that the user can mend; no job was made then, or none of those not yet named.
    """
    now = datetime.now(timezone.utc)
    plans = _plans(options, trainer_flags, now)
    problems = dict.fromkeys(problem for plan in plans for problem in plan.problems)
    if problems:
        raise UserError(" ".join(problems))
    access = open_access(options)
    if not (options.json or options.quiet):
        _show(plans)
    try:
        with as_sentences():
            return _submit(access, plans, now, options)
    except KeyboardInterrupt:
        print_error("interrupted; python -m launch list shows whether a job was made.")
        return EXIT_PREEMPTED


def _submit(access: JobAccess, plans: Sequence[Plan], now: datetime, options: argparse.Namespace) -> int:
    """First what is quickly told, then what takes longer, then the jobs; gives the exit code."""
    from launch.jobs.submission import record_of, require_free_name, submit
    from launch.jobs.submit_checks import require_what_it_needs

    records = [record_of(plan, now) for plan in plans]
    for record in records:
        require_free_name(record, access.records)
    require_what_it_needs(access.api(), plans[0].job, image_is_built=plans[0].image_build is not None)
    answers = _preflight(access, plans, options)
    if not _have_image(access, plans[0], options):
        return EXIT_PREEMPTED
    for plan, record, answer in zip(plans, records, answers):
        service = access.service(record.target)
        asked = replace(record, preflight=answer.text_with(plan.price) if answer else "")
        made, status = submit(asked, service, access.records, may_exist=bool(options.submission))
        _tell(options, access, made, status)
    return _wait(access, made) if options.wait else EXIT_DONE


def _preflight(access: JobAccess, plans: Sequence[Plan], options: argparse.Namespace) -> list[Preflight | None]:
    """What is known of each job's steps on its TPU; None where nobody is asked.

    Raises:
      UserError: something speaks against a job.
    """
    if options.preflight != "off" and plans[0].job.hardware.is_tpu:
        access.console(quiet=options.json).note("asking the preflight, which traces the steps as for this slice")
    answers = [ask(plan.job, options.preflight) for plan in plans]
    against = dict.fromkeys(reason for answer in answers for reason in objections(answer, options.preflight))
    if against:
        raise UserError(" ".join(against))
    return answers


def _plans(options: argparse.Namespace, trainer_flags: Sequence[str], now: datetime) -> list[Plan]:
    """The plan of each job.

    Raises:
      UserError: options or flags are not accepted.
    """
    token = options.submission or uuid.uuid4().hex
    if not options.sweep:
        return [planned(options, trainer_flags, os.environ, now, token, Path.cwd())]
    from launch.jobs.sweep_jobs import swept_runs

    if options.wait or options.target == "cloud-build":
        other = "--wait" if options.wait else "cloud-build"
        raise UserError(f"--sweep makes several jobs, and {other} is for one: leave one of them out.")
    runs = swept_runs(trainer_flags, options.sweep)
    name = options.name or f"sweep-{now:%Y%m%d-%H%M%S}"
    plans = []
    for number, run in enumerate(runs, 1):
        own = argparse.Namespace(**{**vars(options), "name": f"{name}-{number}"})
        plans.append(planned(own, run.trainer_flags, os.environ, now, f"{token}-{number}", Path.cwd()))
    return plans


def _show(plans: Sequence[Plan]) -> None:
    """What is about to be submitted: the first job, and of others what they are called."""
    from launch.jobs.plan_text import price_text, summary
    from launch.tables import print_text

    print_text(summary(plans[0]))
    for plan in plans[1:]:
        print_text(f"job      {plan.name}: {plan.job.run_dir}")
    if len(plans) > 1:
        total = replace(plans[0].price, dollars=_sum([plan.price.dollars for plan in plans]))
        print_text(f"costs    of all {len(plans)}: {price_text(total, plans[0].job.max_run_hours)[0]}")


def _sum(prices: Sequence[float | None]) -> float | None:
    """All of them together; None where one is unknown."""
    known = [price for price in prices if price is not None]
    return sum(known) if len(known) == len(prices) else None


def _have_image(access: JobAccess, plan: Plan, options: argparse.Namespace) -> bool:
    """Sees to the image, if it is to be built from here; says whether that went to its end.

    Raises:
      UserError: there is no image.
    """
    from launch.doctor.cloud_checks import image_check
    from launch.packaging.image_build import store

    build = plan.image_build
    if build is None:
        return True
    if plan.target != "cloud-build" and image_check(access.api(), plan.job.image, plan.job.project).verdict == "ok":
        access.console(quiet=options.json).note(f"{plan.job.image} is there already: nothing is built")
        return True
    store(access.api(), build.package, build.source)
    return plan.target == "cloud-build" or _build_image(access, build, options)


def _build_image(access: JobAccess, planned: PlannedBuild, options: argparse.Namespace) -> bool:
    """Has Cloud Build make the image, and waits for it; says whether the waiting went to its end.

    Raises:
      UserError: there is no image.
    """
    from launch.records.follow_job import follow_job
    from launch.records.known_jobs import KnownJob
    from launch.services.service import State

    service = access.service("cloud-build")
    build = planned.build
    status = service.find(build.project, build.location, planned.submission) if options.submission else None
    status = status or service.create(planned.request, planned.submission)
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
    from launch.records.follow_job import follow_job
    from launch.records.known_jobs import KnownJob

    job = KnownJob(record.target, record.resource, record)
    ended = follow_job(job, access, access.console(), with_lines=True, requests_again=True)
    return EXIT_PREEMPTED if ended is None else ended.launcher_exit_code


def _tell(options: argparse.Namespace, access: JobAccess, record: Record, status: JobStatus) -> None:
    """What was submitted, and how to go on with it."""
    from launch.records.known_jobs import commands_for
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
