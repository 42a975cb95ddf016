"""One submission: its record, and the job that it makes exactly once."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from launch.google.google_api import ApiError
from launch.records.records import Record, Records
from launch.services.service import JobStatus, Service
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.jobs.plan import Plan


def record_of(plan: Plan, moment: datetime) -> Record:
    """The record of a plan that is about to be submitted.

    Args:
      plan: without problems.
      moment: now, in UTC.
    """
    job = plan.job
    return Record(
        name=plan.name,
        target=plan.target,
        project=job.project,
        location=plan.location,
        submission=plan.submission,
        created=moment.isoformat(timespec="seconds"),
        request=plan.request,
        run_dir=job.run_dir,
        config=job.config.model_dump(mode="json"),
        trainer_flags=job.trainer_flags,
        image=job.image,
        commit=plan.commit,
        clean=plan.clean,
        hourly_price=None if plan.target == "cloud-build" else plan.price.dollars,
        max_run_hours=job.max_run_hours,
        max_requests=job.max_requests,
        provisioning=job.provisioning,
    )


def require_free_name(record: Record, records: Records) -> None:
    """Makes sure that a job can have its name, before anything is built for it.

    Raises:
      UserError: another submission has it.
    """
    other = records.load(record.name)
    if other and other.submission != record.submission:
        raise UserError(f"A job named {record.name} was submitted already: give this one another --name.")


def submit(record: Record, service: Service, records: Records, *, may_exist: bool) -> tuple[Record, JobStatus]:
    """Creates the job of a record, and keeps the record before and after.

    Args:
      record: of the job; its resource is "".
      service: creates it.
      records: keep it. Of a request that was refused no record stays; of one whose outcome nobody knows it does, and
        `launch status` looks the job up by the submission's token.
      may_exist: whether the same submission was perhaps made before, as by a build step that runs again.

    Returns:
      The record with the job's resource, and how the job stands.

    Raises:
      UserError: the name is another job's.
      ApiError: the request was refused, or nobody knows whether it was carried out.
    """
    status = service.find(record.project, record.location, record.submission) if may_exist else None
    if status is None:
        records.save(record)
        try:
            status = service.create(record.request, record.submission)
        except ApiError as error:
            if not error.passes:
                records.forget(record)
            raise
    record = record.requested(status.resource)
    records.save(record)
    return record, status
