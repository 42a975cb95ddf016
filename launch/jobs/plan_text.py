"""A plan as a person reads it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from launch.google.google_api import endpoint
from launch.jobs.job_options import described
from launch.jobs.job_problems import replicas
from launch.jobs.plan import Plan
from launch.jobs.prices import Price
from launch.services.service import ApiRequest
from trainer.wording import counted

SERVICES = {"vertex": "Vertex AI", "tpu-vm": "Cloud TPU", "cloud-build": "Cloud Build"}
"""What the targets are called."""

_INDENT = " " * 9

_LONGEST_TEXT = 2000
_SHOWN = 60


def plan_text(plan: Plan) -> str:
    """What the job is and costs, what is wrong with it, then the request, then gcloud's command."""
    parts = [
        "\n".join([*_facts(plan), *(f"problem  {problem}" for problem in plan.problems)]),
        *(request_text(request) for request in plan.requests),
        *(f"The same with gcloud:\n\n{command.shell()}" for command in plan.gcloud_commands),
    ]
    return "\n\n".join(part for part in parts if part)


def summary(plan: Plan) -> str:
    """What the job is and costs."""
    return "\n".join(_facts(plan))


def request_text(request: ApiRequest) -> str:
    """A request as it is sent, without its credentials; of long texts in it only the beginning."""
    query = "&".join(f"{name}={value}" for name, value in request.query.items())
    body = "" if request.body is None else f"\n{json.dumps(_shortened(request.body), indent=2)}"
    return f"{request.method} {endpoint(request, {})}{f'?{query}' if query else ''}{body}"


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_SHOWN]}… ({len(value):,} characters; --json shows all)"
    return value


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
    yield from _commands(plan)
    yield f"results  {job.config.run_dir or 'nowhere'}"
    for number, line in enumerate(price_text(plan.price, job.max_run_hours)):
        yield f"{_INDENT if number else 'costs    '}{line}"


def _commands(plan: Plan) -> Iterator[str]:
    """What runs where, a flag to a line."""
    for who, command in plan.commands.items():
        yield f"command  of {who}:"
        yield f"{_INDENT}{shlex.join(command[:3])}"
        yield from (f"{_INDENT}  {shlex.quote(flag)}" for flag in command[3:])
    variables = " ".join(f"{name}={value}" for name, value in plan.job.environment.items())
    yield f"{_INDENT}in the environment {variables}"
