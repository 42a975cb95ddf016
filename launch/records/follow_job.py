"""Following a job that is known: with its log, and with the machines requested again where they are preempted."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, cast

from launch.google.log_entries import JobLog, LogReader
from launch.google.timestamps import as_timestamp
from launch.local.worker_logs import Console
from launch.records.follow import Follower, watched
from launch.records.job_access import JobAccess
from launch.records.known_jobs import KnownJob, commands_for, status_of
from launch.services.service import JobStatus, State

if TYPE_CHECKING:
    from launch.services.tpu_vm import TpuVmService


def open_log(job: KnownJob, status: JobStatus, access: JobAccess, since: datetime.datetime | None) -> JobLog:
    """The log of one request of a job; asks nothing yet.

    Args:
      job: which one.
      status: of the request.
      access: leads to its service.
      since: lines from then on; None for all.
    """
    log_filter = access.service(job.target).log_filter(status)
    if since is not None:
        log_filter = f'({log_filter}) AND timestamp>="{as_timestamp(since)}"'
    project = job.record.project if job.record else job.resource.split("/")[1]

    def now() -> datetime.datetime:
        return datetime.datetime.fromtimestamp(access.clock(), datetime.timezone.utc)

    return LogReader(access.api(), project, now=now, clock=access.clock, sleep=access.sleep).open(log_filter)


def follow_job(
    job: KnownJob,
    access: JobAccess,
    console: Console,
    *,
    with_lines: bool,
    requests_again: bool,
    since: datetime.datetime | None = None,
) -> JobStatus | None:
    """Follows a job to its end.

    Args:
      job: which one.
      access: leads to its service and record.
      console: shows what happens.
      with_lines: whether its log is wanted.
      requests_again: whether the machines of a preempted TPU job are to be requested again.
      since: log lines from then on; None for all.

    Returns:
      How it ended; None where the following ended first, which is said then.

    Raises:
      UserError: there is no such job, it may not be seen, or an API refused.
    """
    service = access.service(job.target)
    request_again = None
    if requests_again and job.record and job.target == "tpu-vm" and job.resource == job.record.resource:
        from launch.records.requests_again import requester

        request_again = requester(job.record, access.records, cast("TpuVmService", service))

    def open_lines(status: JobStatus) -> JobLog:
        return open_log(job, status, access, since)

    follower = Follower(
        lambda resource: status_of(job, service, resource),
        console,
        open_lines=open_lines if with_lines else None,
        request_again=request_again,
        sleep=access.sleep,
        clock=access.clock,
    )
    commands = commands_for(job.label, access.place)
    wait = f"{commands['status']} --wait"
    ended = watched(
        lambda: follower.follow(job.resource), console, [*commands.values(), *([wait] if request_again else [])]
    )
    if ended and ended.state is State.PREEMPTED and job.record and job.target == "tpu-vm" and not requests_again:
        console.note(f"{wait} requests it again.")
    return ended
