"""Plan: everything that a submission would send and come to, as text for a person or JSON for a program. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from launch.gcloud_command import GcloudCommand
from launch.job import Job, Target
from launch.job_problems import replicas
from launch.prices import Price, hourly_price
from launch.service import ApiRequest

PLANNED_SUBMISSION = "plan"
"""The token in a plan's requests; each submission has a new one."""


@dataclass(frozen=True)
class Plan:
    """What would be submitted.

    Attributes:
      job: the job.
      request: creates it.
      gcloud: the command that makes gcloud send the same.
      price: of an hour of all its machines.
      problems: sentences on what would go wrong.
    """

    job: Job
    request: ApiRequest
    gcloud: GcloudCommand
    price: Price
    problems: tuple[str, ...]

    @property
    def target(self) -> Target:
        """Who is asked to create it."""
        return self.job.target

    @property
    def location(self) -> str:
        """Where it is created: a region or zone."""
        return self.job.location


def plan_of(job: Job, submission: str = PLANNED_SUBMISSION) -> Plan:
    """The plan of a job.

    Args:
      job: checked by itself.
      submission: the token of the submission.
    """
    from launch import tpu_request, vertex_request

    module: Any = {"vertex": vertex_request, "tpu-vm": tpu_request}[job.target]
    return Plan(
        job,
        module.create_request(job, submission),
        module.gcloud_create(job, submission),
        hourly_price(job.hardware, job.target, job.location, job.provisioning),
        tuple(module.problems(job)),
    )


def as_json(plan: Plan) -> str:
    """The whole plan, indented."""
    job = plan.job
    return json.dumps(
        {
            "target": job.target,
            "name": job.name,
            "project": job.project,
            "location": job.location,
            "hardware": asdict(job.hardware),
            "replicas": replicas(job),
            "provisioning": job.provisioning,
            "image": job.image,
            "command": list(job.worker_command),
            "environment": job.environment,
            "run_dir": job.config.run_dir,
            "max_run_hours": job.max_run_hours,
            "price": asdict(plan.price),
            "requests": [asdict(plan.request)],
            "gcloud": plan.gcloud.shell(),
            "problems": list(plan.problems),
        },
        indent=2,
    )
