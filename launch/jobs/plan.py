"""Plan: everything that a submission would send and come to, as text for a person or JSON for a program. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from launch.google.gcloud_command import GcloudCommand
from launch.jobs.job import LONGEST_NAME, Job
from launch.jobs.job_problems import replicas
from launch.jobs.prices import Price, hourly_price
from launch.services.service import ApiRequest

if TYPE_CHECKING:
    from launch.packaging.working_tree import Package
    from launch.records.records import RecordTarget
    from launch.services.build_request import Build, JobInBuild, StoredSource

_SUBMITTING, _IMAGE = "-build", "-image"
"""What a build is called behind its job's name: one that submits the job, and one that makes its image alone."""

PLANNED_SUBMISSION = "plan"
"""The token in a plan's requests; each submission has a new one."""


@dataclass(frozen=True)
class PlannedBuild:
    """The build that makes the job's image.

    Attributes:
      build: of Cloud Build.
      package: of the working tree.
      source: where the package is stored for it.
      submission: the token that is among its tags.
      request: starts it.
      gcloud: the command that makes gcloud start the same.
    """

    build: Build
    package: Package
    source: StoredSource
    submission: str
    request: ApiRequest
    gcloud: GcloudCommand


@dataclass(frozen=True)
class Plan:
    """What would be submitted.

    Attributes:
      job: the job.
      target: who is asked; with "cloud-build", the build asks the job's own target.
      name: of what is submitted: the job's, or that of the build which submits it.
      submission: the token in the request, by which what it makes is found again.
      commands: what runs in which machine's container, by who runs it.
      request: creates it.
      gcloud: the command that makes gcloud send the same.
      price: of an hour of all the job's machines.
      problems: sentences on what would go wrong.
      image_build: of the image, when it is not there yet.
      commit: of the working tree that the image is of; "" where that is not known.
      clean: whether the image is of that commit and nothing else; None where that is not known.
    """

    job: Job
    target: RecordTarget
    name: str
    submission: str
    commands: Mapping[str, tuple[str, ...]]
    request: ApiRequest
    gcloud: GcloudCommand
    price: Price
    problems: tuple[str, ...]
    image_build: PlannedBuild | None = None
    commit: str = ""
    clean: bool | None = None

    @property
    def requests(self) -> tuple[ApiRequest, ...]:
        """All that are sent, in their order, but for the package's."""
        build = self.image_build
        return (build.request, self.request) if build and build.request != self.request else (self.request,)

    @property
    def gcloud_commands(self) -> tuple[GcloudCommand, ...]:
        """The commands that make gcloud send the same."""
        build = self.image_build
        return (build.gcloud, self.gcloud) if build and build.request != self.request else (self.gcloud,)

    @property
    def location(self) -> str:
        """Where it is created: a region or zone."""
        return self.request.path.split("/")[4]


def plan_of(job: Job, submission: str) -> Plan:
    """The plan of a job whose image is there.

    Args:
      job: as its options describe it.
      submission: the token of the submission.
    """
    from launch.services import tpu_request, vertex_request

    module: Any = {"vertex": vertex_request, "tpu-vm": tpu_request}[job.target]
    return Plan(
        job=job,
        target=job.target,
        name=job.name,
        submission=submission,
        commands=module.host_commands(job),
        request=module.create_request(job, submission),
        gcloud=module.gcloud_create(job, submission),
        price=hourly_price(job.hardware, job.target, job.location, job.provisioning),
        problems=tuple(module.problems(job)),
    )


def with_build(
    plan: Plan, config: Mapping[str, Any], package: Package, submission: str, submits: JobInBuild | None
) -> Plan:
    """A plan with the build of its image.

    Args:
      plan: of the job.
      config: what cloudbuild.yaml says.
      package: of the working tree.
      submission: the token of the submission.
      submits: what the build is to submit; None where the job is submitted from here when the image is there.

    Raises:
      UserError: cloudbuild.yaml makes no such image.
    """
    from launch.packaging.image_build import stored_source
    from launch.services import build_request

    job = plan.job
    name = _with_ending(job.name, _SUBMITTING if submits else _IMAGE)
    build = build_request.Build(
        config=config,
        name=name,
        project=job.project,
        location=job.image.partition("-docker.pkg.dev/")[0],
        image=job.image,
        test=submits is not None,
        job=submits,
    )
    source = stored_source(package, _bucket(job.run_dir))
    token = submission if submits else f"{submission}-image"
    request = build_request.create_request(build, source, token)
    planned = PlannedBuild(build, package, source, token, request, build_request.gcloud_create(build, source))
    state = package.state
    problems = (*plan.problems, *build_request.problems(build))
    if not submits:
        return replace(plan, problems=problems, image_build=planned, commit=state.commit, clean=state.clean)
    return replace(
        plan,
        target="cloud-build",
        name=name,
        request=planned.request,
        gcloud=planned.gcloud,
        problems=problems,
        image_build=planned,
        commit=state.commit,
        clean=state.clean,
    )


def _with_ending(name: str, ending: str) -> str:
    return f"{name[: LONGEST_NAME - len(ending)].rstrip('-')}{ending}"


def _bucket(run_dir: str) -> str:
    """The bucket of a run directory, in which its job's sources are kept too; "" where it is in none."""
    return run_dir.removeprefix("gs://").split("/")[0] if run_dir.startswith("gs://") else ""


def as_json(plan: Plan, preflight: str = "") -> str:
    """The whole plan, indented.

    Args:
      plan: what would be submitted.
      preflight: what was said of its steps; "": nobody was asked.
    """
    job = plan.job
    return json.dumps(
        {
            "target": plan.target,
            "name": plan.name,
            "project": job.project,
            "location": plan.location,
            "runs_on": {"target": job.target, "location": job.location},
            "hardware": asdict(job.hardware),
            "replicas": replicas(job),
            "provisioning": job.provisioning,
            "image": job.image,
            "commands": {who: list(command) for who, command in plan.commands.items()},
            "environment": job.environment,
            "run_dir": job.config.run_dir,
            "max_run_hours": job.max_run_hours,
            "price": asdict(plan.price),
            "requests": [asdict(request) for request in plan.requests],
            "gcloud": [command.shell() for command in plan.gcloud_commands],
            "preflight": preflight,
            "problems": list(plan.problems),
        },
        indent=2,
    )
