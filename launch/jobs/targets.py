"""TARGET on a command line: which services there are, and the plan that options and flags come to."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from launch.jobs.job_options import arguments_of, job_from_options
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.jobs.job import Job, Target
    from launch.jobs.plan import Plan
    from launch.services.build_request import JobInBuild

ASKED_BEFORE = "--preflight=off"
"""The build submits what was asked about when it was started."""

CONFIG_FILE = "cloudbuild.yaml"

TARGETS = ("vertex", "tpu-vm", "cloud-build")
"""Who can be asked to do something."""

IMAGE_NAME = "{region}-docker.pkg.dev/{project}/hub-trainer/trainer-{device}"
"""Where the image of a job is that names none; cloudbuild.yaml pushes to the same place."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """Adds TARGET, and what says where its image comes from."""
    parser.add_argument(
        "target",
        choices=TARGETS,
        metavar="TARGET",
        help="vertex: a custom job of Vertex AI. tpu-vm: a slice of Cloud TPU. cloud-build: Cloud Build tests, builds "
        "the image and submits the job from there",
    )
    parser.add_argument(
        "--then",
        choices=TARGETS[:2],
        help="with cloud-build: who runs the job when the image is there (default: vertex)",
    )
    parser.add_argument(
        "--build", action="store_true", help="have Cloud Build make the image from this folder before the job starts"
    )
    parser.add_argument(
        "--allow_file",
        action="append",
        default=[],
        metavar="PATH",
        help="send this file to Cloud Build though it looks like a secret; may be given several times",
    )


def planned(
    options: argparse.Namespace,
    trainer_flags: Sequence[str],
    environment: Mapping[str, str],
    moment: datetime,
    submission: str,
    root: Path,
) -> Plan:
    """The plan of a command line.

    Args:
      options: as `add_target` and `add_job_options` defined them.
      trainer_flags: what stands behind the "--".
      environment: of this process.
      moment: names the job, where it is given no name.
      submission: the token of the submission.
      root: the folder that --build packages.

    Raises:
      UserError: the job makes no sense, or the folder cannot be packaged.
    """
    from launch.jobs.plan import plan_of, with_build
    from launch.packaging.working_tree import package
    from launch.services.build_config import read_build_config

    if options.then and options.target != "cloud-build":
        raise UserError(f"--then={options.then} goes with cloud-build: leave it out.")
    if not _builds(options):
        commit = "" if options.image else _commit(root)
        image = options.image or f"{IMAGE_NAME}:{commit[:7]}"
        plan = plan_of(_job(options, trainer_flags, environment, moment, image), submission)
        return replace(plan, commit=commit, clean=True if commit else None)
    if options.image:
        raise UserError(f"--image={options.image} is there already, and an image would be built: leave one out.")
    packaged = package(root, options.allow_file)
    job = _job(options, trainer_flags, environment, moment, f"{IMAGE_NAME}:{packaged.tag}")
    config = read_build_config(root / CONFIG_FILE)
    submits = _job_in_build(job, options) if options.target == "cloud-build" else None
    return with_build(plan_of(job, submission), config, packaged, submission, submits)


def _builds(options: argparse.Namespace) -> bool:
    return bool(options.build or options.target == "cloud-build")


def _job(
    options: argparse.Namespace,
    trainer_flags: Sequence[str],
    environment: Mapping[str, str],
    moment: datetime,
    image: str,
) -> Job:
    target: Target = (options.then or "vertex") if options.target == "cloud-build" else options.target
    return job_from_options(target, options, trainer_flags, environment, moment, image)


def _job_in_build(job: Job, options: argparse.Namespace) -> JobInBuild:
    """What the build's last step is told of the job: what was filled in here, so that it comes to the same."""
    from launch.services.build_request import JobInBuild

    place = {"zone": job.location} if job.target == "tpu-vm" else {"region": job.location}
    filled_in = argparse.Namespace(**{**vars(options), **place, "name": job.name, "project": "", "image": ""})
    records: str = getattr(options, "records", "")  # `plan` keeps none.
    shared = records if records.startswith("gs://") else ""
    return JobInBuild(job.target, (*arguments_of(filled_in), ASKED_BEFORE), job.trainer_flags, shared)


def _commit(root: Path) -> str:
    """The commit that is checked out, of which an earlier build made the image.

    Raises:
      UserError: there is none.
    """
    from launch.packaging.source_files import tree_state

    commit = tree_state(root).commit
    if not commit:
        raise UserError(f"No --image is given, and {root} is no git repository that names one: add --image or --build.")
    return commit
