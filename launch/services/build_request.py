"""cloudbuild.yaml as the request that starts a build, and as the gcloud command that starts the same.

Pure: what is made here is what `plan` prints and what `submit` sends. The fields are those of Build (v1) as
google-cloud-build 3.43 and gcloud 528 have them, 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.google.gcloud_command import GcloudCommand
from launch.jobs.job import CREATED_BY, NAME_LABEL, SUBMISSION_LABEL, Target
from launch.packaging.build_step import substitution_of
from launch.services.build_config import build_config_problems
from launch.services.service import ApiRequest
from trainer.errors import UserError

CONFIG_FILE = "cloudbuild.yaml"

CREATED_BY_TAG = "-".join(CREATED_BY)
"""The tag by which `launch list` knows its builds. Where other jobs have labels, builds have tags: words alone."""

LONGEST_VALUE = 4000
"""Bytes of a substitution's value (cloud.google.com/build/quotas, as it was in 2025; not looked up since)."""

_IMAGE = re.compile(
    r"(?P<region>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[a-z0-9.:-]+)/(?P<repository>[a-z0-9-]+)"
    r"/trainer-(?P<device>cpu|gpu|tpu):(?P<tag>\w[\w.-]{0,127})",
    re.ASCII,
)
"""The images that cloudbuild.yaml makes."""


@dataclass(frozen=True)
class StoredSource:
    """Where a package of sources is stored.

    Attributes:
      bucket: of Cloud Storage.
      name: of the object there.
    """

    bucket: str
    name: str


@dataclass(frozen=True)
class JobInBuild:
    """What the build submits when it has made its image.

    Attributes:
      target: who runs the job.
      options: of `python -m launch submit`, without target, project, image and submission: the build knows those.
      trainer_flags: what stands behind the "--".
      records: a gs:// folder for the job's record; "": it is lost with the build.
    """

    target: Target
    options: tuple[str, ...]
    trainer_flags: tuple[str, ...]
    records: str = ""


@dataclass(frozen=True)
class Build:
    """A build of an image, and perhaps the job that it submits.

    Attributes:
      config: what cloudbuild.yaml says.
      name: of the job that needs the image.
      project: id of the Google Cloud project.
      location: where the build runs, such as "us-central1" or "global".
      image: that it makes, as in "us-central1-docker.pkg.dev/p/hub-trainer/trainer-cpu:abc1234".
      test: whether it runs the tests too.
      service_account: what the build acts as, its address; "": as cloudbuild.yaml says.
      job: that it submits; None: it makes the image and no more.
    """

    config: Mapping[str, Any]
    name: str
    project: str
    location: str
    image: str
    test: bool = False
    service_account: str = ""
    job: JobInBuild | None = None


def create_request(build: Build, source: StoredSource, submission: str) -> ApiRequest:
    """What starts a build.

    Args:
      build: that is started.
      source: what it builds from.
      submission: the token of this submission; it becomes a tag.

    Raises:
      UserError: cloudbuild.yaml makes no image of that name.
    """
    tags = [*build.config.get("tags", []), *tags_of(build.name, submission)]
    body = {
        **build.config,
        "substitutions": {**build.config.get("substitutions", {}), **substitutions(build)},
        "tags": tags,
        "source": {"storageSource": {"bucket": source.bucket, "object": source.name}},
    }
    return ApiRequest("cloudbuild", "POST", f"v1/projects/{build.project}/locations/{build.location}/builds", body=body)


def gcloud_create(build: Build, source: StoredSource) -> GcloudCommand:
    """The gcloud command that starts the same build from the current folder.

    It differs in two things: gcloud packages the folder itself and stores that under a name of its own, and it has no
    option for tags, so that `launch list` does not know the build and the same command twice makes two.

    Args:
      build: that is started.
      source: gcloud stores what it packages beside it.

    Raises:
      UserError: as `create_request`.
    """
    return GcloudCommand(
        (
            *("builds", "submit", "."),
            f"--project={build.project}",
            f"--region={build.location}",
            f"--config={CONFIG_FILE}",
            f"--gcs-source-staging-dir=gs://{source.bucket}/{source.name.rpartition('/')[0]}",
            f"--substitutions={_for_gcloud(substitutions(build))}",
            "--async",
        )
    )


def problems(build: Build) -> list[str]:
    """What Cloud Build would refuse or silently do wrong, a sentence each.

    Args:
      build: any.

    Raises:
      UserError: as `create_request`.
    """
    given = substitutions(build)
    declared = build.config.get("substitutions", {})
    undeclared = [f"{CONFIG_FILE} has no substitution {name}: add it." for name in given if name not in declared]
    too_long = [
        f"{name} has {len(value.encode()):,} bytes, Cloud Build takes {LONGEST_VALUE:,}: use fewer flags, or submit "
        "from here with --build."
        for name, value in given.items()
        if len(value.encode()) > LONGEST_VALUE
    ]
    return [*build_config_problems(build.config), *undeclared, *too_long]


def tags_of(name: str, submission: str) -> list[str]:
    """The tags by which a build is found again.

    Args:
      name: of the job.
      submission: the token of the submission.
    """
    return [CREATED_BY_TAG, f"{NAME_LABEL}-{name}", submission_tag(submission)]


def submission_tag(submission: str) -> str:
    """The tag of the one build that a submission makes."""
    return f"{SUBMISSION_LABEL}-{submission}"


def substitutions(build: Build) -> dict[str, str]:
    """The values that a build gives to the substitutions of cloudbuild.yaml.

    Raises:
      UserError: cloudbuild.yaml makes no image of that name.
    """
    image = _IMAGE.fullmatch(build.image)
    if not image or image["project"] != build.project:
        raise UserError(
            f"{build.image} cannot be built in {build.project}: the name must be of the form "
            f"REGION-docker.pkg.dev/{build.project}/REPOSITORY/trainer-cpu:TAG (or -gpu, -tpu)."
        )
    values = {
        "_REGION": image["region"],
        "_REPOSITORY": image["repository"],
        "_DEVICE": image["device"],
        "_TAG": image["tag"],
        "_TEST": _word(build.test),
        "_SUBMIT": _word(build.job is not None),
    }
    if build.service_account:
        values["_SERVICE_ACCOUNT"] = build.service_account
    if build.job:
        values |= {
            "_JOB_TARGET": build.job.target,
            "_LAUNCH_OPTIONS": substitution_of(build.job.options),
            "_TRAINER_FLAGS": substitution_of(build.job.trainer_flags),
            "_JOBS": build.job.records,
        }
    return values


def _word(value: bool) -> str:
    return "true" if value else "false"


def _for_gcloud(values: Mapping[str, str]) -> str:
    """Values as gcloud's flags take them: with another sign between them where a value has a comma
    (`gcloud topic escaping`, 528)."""
    pairs = [f"{name}={value}" for name, value in values.items()]
    text = "".join(pairs)
    separator = next(sign for sign in _separators() if sign not in text)
    return ",".join(pairs) if separator == "," else f"^{separator}^{separator.join(pairs)}"


def _separators() -> Sequence[str]:
    return [",", ";", "|", "#", *("#" * count for count in range(2, LONGEST_VALUE))]
