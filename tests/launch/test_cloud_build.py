"""Builds of Cloud Build, at the fake: each is started once, is found again, and its end is told."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import builds
import pytest
from fakes.cloud import FakeCloud, Fault, serving
from jobs import api_at

from launch.google.google_api import ApiError
from launch.packaging.image_build import store, stored_source
from launch.packaging.source_files import TreeState
from launch.packaging.working_tree import Package
from launch.services.build_request import StoredSource, create_request
from launch.services.cloud_build import CloudBuildService
from launch.services.service import JobStatus, NoSuchJobError, State
from trainer.errors import UserError

SOURCE = StoredSource("bucket", "hub-trainer/sources/0123.tar.gz")
PARENT = f"projects/{builds.PROJECT}/locations/europe-west4"
SUBMISSION = "s0123456789abcdef"
START = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)
PACKAGE = Package(b"content", "0" * 64, 1, 1, TreeState("", None))


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    minutes = itertools.count()
    with serving(clock=lambda: START + datetime.timedelta(minutes=next(minutes))) as cloud:
        cloud.bucket("bucket")
        yield cloud


def service_at(cloud: FakeCloud) -> CloudBuildService:
    return CloudBuildService(api_at(cloud))


def created(cloud: FakeCloud, submission: str = SUBMISSION, name: str = "flowers") -> JobStatus:
    request = create_request(builds.make_build(name=name), SOURCE, submission)
    return service_at(cloud).create(request, submission)


def after(cloud: FakeCloud, status: str, **fields: Any) -> JobStatus:
    """The status of a build once the service has moved it there."""
    build = cloud.builds.builds[created(cloud).resource.rpartition("/")[2]]
    build.script = None
    build.set_status(status, fields.pop("detail", ""))
    build.resource.update(fields)
    return service_at(cloud).get(build.name)


def test_a_build_is_started_as_it_was_asked_for(cloud: FakeCloud) -> None:
    status = created(cloud)
    (build,) = cloud.builds.builds.values()
    (sent,) = cloud.sent("cloudbuild")
    assert sent.body == create_request(builds.make_build(), SOURCE, SUBMISSION).body
    assert status.resource == build.name
    assert (status.name, status.submission, status.state) == ("flowers", SUBMISSION, State.QUEUED)
    assert status.created == START
    assert status.details["source"] == "gs://bucket/hub-trainer/sources/0123.tar.gz"


def test_ten_lost_answers_start_ten_builds(cloud: FakeCloud) -> None:
    tokens = [f"submission-{number}" for number in range(10)]
    for token in tokens:
        cloud.faults.append(Fault("POST .*builds", "lost answer", times=1))
        assert created(cloud, token).submission == token
    assert [build.resource["tags"][-1] for build in cloud.builds.builds.values()] == [
        f"hub-trainer-submission-{token}" for token in tokens
    ]


def test_a_submission_is_found_by_its_token(cloud: FakeCloud) -> None:
    made = created(cloud)
    created(cloud, SUBMISSION + "0")
    found = service_at(cloud).find(builds.PROJECT, "europe-west4", SUBMISSION)
    assert found == made
    assert service_at(cloud).find(builds.PROJECT, "europe-west4", "other") is None
    assert service_at(cloud).find(builds.PROJECT, "us-central1", SUBMISSION) is None


def test_a_refused_build_is_not_asked_for_again(cloud: FakeCloud) -> None:
    build = builds.make_build()
    request = create_request(replace(build, config={**build.config, "timeout": "90000s"}), SOURCE, SUBMISSION)
    with pytest.raises(ApiError, match="build timeout 90000s"):
        service_at(cloud).create(request, SUBMISSION)
    assert len(cloud.sent("cloudbuild")) == 1


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("PENDING", State.QUEUED),
        ("WORKING", State.RUNNING),
        ("SUCCESS", State.SUCCEEDED),
        ("FAILURE", State.FAILED),
        ("INTERNAL_ERROR", State.FAILED),
        ("TIMEOUT", State.FAILED),
        ("EXPIRED", State.FAILED),
        ("CANCELLED", State.CANCELLED),
    ],
)
def test_states(cloud: FakeCloud, said: str, state: State) -> None:
    status = after(cloud, said)
    assert (status.said, status.state) == (said, state)
    assert (status.ended is not None) == state.has_ended
    assert (status.started is not None) == (said == "WORKING")


def test_a_new_word_is_running_until_the_build_has_an_end(cloud: FakeCloud) -> None:
    assert after(cloud, "MUSING").state is State.RUNNING
    assert after(cloud, "MUSING", finishTime="2026-11-22T12:00:00Z").state is State.FAILED


def test_a_failure_names_the_step_and_what_it_said(cloud: FakeCloud) -> None:
    ends = {"build": "SUCCESS", "test": "FAILURE", "push": "QUEUED"}
    steps = [{"id": step, "status": status} for step, status in ends.items()]
    status = after(cloud, "FAILURE", detail="non-zero status: 1", steps=steps)
    assert status.error == "step test: non-zero status: 1"
    assert status.launcher_exit_code == 1


def test_what_was_made_is_told_with_its_digest(cloud: FakeCloud) -> None:
    made = {"images": [{"name": builds.IMAGE, "digest": "sha256:12"}]}
    assert after(cloud, "SUCCESS", results=made).details["image"] == f"{builds.IMAGE}@sha256:12"


def test_a_thousand_builds_are_listed_the_newest_first_in_two_seconds(cloud: FakeCloud) -> None:
    first = created(cloud)
    (made,) = cloud.builds.builds.values()
    for number in range(999):
        name = f"{PARENT}/builds/{number:08x}"
        other = {**made.resource, "name": name, "tags": ["created-by-hub-trainer", f"hub-trainer-job-n{number}"]}
        cloud.builds.builds[name] = type(made)(other, None, cloud.lock, lambda: START)
    foreign = {**made.resource, "name": f"{PARENT}/builds/ff", "tags": ["created-by-somebody"]}
    cloud.builds.builds["foreign"] = type(made)(foreign, None, cloud.lock, lambda: START)
    begin = time.monotonic()
    names = [status.name for status in service_at(cloud).list(builds.PROJECT, "europe-west4")]
    assert time.monotonic() - begin < 2
    assert names == [*(f"n{number}" for number in reversed(range(999))), first.name]


def test_a_build_that_is_not_there(cloud: FakeCloud) -> None:
    for ask in (service_at(cloud).get, service_at(cloud).cancel):
        with pytest.raises(NoSuchJobError, match="^Cloud Build has no projects/.*/builds/5d1b: python -m launch list"):
            ask(f"{PARENT}/builds/5d1b")


def test_a_build_that_may_not_be_seen(cloud: FakeCloud) -> None:
    status = created(cloud)
    cloud.faults.append(Fault("GET .*builds", 403, times=1))
    with pytest.raises(UserError, match="is not yours to use: .*roles/cloudbuild.builds.editor") as error:
        service_at(cloud).get(status.resource)
    assert not isinstance(error.value, NoSuchJobError)


def test_cancelling_twice_is_cancelling_once(cloud: FakeCloud) -> None:
    status = created(cloud)
    service_at(cloud).cancel(status.resource)
    assert service_at(cloud).get(status.resource).state is State.CANCELLED
    service_at(cloud).cancel(status.resource)


def test_what_does_not_let_itself_be_cancelled_is_said(cloud: FakeCloud) -> None:
    status = created(cloud)
    cloud.faults.append(Fault("POST .*cancel", 400, times=1))
    with pytest.raises(ApiError):
        service_at(cloud).cancel(status.resource)


def test_where_to_look(cloud: FakeCloud) -> None:
    status = created(cloud)
    number = status.resource.rpartition("/")[2]
    service = service_at(cloud)
    assert service.log_filter(status) == (
        'logName="projects/fake-project/logs/cloudbuild" AND resource.type="build" AND '
        f'resource.labels.build_id="{number}" AND timestamp>="2026-11-22T12:00:00.000000Z"'
    )
    assert service.console_url(status.resource) == (
        f"https://console.cloud.google.com/cloud-build/builds;region=europe-west4/{number}?project=fake-project"
    )
    assert service.gcloud_commands(status.resource)["cancel"] == (
        *("builds", "cancel", number, "--region=europe-west4", "--project=fake-project"),
    )


def test_the_same_tree_is_stored_once(cloud: FakeCloud) -> None:
    source = stored_source(PACKAGE, "bucket")
    for _ in range(2):
        store(api_at(cloud), PACKAGE, source)
    assert source.name == f"hub-trainer/sources/{'0' * 64}.tar.gz"
    assert cloud.bucket("bucket").content(source.name) == b"content"
    sent = cloud.sent("storage")
    assert [request.query["ifGenerationMatch"] for request in sent] == ["0", "0"]
    assert sent[0].headers["Content-Type"] == "application/gzip"


def test_an_upload_whose_answer_is_lost_is_done(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("POST .*upload", "lost answer", times=1))
    store(api_at(cloud), PACKAGE, stored_source(PACKAGE, "bucket"))
    assert len(cloud.sent("storage")) == 2


def test_a_package_that_cannot_be_stored_is_said(cloud: FakeCloud) -> None:
    with pytest.raises(ApiError, match="bucket does not exist"):
        store(api_at(cloud), PACKAGE, stored_source(PACKAGE, "elsewhere"))
