"""Jobs on Cloud TPU, at the fake: each is made once, is found again, and its end is told even when it is gone."""

from __future__ import annotations

import datetime
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import gcloud
from fakes.cloud import FakeCloud, Fault, serving
from jobs import SUBMISSION, V5E_8, api_at, make_job

from launch.google.google_api import ApiError
from launch.google.log_entries import LogReader
from launch.services.service import ApiRequest, JobStatus, NoSuchJobError, State
from launch.services.tpu_request import again, create_request, resource_of
from launch.services.tpu_vm import TpuVmService
from trainer.errors import UserError

PARENT = "projects/project-1/locations/us-west4-a"
RESOURCE = f"{PARENT}/queuedResources/flowers-1"
START = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)
ENDED = datetime.datetime(2026, 11, 22, 13, 0, 0, tzinfo=datetime.timezone.utc)


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    seconds = itertools.count()
    with serving(clock=lambda: START + datetime.timedelta(seconds=next(seconds))) as cloud:
        cloud.bucket("bucket")
        yield cloud


def service_at(cloud: FakeCloud, now: datetime.datetime = START) -> TpuVmService:
    return TpuVmService(api_at(cloud), now=lambda: now)


def requested(submission: str = SUBMISSION, **fields: Any) -> ApiRequest:
    job = make_job(V5E_8, "--strategy=tpu", target="tpu-vm", location="us-west4-a", runtime="r", **fields)
    return create_request(job, submission)


def created(cloud: FakeCloud, submission: str = SUBMISSION, **fields: Any) -> JobStatus:
    return service_at(cloud).create(requested(submission, **fields), submission)


def set_state(cloud: FakeCloud, state: str, error: str = "", initiator: str = "SERVICE") -> None:
    """Moves the one job to a state, where it stays."""
    (known,) = cloud.tpu.resources.values()
    known.script = []
    known.set_state(state, error, initiator)


def tell_ended(cloud: FakeCloud, worker: int = 0, **changes: Any) -> None:
    """Writes what a start-up script has told."""
    content = {"exit_code": 3, "stage": "run", "message": "hub-trainer ended", "when": ENDED.isoformat()}
    content |= {"submission": SUBMISSION, "resource": RESOURCE, **changes}
    name = f"runs/flowers/launch/flowers-1/ended-{worker}.json"
    cloud.bucket("bucket").put(name, json.dumps(content).encode())


def test_a_job_is_made_as_it_was_asked_for(cloud: FakeCloud) -> None:
    status = created(cloud, labels={"team": "vision"}, provisioning="spot", max_wait_hours=1)
    (known,) = cloud.tpu.resources.values()
    assert (
        cloud.sent("tpu", "POST")[0].body
        == requested(labels={"team": "vision"}, provisioning="spot", max_wait_hours=1).body
    )
    assert (status.resource, status.name, status.submission) == (known.name, "flowers-1", SUBMISSION)
    assert (status.state, status.said, status.created) == (State.QUEUED, "WAITING_FOR_RESOURCES", START)
    assert status.details == {
        "hardware": "v5litepod-8",
        "image": "us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123",
        "results": "gs://bucket/runs/flowers/launch/flowers-1",
        "provisioning": "spot",
        "time limit": "24 h for each request",
    }


@pytest.mark.parametrize("effect", ["lost answer", "dropped", 503, "rubbish"])
def test_ten_answers_that_get_lost_make_ten_jobs(cloud: FakeCloud, effect: Any) -> None:
    names = [f"job-{number}" for number in range(10)]
    for name in names:
        cloud.faults.append(Fault("POST .*queuedResources", effect, times=1))
        assert created(cloud, f"token-of-{name}", name=name).submission == f"token-of-{name}"
    assert [known.name.rpartition("/")[2] for known in cloud.tpu.resources.values()] == names


def test_a_second_answer_that_gets_lost_finds_the_job_of_the_first(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("POST .*queuedResources", "lost answer", times=1))
    cloud.faults.append(Fault("GET .*queuedResources", 404, times=1))  # Not to be seen yet.
    assert created(cloud).submission == SUBMISSION
    assert len(cloud.tpu.resources) == 1


def test_a_name_that_is_another_jobs_is_told(cloud: FakeCloud) -> None:
    created(cloud, "another")
    with pytest.raises(UserError, match=f"{RESOURCE} exists already and belongs to another submission: give another"):
        created(cloud)
    assert len(cloud.tpu.resources) == 1


def test_a_creation_that_is_refused_later_is_told(cloud: FakeCloud) -> None:
    from fakes.server import Answer

    refused = {"name": "o", "done": True, "error": {"code": 8, "message": "Quota 'TPUV5sLitepodPerProject' exhausted"}}
    cloud.faults.append(Fault("GET .*operations", Answer(200, json.dumps(refused).encode())))
    with pytest.raises(ApiError, match="Quota 'TPUV5sLitepodPerProject' exhausted"):
        created(cloud)


@pytest.mark.parametrize(
    "state, initiator, expected",
    [
        ("CREATING", "SERVICE", State.QUEUED),
        ("ACCEPTED", "SERVICE", State.QUEUED),
        ("WAITING_FOR_RESOURCES", "SERVICE", State.QUEUED),
        ("PROVISIONING", "SERVICE", State.QUEUED),
        ("ACTIVE", "SERVICE", State.RUNNING),
        ("SUSPENDING", "SERVICE", State.PREEMPTED),
        ("SUSPENDED", "SERVICE", State.PREEMPTED),
        ("SUSPENDED", "USER", State.CANCELLED),
        ("FAILED", "SERVICE", State.FAILED),
        ("NEW_TO_US", "SERVICE", State.QUEUED),
    ],
)
def test_every_state_means_something(cloud: FakeCloud, state: str, initiator: str, expected: State) -> None:
    created(cloud)
    set_state(cloud, state, initiator=initiator)
    status = service_at(cloud).get(RESOURCE)
    assert (status.state, status.said, status.exit_code, status.ended) == (expected, state, None, None)
    # Who is followed while it waits, perhaps for hours, costs one request a look.
    assert bool(cloud.sent("storage")) == (expected not in (State.QUEUED, State.FAILED))


def test_the_api_has_no_state_that_means_nothing() -> None:
    from google.cloud.tpu_v2.types import QueuedResourceState

    from launch.services.tpu_vm import STATES

    assert {*STATES, "STATE_UNSPECIFIED"} == set(QueuedResourceState.State.__members__)


def test_why_a_request_failed_is_told(cloud: FakeCloud) -> None:
    created(cloud)
    set_state(cloud, "FAILED", "there is no more capacity in the zone")
    status = service_at(cloud).get(RESOURCE)
    assert (status.error, status.launcher_exit_code) == ("there is no more capacity in the zone", 1)


@pytest.mark.parametrize("seconds, state", [(3600 + 500, State.QUEUED), (3600 + 700, State.FAILED)])
def test_a_request_that_waited_too_long_has_failed(cloud: FakeCloud, seconds: int, state: State) -> None:
    created(cloud, max_wait_hours=1)
    set_state(cloud, "WAITING_FOR_RESOURCES")
    status = service_at(cloud, START + datetime.timedelta(seconds=seconds)).get(RESOURCE)
    assert status.state is state
    assert ("no machines within --max_wait_hours" in status.error) == (state is State.FAILED)


@pytest.mark.parametrize("state", ["ACTIVE", "DELETING", "SUSPENDED", "gone"])
@pytest.mark.parametrize("exit_code, expected", [(0, State.SUCCEEDED), (3, State.FAILED)])
def test_how_the_trainer_ended_counts_more_than_its_machines(
    cloud: FakeCloud, state: str, exit_code: int, expected: State
) -> None:
    created(cloud)
    tell_ended(cloud, exit_code=exit_code)
    if state == "gone":
        cloud.tpu.resources.clear()
    else:
        set_state(cloud, state)
    status = service_at(cloud).get_requested(RESOURCE, requested())
    assert (status.state, status.said, status.exit_code, status.ended) == (expected, state, exit_code, ENDED)
    assert status.error == ("run: hub-trainer ended" if exit_code else "hub-trainer ended")
    assert (status.name, status.submission, status.launcher_exit_code) == ("flowers-1", SUBMISSION, exit_code)


def test_a_host_that_gave_up_counts_where_the_first_told_nothing(cloud: FakeCloud) -> None:
    created(cloud)
    set_state(cloud, "ACTIVE")
    tell_ended(cloud, 10, message="of worker 10")
    tell_ended(cloud, 2, message="of worker 2")
    assert service_at(cloud).get(RESOURCE).error == "run: of worker 2"
    tell_ended(cloud, 0, message="of worker 0")
    assert service_at(cloud).get(RESOURCE).error == "run: of worker 0"


def test_what_an_earlier_job_of_that_name_told_is_not_this_ones(cloud: FakeCloud) -> None:
    created(cloud)
    tell_ended(cloud, submission="another")
    set_state(cloud, "ACTIVE")
    assert service_at(cloud).get(RESOURCE).state is State.RUNNING
    cloud.tpu.resources.clear()
    status = service_at(cloud).get_requested(RESOURCE, requested())
    assert (status.state, status.said, status.exit_code) == (State.CANCELLED, "gone", None)
    assert "its start-up script has told nothing of an end" in status.error


@pytest.mark.parametrize("changes", [{"exit_code": "0"}, {"exit_code": -9}, {"when": "today"}, {"when": "2026-11-22"}])
def test_an_end_that_makes_no_sense_is_a_failure(cloud: FakeCloud, changes: dict[str, Any]) -> None:
    created(cloud)
    set_state(cloud, "ACTIVE")
    tell_ended(cloud, **changes)
    status = service_at(cloud).get(RESOURCE)
    assert status.state is State.FAILED
    assert status.exit_code == (1 if "exit_code" in changes else 3)
    assert (status.ended is None) == ("when" in changes)


def test_a_job_that_is_not_there_is_told(cloud: FakeCloud) -> None:
    with pytest.raises(NoSuchJobError, match=f"{RESOURCE} does not exist, or no more"):
        service_at(cloud).get(RESOURCE)
    cloud.faults.append(Fault("GET .*queuedResources", 403))
    with pytest.raises(UserError, match="may not be seen .*roles/tpu.viewer"):
        service_at(cloud).get(RESOURCE)


def test_a_submission_is_found_by_its_token(cloud: FakeCloud) -> None:
    service = service_at(cloud)
    created(cloud, "first", name="a")
    created(cloud, "second", name="b")
    found = service.find("project-1", "us-west4-a", "first")
    assert found is not None and found.name == "a"
    assert service.find("project-1", "us-west4-a", "third") is None
    service.request_again(requested("first", name="a"), 2, "first")
    found = service.find("project-1", "us-west4-a", "first")
    assert found is not None and found.resource.endswith("/a-r2")


def test_only_jobs_of_launch_are_listed_the_newest_first(cloud: FakeCloud) -> None:
    for name in ("a", "b"):
        created(cloud, name, name=name)
    foreign = requested("x", name="foreign")
    del foreign.body["tpu"]["nodeSpec"][0]["node"]["labels"]["created-by"]  # type: ignore[index]
    api_at(cloud).send(foreign)
    assert [status.name for status in service_at(cloud).list("project-1", "us-west4-a")] == ["b", "a"]


def test_a_thousand_jobs_are_listed_in_two_seconds(cloud: FakeCloud) -> None:
    created(cloud)
    (known,) = cloud.tpu.resources.values()
    known.resource["tpu"]["nodeSpec"][0]["node"]["metadata"]["startup-script"] = ""  # JSON of a fake is slow.
    for number in range(1, 1000):
        name = f"{RESOURCE}{number}"
        cloud.tpu.resources[name] = type(known)({**known.resource, "name": name}, known.requested, (), cloud.tpu)
    begun = time.monotonic()
    assert len(list(service_at(cloud).list("project-1", "us-west4-a"))) == 1000
    assert time.monotonic() - begun < 2


def test_cancelling_deletes_the_machines_too(cloud: FakeCloud) -> None:
    created(cloud)
    set_state(cloud, "ACTIVE")
    service = service_at(cloud)
    service.cancel(RESOURCE)
    (deletion,) = cloud.sent("tpu", "DELETE")
    assert (deletion.path, deletion.query) == (f"/v2/{RESOURCE}", {"force": "true"})
    assert service.get(RESOURCE).state is State.STOPPING
    assert service.get_requested(RESOURCE, requested()).state is State.CANCELLED
    service.cancel(RESOURCE)  # It is gone.
    assert len(cloud.sent("tpu", "DELETE")) == 1


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_job_that_has_no_machines_any_more_stays_as_it_is(cloud: FakeCloud, state: str) -> None:
    created(cloud)
    set_state(cloud, state)
    service_at(cloud).cancel(RESOURCE)
    assert not cloud.sent("tpu", "DELETE")


def test_a_preempted_slice_is_requested_again_once_however_often_it_is_tried(cloud: FakeCloud) -> None:
    first = requested()
    created(cloud)
    set_state(cloud, "SUSPENDED")
    service = service_at(cloud)
    cloud.faults.append(Fault("POST .*queuedResources", "lost answer", times=1))
    cloud.faults.append(Fault("DELETE .*queuedResources", "lost answer", times=1))
    second = service.request_again(first, 2, SUBMISSION)
    assert (second.resource, second.name) == (f"{RESOURCE}-r2", "flowers-1")
    assert (second.state, second.submission) == (State.QUEUED, SUBMISSION)
    assert service.request_again(first, 2, SUBMISSION).resource == second.resource
    assert {name: known.state == "DELETING" for name, known in cloud.tpu.resources.items()} == {
        RESOURCE: True,
        second.resource: False,
    }
    third = service.request_again(first, 3, SUBMISSION)
    assert third.resource == resource_of(again(first, 3))
    assert cloud.tpu.resources[second.resource].state == "DELETING"


def test_lines_of_all_requests_of_a_job_and_of_no_other_are_found(cloud: FakeCloud) -> None:
    status = created(cloud)

    def write(text: str, **labels: str) -> None:
        metadata = {key.replace("_", "-"): value for key, value in labels.items()}
        payload = {"message": text, "container": {"metadata": metadata}}
        resource = {"type": "gce_instance", "labels": {}}
        cloud.logs.write("project-1", "gcplogs-docker-driver", payload, resource, when=START)

    write("ours", hub_trainer_submission=SUBMISSION, hub_trainer_job="flowers-1", hub_trainer_worker="3")
    write("another's", hub_trainer_submission="another", hub_trainer_job="flowers-1", hub_trainer_worker="0")
    write("nobody's")
    cloud.logs.write("project-1", "another", {"message": "x"}, {"type": "global", "labels": {}}, when=START)
    lines = list(LogReader(api_at(cloud), "project-1").open(service_at(cloud).log_filter(status)).new_lines())
    assert [(line.worker, line.text) for line in lines] == [("worker 3", "ours")]


def test_a_person_finds_the_job_in_the_console(cloud: FakeCloud) -> None:
    address = service_at(cloud).console_url(RESOURCE)
    assert address == "https://console.cloud.google.com/compute/tpus?project=project-1"


@gcloud.requires_gcloud
def test_gcloud_does_what_we_say_it_does(cloud: FakeCloud, tmp_path: Path) -> None:
    created(cloud)
    set_state(cloud, "ACTIVE")
    commands = service_at(cloud).gcloud_commands(f"{RESOURCE}")
    line = {"message": "of the job", "container": {"metadata": {"hub-trainer-job": "flowers-1"}}}
    cloud.logs.write("project-1", "gcplogs-docker-driver", line, {"type": "gce_instance", "labels": {}})
    ran: dict[str, subprocess.CompletedProcess[str]] = {}
    for name in ("logs", "status", "cancel"):
        ran[name] = gcloud.run(commands[name], cloud, tmp_path)
        assert ran[name].returncode == 0, ran[name].stderr
    assert ran["logs"].stdout == "of the job\n"
    assert "acceleratorType: v5litepod-8" in ran["status"].stdout
    assert cloud.tpu.resources[RESOURCE].state == "DELETING"
