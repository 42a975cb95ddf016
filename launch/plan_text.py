"""A plan as a person reads it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from launch.google_api import endpoint
from launch.job import Job
from launch.job_options import described
from launch.job_problems import replicas
from launch.plan import Plan
from launch.prices import Price
from launch.service import ApiRequest
from trainer.wording import counted

SERVICES = {"vertex": "Vertex AI", "tpu-vm": "Cloud TPU", "cloud-build": "Cloud Build"}
"""What the targets are called."""

_INDENT = " " * 9


def plan_text(plan: Plan) -> str:
    """What the job is and costs, what is wrong with it, then the request, then gcloud's command."""
    parts = [
        "\n".join([*_facts(plan), *(f"problem  {problem}" for problem in plan.problems)]),
        request_text(plan.request),
        f"The same with gcloud:\n\n{plan.gcloud.shell()}",
    ]
    return "\n\n".join(part for part in parts if part)


def summary(plan: Plan) -> str:
    """What the job is and costs."""
    return "\n".join(_facts(plan))


def request_text(request: ApiRequest) -> str:
    """A request as it is sent, without its credentials."""
    query = "&".join(f"{name}={value}" for name, value in request.query.items())
    body = "" if request.body is None else f"\n{json.dumps(request.body, indent=2)}"
    return f"{request.method} {endpoint(request, {})}{f'?{query}' if query else ''}{body}"


def price_text(price: Price, max_run_hours: float) -> list[str]:
    """What it costs, as lines: an hour, at most, and where that is known from."""
    if price.dollars is None:
        return [f"unknown an hour ({price.source}); it is ended after {max_run_hours:g} hours"]
    most = price.dollars * max_run_hours
    return [
        f"${price.dollars:,.2f} an hour, at most ${most:,.2f} in {max_run_hours:g} hours",
        f"{price.covers} ({price.source}, {price.date})",
    ]


def _facts(plan: Plan) -> Iterator[str]:
    job = plan.job
    yield f"job      {job.name}"
    yield f"{_INDENT}{SERVICES[job.target]}, {job.location}, project {job.project}, {job.provisioning}"
    machine = f" ({job.hardware.machine})" if job.hardware.machine else ""
    yield f"devices  {described(job.hardware)}{machine}: {counted(replicas(job), 'replica')}"
    yield f"image    {job.image}"
    yield from _command(job)
    yield f"{_INDENT}in the environment {' '.join(f'{name}={value}' for name, value in job.environment.items())}"
    yield f"results  {job.config.run_dir or 'nowhere'}"
    for number, line in enumerate(price_text(plan.price, job.max_run_hours)):
        yield f"{_INDENT if number else 'costs    '}{line}"


def _command(job: Job) -> Iterator[str]:
    """The trainer's command, a flag to a line."""
    yield f"command  {shlex.join(job.worker_command[:3])}, on {_everywhere(job)}, with"
    for flag in job.trainer_flags:
        yield f"{_INDENT}{shlex.quote(flag)}"


def _everywhere(job: Job) -> str:
    workers = job.hardware.workers
    return "one worker" if workers == 1 else f"each of {workers} workers"
