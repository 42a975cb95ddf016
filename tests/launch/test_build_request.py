"""Requests that start a build: what is in them, and that gcloud sends the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builds
import pytest
from fakes import gcloud
from fakes.cloud import serving
from google.cloud.devtools.cloudbuild_v1.types import Build as BuildClass
from google.protobuf import json_format

from launch.packaging.build_step import submit_arguments
from launch.services.build_request import (
    JobInBuild,
    StoredSource,
    create_request,
    gcloud_create,
    problems,
    substitutions,
)
from trainer.errors import UserError

SOURCE = StoredSource("bucket", "hub-trainer/sources/0123.tar.gz")
SUBMISSION = "0123456789abcdef"
BUILD_ID = "5d1b9c3e-0000-4000-8000-000000000001"


def body_of(**changes: Any) -> dict[str, Any]:
    body = create_request(builds.make_build(**changes), SOURCE, SUBMISSION).body
    assert body is not None
    return dict(body)


def step_environment(body: dict[str, Any], step: str) -> dict[str, str]:
    """The environment that a step is given in the end."""
    built_in = {"PROJECT_ID": builds.PROJECT, "BUILD_ID": BUILD_ID}
    made = builds.substituted(body["steps"], {**body["substitutions"], **built_in})
    (found,) = [each for each in made if each["id"] == step]
    return dict(entry.split("=", 1) for entry in found["env"])


def test_the_request_is_cloudbuild_yaml_with_values_tags_and_source() -> None:
    build = builds.make_build()
    request = create_request(build, SOURCE, SUBMISSION)
    assert (request.api, request.method) == ("cloudbuild", "POST")
    assert request.path == "v1/projects/fake-project/locations/europe-west4/builds"
    assert request.body is not None
    same = ("steps", "images", "timeout", "serviceAccount", "options")
    assert {name: request.body[name] for name in same} == {name: build.config[name] for name in same}
    assert request.body["tags"] == [
        "created-by-hub-trainer",
        "hub-trainer-job-flowers",
        f"hub-trainer-submission-{SUBMISSION}",
    ]
    assert request.body["source"] == {"storageSource": {"bucket": SOURCE.bucket, "object": SOURCE.name}}
    changed = {
        name: value
        for name, value in request.body["substitutions"].items()
        if value != build.config["substitutions"][name]
    }
    assert changed == {
        "_REGION": "europe-west4",
        "_REPOSITORY": "images",
        "_DEVICE": "gpu",
        "_TAG": "abc1234",
        "_TEST": "false",
    }


@pytest.mark.parametrize(
    "job", [None, JobInBuild("tpu-vm", ("--zone=us-west4-a",), builds.HOSTILE_WORDS, "gs://b/jobs")]
)
def test_the_body_is_a_build_of_googles_own_class(job: JobInBuild | None) -> None:
    body = body_of(job=job, test=True, service_account="builder@p.iam.gserviceaccount.com")
    message = json_format.ParseDict(body, BuildClass.pb(BuildClass()))
    assert json_format.MessageToDict(message)["steps"] == body["steps"]
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**body, "stepz": []}, BuildClass.pb(BuildClass()))


def test_the_image_is_the_one_that_was_asked_for() -> None:
    body = body_of()
    assert builds.substituted(body["images"], {**body["substitutions"], "PROJECT_ID": builds.PROJECT}) == [builds.IMAGE]


def test_options_and_flags_reach_the_job_as_they_are() -> None:
    job = JobInBuild("vertex", ("--accelerator=l4:2", *builds.HOSTILE_WORDS), builds.HOSTILE_WORDS, "gs://b/jobs")
    environment = step_environment(body_of(job=job), "submit")
    assert environment["SUBMIT"] == "true"
    assert environment["JOB_RECORDS"] == "gs://b/jobs"
    own = [
        f"--project={builds.PROJECT}",
        f"--image={builds.IMAGE}",
        f"--submission={BUILD_ID}",
        "--records=gs://b/jobs",
    ]
    expected = ["submit", "vertex", *own, *job.options, "--", *builds.HOSTILE_WORDS]
    assert submit_arguments(environment) == expected


def test_what_is_not_asked_for_is_not_done() -> None:
    without = step_environment(body_of(), "submit")["SUBMIT"], step_environment(body_of(), "test")["TEST"]
    assert without == ("false", "false")
    assert step_environment(body_of(test=True), "test")["TEST"] == "true"


@pytest.mark.parametrize(
    "image",
    [
        "gcr.io/fake-project/trainer-gpu:a",
        builds.IMAGE.replace("fake-project", "other"),
        "trainer-cpu",
        builds.IMAGE + "\n",
    ],
)
def test_an_image_that_the_build_does_not_make_is_refused(image: str) -> None:
    with pytest.raises(UserError, match="cannot be built in fake-project"):
        create_request(builds.make_build(image=image), SOURCE, SUBMISSION)


def test_problems() -> None:
    assert problems(builds.make_build(job=JobInBuild("vertex", (), ("--x=" + "y" * 3900,)))) == []
    (long,) = problems(builds.make_build(job=JobInBuild("vertex", (), ("--x=" + "y" * 4000,))))
    assert long.startswith("_TRAINER_FLAGS has 4,008 bytes, Cloud Build takes 4,000")
    build = builds.make_build()
    declared = {name: value for name, value in build.config["substitutions"].items() if name != "_TEST"}
    found = problems(builds.make_build(config={**build.config, "substitutions": declared}))
    assert "cloudbuild.yaml has no substitution _TEST: add it." in found


@gcloud.requires_gcloud
def test_gcloud_sends_the_same_but_for_tags_and_source(tmp_path: Path) -> None:
    job = JobInBuild("vertex", ("--accelerator=l4", "--label=a=b,c"), builds.HOSTILE_WORDS, "gs://b/jobs")
    build = builds.make_build(job=job)
    request = create_request(build, SOURCE, SUBMISSION)
    assert request.body is not None
    expected = {name: value for name, value in request.body.items() if name not in ("tags", "source")}
    text = (builds.ROOT / "cloudbuild.yaml").read_text(encoding="utf-8")
    with serving() as cloud:
        cloud.bucket(SOURCE.bucket)
        done = gcloud.run(gcloud_create(build, SOURCE).arguments, cloud, tmp_path, {"cloudbuild.yaml": text})
        assert done.returncode == 0, done.stderr
        (sent,) = cloud.sent("cloudbuild", "POST")
    assert sent.path.lstrip("/") == request.path
    stored = sent.body.pop("source")["storageSource"]
    assert stored["bucket"] == SOURCE.bucket and stored["object"].startswith("hub-trainer/sources/")
    assert sent.body == expected
    assert json.loads(sent.body["substitutions"]["_TRAINER_FLAGS"]) == list(builds.HOSTILE_WORDS)


def test_gcloud_gets_another_separator_where_a_value_has_a_comma() -> None:
    def flag(job: JobInBuild | None) -> str:
        arguments = gcloud_create(builds.make_build(job=job), SOURCE).arguments
        (found,) = [each for each in arguments if each.startswith("--substitutions=")]
        return found.removeprefix("--substitutions=")

    assert flag(None) == ",".join(f"{name}={value}" for name, value in substitutions(builds.make_build()).items())
    assert flag(JobInBuild("vertex", ("--a=b,c",), ())).startswith("^;^_REGION=europe-west4;_REPOSITORY=")
    assert flag(JobInBuild("vertex", ("--a=,;|#",), ())).startswith("^##^_REGION=europe-west4##")
