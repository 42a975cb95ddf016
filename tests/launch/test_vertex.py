"""Jobs of Vertex AI, at the fake: each is made once, is found again, and its end is told."""

from __future__ import annotations

import datetime
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import gcloud
from fakes.cloud import FakeCloud, Fault, serving
from fakes.vertex_api import CustomJob
from jobs import SUBMISSION, THREE_WORKERS, api_at, make_job

from launch.google.google_api import ApiError
from launch.google.log_entries import LogReader
from launch.services.service import JobStatus, NoSuchJobError, State
from launch.services.vertex import VertexService
from launch.services.vertex_request import create_request
from trainer.errors import UserError

PROJECT, REGION = "project-1", "us-central1"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
START = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    minutes = itertools.count()
    with serving(clock=lambda: START + datetime.timedelta(minutes=next(minutes))) as cloud:
        yield cloud


def service_at(cloud: FakeCloud) -> VertexService:
    return VertexService(api_at(cloud))


def created(cloud: FakeCloud, submission: str = SUBMISSION, **fields: Any) -> JobStatus:
    return service_at(cloud).create(create_request(make_job(**fields), submission), submission)


def after(cloud: FakeCloud, state: str, error: str = "", **fields: Any) -> JobStatus:
    """The status of a job once the service has moved it there."""
    job = cloud.vertex.jobs[created(cloud, **fields).resource]
    job.script = None
    job.set_state(state, error)
    return service_at(cloud).get(job.name)


def test_a_job_is_made_as_it_was_asked_for(cloud: FakeCloud) -> None:
    status = created(cloud)
    (job,) = cloud.vertex.jobs.values()
    (sent,) = cloud.sent("aiplatform")
    assert sent.body == create_request(make_job(), SUBMISSION).body
    assert status.resource == job.name
    assert (status.name, status.submission, status.state) == ("flowers-1", SUBMISSION, State.QUEUED)
    assert status.created == START
    assert status.details["results"] == "gs://bucket/runs/flowers"


def test_ten_lost_answers_make_ten_jobs(cloud: FakeCloud) -> None:
    tokens = [f"submission-{number}" for number in range(10)]
    for token in tokens:
        cloud.faults.append(Fault("POST .*customJobs", "lost answer", times=1))
        assert created(cloud, token).submission == token
    assert [job.resource["labels"]["hub-trainer-submission"] for job in cloud.vertex.jobs.values()] == tokens


@pytest.mark.parametrize("effect", ["dropped", "lost answer", "truncated", "rubbish", 429, 503])
def test_whatever_happens_to_an_answer_there_is_one_job(cloud: FakeCloud, effect: Any) -> None:
    cloud.faults.append(Fault("POST .*customJobs", effect, times=2))
    created(cloud)
    assert len(cloud.vertex.jobs) == 1


def test_looking_a_job_up_may_fail_too(cloud: FakeCloud) -> None:
    cloud.faults += [Fault("POST .*customJobs", "lost answer", times=1), Fault("GET .*customJobs", 503, times=2)]
    created(cloud)
    assert len(cloud.vertex.jobs) == 1


def test_a_refused_job_is_not_asked_for_again(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("POST .*customJobs", 403))
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        created(cloud)
    assert len(cloud.sent("aiplatform")) == 1


def test_a_submission_is_found_by_its_token(cloud: FakeCloud) -> None:
    created(cloud, "one")
    two = created(cloud, "two")
    assert service_at(cloud).find(PROJECT, REGION, "two") == two
    assert service_at(cloud).find(PROJECT, REGION, "three") is None
    assert service_at(cloud).find(PROJECT, "europe-west4", "two") is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("JOB_STATE_QUEUED", State.QUEUED),
        ("JOB_STATE_PENDING", State.QUEUED),
        ("JOB_STATE_PAUSED", State.QUEUED),
        ("JOB_STATE_RUNNING", State.RUNNING),
        ("JOB_STATE_UPDATING", State.RUNNING),
        ("JOB_STATE_CANCELLING", State.STOPPING),
        ("JOB_STATE_SUCCEEDED", State.SUCCEEDED),
        ("JOB_STATE_FAILED", State.FAILED),
        ("JOB_STATE_EXPIRED", State.FAILED),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", State.FAILED),
        ("JOB_STATE_CANCELLED", State.CANCELLED),
        ("JOB_STATE_OF_NEXT_YEAR", State.RUNNING),
    ],
)
def test_every_state_is_one_of_ours(cloud: FakeCloud, said: str, state: State) -> None:
    status = after(cloud, said)
    assert (status.said, status.state) == (said, state)
    assert status.launcher_exit_code == (0 if state is State.SUCCEEDED else 1)


def test_a_state_that_is_new_to_us_ends_with_the_job(cloud: FakeCloud) -> None:
    job = cloud.vertex.jobs[created(cloud).resource]
    job.script = None
    job.resource.update(state="JOB_STATE_OF_NEXT_YEAR", endTime="2026-11-22T13:00:00Z")
    assert service_at(cloud).get(job.name).state is State.FAILED


def test_all_states_of_the_api_are_known(cloud: FakeCloud) -> None:
    from google.cloud.aiplatform_v1.types import JobState

    known = set(JobState.__members__) - {"JOB_STATE_UNSPECIFIED"}
    states = {said: after(cloud, said).state for said in known}
    assert {said for said, state in states.items() if state is State.RUNNING} == {
        "JOB_STATE_RUNNING",
        "JOB_STATE_UPDATING",
    }


TAKEN_AWAY = "Resources are insufficient in region: us-central1. Try a different region or use a different accelerator."


@pytest.mark.parametrize(
    ("error", "provisioning", "state", "exit_code"),
    [
        ("The replica workerpool0-0 exited with a non-zero status of 1.", "standard", State.FAILED, 1),
        (
            "The replica workerpool1-2 exited with a non-zero status of 139. Termination reason: Error.",
            "spot",
            State.FAILED,
            139,
        ),
        (
            "The replica workerpool0-0 ran out of memory and exited with a non-zero status of 137.",
            "spot",
            State.FAILED,
            137,
        ),
        ("The replica workerpool0-0 exited with a non-zero status of 2. To find out more ...", "spot", State.FAILED, 2),
        ("The replica workerpool0-0 exited with a non-zero status of 75.", "standard", State.PREEMPTED, 75),
        (TAKEN_AWAY, "standard", State.FAILED, None),
        (TAKEN_AWAY, "spot", State.PREEMPTED, None),
        ("Internal error occurred for the current attempt", "spot", State.FAILED, None),
    ],
)
def test_the_end_is_told_with_the_trainers_exit_code(
    cloud: FakeCloud, error: str, provisioning: str, state: State, exit_code: int | None
) -> None:
    job = cloud.vertex.jobs[created(cloud, provisioning=provisioning).resource]
    job.script = None
    job.set_state("JOB_STATE_RUNNING")
    job.set_state("JOB_STATE_FAILED", error)
    status = service_at(cloud).get(job.name)
    assert (status.error, status.state, status.exit_code) == (error, state, exit_code)
    assert status.launcher_exit_code == (exit_code or 1)
    assert status.started is not None
    assert status.ended is not None
    assert status.created < status.started < status.ended if status.created else False


def test_spot_machines_that_never_came_were_not_taken_away(cloud: FakeCloud) -> None:
    status = after(cloud, "JOB_STATE_FAILED", TAKEN_AWAY, provisioning="spot")
    assert (status.started, status.state) == (None, State.FAILED)


def test_a_job_that_is_not_there_is_said(cloud: FakeCloud) -> None:
    for ask in (service_at(cloud).get, service_at(cloud).cancel):
        with pytest.raises(NoSuchJobError, match=rf"Vertex AI has no {PARENT}/customJobs/5: python -m launch list"):
            ask(f"{PARENT}/customJobs/5")


def test_a_job_that_may_not_be_seen_is_said(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("customJobs", 403))
    for ask in (service_at(cloud).get, service_at(cloud).cancel):
        with pytest.raises(UserError, match=r"customJobs/5 is not yours to use: .*roles/aiplatform.user"):
            ask(f"{PARENT}/customJobs/5")


def test_a_service_that_fails_is_no_sentence_for_the_user(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("customJobs", 503))
    with pytest.raises(ApiError, match="UNAVAILABLE"):
        service_at(cloud).get(f"{PARENT}/customJobs/5")


def test_a_running_job_is_asked_to_end(cloud: FakeCloud) -> None:
    resource = created(cloud).resource
    service_at(cloud).cancel(resource)
    assert cloud.vertex.jobs[resource].state == "JOB_STATE_CANCELLING"
    assert service_at(cloud).get(resource).state is State.CANCELLED


@pytest.mark.parametrize("said", ["JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"])
def test_a_job_that_has_ended_stays_as_it_is(cloud: FakeCloud, said: str) -> None:
    status = after(cloud, said)
    service_at(cloud).cancel(status.resource)
    assert service_at(cloud).get(status.resource) == status


def test_a_refusal_to_end_a_running_job_is_no_success(cloud: FakeCloud) -> None:
    resource = created(cloud).resource
    cloud.faults.append(Fault(":cancel", 400))
    with pytest.raises(ApiError, match="injected"):
        service_at(cloud).cancel(resource)


def test_our_jobs_are_listed_the_newest_first(cloud: FakeCloud) -> None:
    made = [created(cloud, token).resource for token in ("one", "two", "three")]
    for number, job in enumerate(list(cloud.vertex.jobs.values())):  # The API promises no order.
        job.resource["createTime"] = f"2026-11-22T12:00:0{(number + 1) % 3}{'.5' if number else ''}Z"
    created(cloud, "elsewhere", location="europe-west4")
    del cloud.vertex.jobs[created(cloud, "of-others").resource].resource["labels"]["created-by"]
    listed = list(service_at(cloud).list(PROJECT, REGION))
    assert [status.resource for status in listed] == [made[1], made[0], made[2]]
    assert [status.submission for status in listed] == ["two", "one", "three"]


def test_a_thousand_jobs_are_listed_in_two_seconds(cloud: FakeCloud) -> None:
    first = cloud.vertex.jobs[created(cloud).resource]
    for number in range(999):
        name = f"{PARENT}/customJobs/{number}"
        resource = {**first.resource, "name": name}
        cloud.vertex.jobs[name] = CustomJob(resource, None, cloud.lock, lambda: START)
    begun = time.monotonic()
    listed = list(service_at(cloud).list(PROJECT, REGION))
    assert time.monotonic() - begun < 2.0
    assert len({status.resource for status in listed}) == 1000
    assert len(cloud.sent("aiplatform", "GET")) == 10


def test_the_workers_lines_are_found_by_the_filter(cloud: FakeCloud) -> None:
    service = service_at(cloud)
    mine, other = created(cloud, "mine"), created(cloud, "other")
    for text, status, when in [
        ("hello", mine, mine.created),
        ("another", other, other.created),
        ("old", mine, START.replace(year=2025)),
    ]:
        resource = {"type": "ml_job", "labels": {"job_id": status.resource.rpartition("/")[2]}}
        cloud.logs.write(PROJECT, "ml.googleapis.com/x", text, resource, when=when)
    reader = LogReader(api_at(cloud), PROJECT)
    assert [line.text for line in reader.open(service.log_filter(mine)).new_lines()] == ["hello"]
    assert service.log_filter(JobStatus(f"{PARENT}/customJobs/5", "n", State.RUNNING, "")) == (
        'resource.type="ml_job" AND resource.labels.job_id="5"'
    )


def test_a_job_has_a_page_in_the_console(cloud: FakeCloud) -> None:
    assert service_at(cloud).console_url(f"{PARENT}/customJobs/5") == (
        "https://console.cloud.google.com/agent-platform/locations/us-central1/training/5?project=project-1"
    )


def test_what_the_service_tells_beside_is_there(cloud: FakeCloud) -> None:
    job = cloud.vertex.jobs[created(cloud, hardware=THREE_WORKERS, provisioning="spot").resource]
    job.resource["webAccessUris"] = {"workerpool0-0": "https://shell.example"}
    details = service_at(cloud).get(job.name).details
    assert details == {
        "hardware": "3 x g2-standard-24 with 2 NVIDIA_L4",
        "image": "us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123",
        "results": "gs://bucket/runs/flowers",
        "provisioning": "SPOT",
        "time limit": "86400s",
        "shell of workerpool0-0": "https://shell.example",
    }


@gcloud.requires_gcloud
def test_gcloud_understands_the_commands(cloud: FakeCloud, tmp_path: Path) -> None:
    resource = created(cloud).resource
    job = cloud.vertex.jobs[resource]
    job.script = None
    expected = {"status": ("aiplatform", "GET"), "cancel": ("aiplatform", "POST"), "logs": ("logging", "POST")}
    for name, arguments in service_at(cloud).gcloud_commands(resource).items():
        cloud.requests.clear()
        started = subprocess.Popen(
            ["gcloud", *arguments],
            env=gcloud.environment(cloud, tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + gcloud.SECONDS
        while not cloud.sent(*expected[name]) and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        started.kill()  # It would follow the log on.
        said, _ = started.communicate(timeout=10)
        assert cloud.sent(*expected[name]), said
    assert job.cancel_requested.is_set()
