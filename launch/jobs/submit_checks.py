"""What is asked before a job is made: things that cost nothing to ask, and twenty minutes of machines not to."""

from __future__ import annotations

from collections.abc import Iterator

from launch.doctor.checks import Check
from launch.doctor.cloud_checks import bucket_checks, image_check, quota_check
from launch.google.google_api import GoogleApi
from launch.jobs.catalog import region_of
from launch.jobs.job import Job
from trainer.accelerators import accelerator_named
from trainer.errors import UserError


def require_what_it_needs(api: GoogleApi, job: Job, *, image_is_built: bool) -> None:
    """Makes sure, as far as it can be told from here, that bucket, image and quota are there.

    Args:
      api: the way to Google's APIs.
      job: that is about to be made.
      image_is_built: whether the image will only be made.

    Raises:
      UserError: something is not as the job needs it; the sentence says how to mend it.
    """
    problems = [check for check in _checks(api, job, image_is_built) if check.verdict == "problem"]
    if problems:
        raise UserError(" ".join(_sentence(check) for check in problems))


def _checks(api: GoogleApi, job: Job, image_is_built: bool) -> Iterator[Check]:
    yield from bucket_checks(api, job.run_dir, region_of(job.location), job.project)
    if not image_is_built:
        yield image_check(api, job.image, job.project)
    if job.hardware.accelerator and job.provisioning == "standard":
        found = accelerator_named(job.hardware.accelerator)
        count = job.hardware.count * job.hardware.workers
        yield quota_check(api, job.project, job.target, found, count, job.location)


def _sentence(check: Check) -> str:
    """As in "The image X is not there: build it. See to it with `COMMAND`."."""
    way_out = f" {'See' if check.way_out.startswith('https://') else 'Try'} {check.way_out}" if check.way_out else ""
    return f"The {check.title}: {check.finding}{way_out}"
