"""`launch list`, `status`, `logs` and `cancel` at the fake cloud: what was submitted is found, and ended."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, Fault, serving
from fakes.vertex_api import CustomJob
from jobs import V5E_8, api_at, make_job
from memory_service import Time

from launch.__main__ import main
from launch.records.job_access import JobAccess
from launch.records.records import Record, open_records
from launch.services.by_target import service_of
from launch.services.tpu_request import create_request as tpu_request
from launch.services.vertex_request import create_request
from trainer.errors import EXIT_PREEMPTED, EXIT_USER

PARENT = "projects/project-1/locations/us-central1"
RUNTIME = "tpu-ubuntu2204-base"
ZONE = "projects/project-1/locations/us-west4-a"

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line; gives the exit code and what it prints to standard output and error."""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    """A cloud that wants credentials once something was submitted, and that has one clock with the commands."""
    moments = Time()
    with serving(clock=moments.moment) as server:
        for name, value in {**server.environment(), **server.credentials(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HUB_TRAINER_JOBS", str(tmp_path / "jobs"))
        for command in ("list", "status", "logs", "cancel"):
            monkeypatch.setattr(
                f"launch.commands.{command}_command.open_access",
                lambda options: JobAccess(options, os.environ, sleep=moments.sleep, clock=moments.clock),
            )
        server.bucket("bucket")
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run_command


def submit(cloud: FakeCloud, place: str, name: str = "flowers-1", *, on_tpu: bool = False) -> Record:
    """Submits a job, and leaves the record that `launch submit` does."""
    location = "us-west4-a" if on_tpu else "us-central1"
    submission = f"token-{name}"
    if on_tpu:
        job = make_job(V5E_8, target="tpu-vm", name=name, location=location, provisioning="spot", runtime=RUNTIME)
    else:
        job = make_job(name=name)
    record = Record(
        name=name,
        target=job.target,
        project=job.project,
        location=location,
        submission=submission,
        created="2026-11-22T17:00:00+00:00",
        request=tpu_request(job, submission) if on_tpu else create_request(job, submission),
        run_dir=job.run_dir,
        hourly_price=2.0,
        max_requests=3,
        provisioning=job.provisioning,
    )
    api = api_at(cloud)
    cloud.tokens.are_checked = False
    status = service_of(record.target, api).create(record.request, submission)
    record = record.requested(status.resource)
    open_records(place, lambda: api).save(record)
    cloud.tokens.are_checked = True
    return record


def say(cloud: FakeCloud, record: Record, worker: str, *lines: str) -> None:
    """Lets a worker of a job on Vertex AI print lines."""
    labels = {"job_id": record.resource.rpartition("/")[2], "task_name": worker, "project_id": record.project}
    for line in lines:
        cloud.logs.write(record.project, worker, {"message": line}, {"type": "ml_job", "labels": labels})


PLACES = pytest.mark.parametrize("place", ["folder", "gs://bucket/jobs"])


@pytest.fixture
def records(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where records are, which the environment says too."""
    chosen = str(tmp_path / "jobs") if place == "folder" else place
    monkeypatch.setenv("HUB_TRAINER_JOBS", chosen)
    return chosen


@PLACES
def test_logs_to_the_end_of_a_job(cloud: FakeCloud, records: str, run: Run) -> None:
    record = submit(cloud, records)
    job = cloud.vertex.jobs[record.resource]
    job.script = ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    say(cloud, record, "workerpool0-0", "step 1", "\x1b[2Jstep 2")
    say(cloud, record, "workerpool1-0", "step 1")
    code, out, err = run("logs", "flowers")
    assert code == 1
    assert [line for line in out.splitlines() if not line.startswith("[launch]")] == [
        "[workerpool0-0] step 1",
        "[workerpool0-0] \\x1b[2Jstep 2",
        "[workerpool1-0] step 1",
    ]
    assert "[launch] flowers-1 failed (JOB_STATE_FAILED)" in out
    assert err == "[launch] The replica workerpool0-0 exited with a non-zero status of 1.\n"
    code, out, err = run("logs", "flowers", "--nofollow", "--since=2027-01-01T00:00:00Z")
    assert (code, out, err) == (1, "", "")
    assert len(run("logs", "flowers", "--nofollow")[1].splitlines()) == 3


@PLACES
def test_status_list_and_cancel(cloud: FakeCloud, records: str, run: Run) -> None:
    record = submit(cloud, records)
    cloud.vertex.jobs[record.resource].script = ["JOB_STATE_RUNNING"]
    code, out, _ = run("status", "flowers-1", "--json")
    told = json.loads(out)
    assert (code, told["state"], told["resource"]) == (0, "running", record.resource)
    assert told["hardware"] == "g2-standard-12 with 1 NVIDIA_L4"
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[:2] == ["flowers-1", "running"]
    code, out, _ = run("cancel", "flowers-1")
    assert (code, cloud.vertex.jobs[record.resource].state) == (0, "JOB_STATE_CANCELLED")
    assert "was cancelled" in out
    assert run("cancel", "flowers-1", "--quiet") == (0, "", "")
    assert len([request for request in cloud.sent("aiplatform", "POST") if request.path.endswith(":cancel")]) == 1


def test_faults_while_following(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    record = submit(cloud, str(tmp_path / "jobs"))
    cloud.vertex.jobs[record.resource].script = ["JOB_STATE_RUNNING"] * 3 + ["JOB_STATE_SUCCEEDED"]
    say(cloud, record, "workerpool0-0", "step 1")
    cloud.faults += [
        Fault("GET /aiplatform", 503, times=7, first=len(cloud.requests) + 3),
        Fault("/logging", 429, times=7, first=len(cloud.requests) + 3),
    ]
    cloud.logs.empty_pages = 2
    code, out, err = run("logs", "flowers-1")
    assert (code, out.count("step 1")) == (0, 1)
    assert err.count("It is asked again for up to 10 min 00 s.") == 2
    assert out.count("[launch] It answers again.") == 2


def test_an_expired_token_is_renewed(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    record = submit(cloud, str(tmp_path / "jobs"))
    job = cloud.vertex.jobs[record.resource]
    job.script = ["JOB_STATE_RUNNING"] * 2 + ["JOB_STATE_SUCCEEDED"]
    step = job.step
    issued = []

    def revoke_and_step() -> None:
        issued.append(cloud.tokens.issued)
        cloud.tokens.revoke()
        step()

    job.step = revoke_and_step  # type: ignore[method-assign]
    code, _, err = run("status", "flowers-1", "--wait")
    assert (code, err) == (0, "")
    assert cloud.tokens.issued >= 3
    cloud.faults.append(Fault("POST /token", 400))
    code, _, err = run("status", "flowers-1")
    assert code == EXIT_USER
    assert "error: Vertex AI does not accept the Google credentials" in err.replace("Vertex AI: ", "")


def test_no_credentials(cloud: FakeCloud, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(cloud, str(tmp_path / "jobs"))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in ("status", "logs", "cancel"):
        code, out, err = run(command, "flowers-1")
        assert (code, out) == (EXIT_USER, "")
        assert err.startswith(
            "error: There are no Google credentials here: run `gcloud auth application-default login`"
        )
        assert err.count("\n") == 1
    code, out, err = run("list")
    assert code == EXIT_USER
    assert out.splitlines()[1].split()[:2] == ["flowers-1", "unknown"]
    assert err.count("There are no Google credentials here") == err.count("\n") == 1


def test_records_that_cannot_be_read(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for place, said in (
        ("gs://missing/jobs", "there is no bucket missing; `gcloud storage buckets create gs://missing` makes it."),
        (str(tmp_path / "file"), "cannot be read in"),
        ("s3://bucket/jobs", "must be a folder, or gs://BUCKET/PREFIX."),
    ):
        for command in (["list"], ["status", "flowers"]):
            code, out, err = run(*command, f"--records={place}")
            assert (code, out, err.count("\n")) == (EXIT_USER, "", 1)
            assert said in err


def test_a_service_that_is_away_does_not_hide_the_others(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    place = str(tmp_path / "jobs")
    submit(cloud, place)
    submit(cloud, place, "slice-1", on_tpu=True)
    cloud.faults.append(Fault("GET /tpu/", 503))
    code, out, err = run("list")
    assert code == EXIT_PREEMPTED
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert states == {"flowers-1": "queued", "slice-1": "unknown"}
    assert err.startswith("warning: tpu-vm in us-west4-a of project-1: Cloud TPU: ")


def test_a_preempted_slice_is_requested_again_and_then_ends(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    record = submit(cloud, str(tmp_path / "jobs"), "slice-1", on_tpu=True)
    cloud.tpu.resources[record.resource].script = ["ACTIVE", "SUSPENDED"]
    cloud.tpu.script = ("WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDED")
    code, out, _ = run("status", "slice-1", "--wait")
    assert code != 0
    known = open_records(str(tmp_path / "jobs"), lambda: api_at(cloud)).load("slice-1")
    assert known is not None
    assert known.attempts == tuple(f"{ZONE}/queuedResources/slice-1{end}" for end in ("", "-r2", "-r3"))
    assert list(cloud.tpu.resources) == [known.resource]
    assert "requests      3 of at most 3" in out


def test_cancelling_a_slice_deletes_it(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    record = submit(cloud, str(tmp_path / "jobs"), "slice-1", on_tpu=True)
    cloud.tpu.resources[record.resource].script = ["ACTIVE"]
    code, out, _ = run("cancel", "slice-1")
    assert (code, cloud.tpu.resources) == (0, {})
    assert run("cancel", "slice-1")[0] == 0
    assert run("list")[1].splitlines()[1].split()[:2] == ["slice-1", "cancelled"]


def test_a_thousand_jobs_are_listed_within_two_seconds(cloud: FakeCloud, tmp_path: Path, run: Run) -> None:
    record = submit(cloud, str(tmp_path / "jobs"), "job-0")
    job = cloud.vertex.jobs[record.resource]
    for number in range(1, 1000):
        name = f"job-{number}"
        resource = f"{PARENT}/customJobs/{number}"
        labels = {**job.resource["labels"], "hub-trainer-job": name, "hub-trainer-submission": f"token-{name}"}
        made = CustomJob({**job.resource, "name": resource, "labels": labels}, None, threading.RLock(), Time().moment)
        cloud.vertex.jobs[resource] = made
        submitted = replace(record, name=name, submission=f"token-{name}", resource=resource, attempts=(resource,))
        (tmp_path / "jobs" / f"{name}.json").write_text(json.dumps(submitted.to_json()), encoding="utf-8")
    before = time.perf_counter()
    code, out, err = run("list", "--all", "--json")
    seconds = time.perf_counter() - before
    assert (code, err) == (0, "")
    listed = json.loads(out)["jobs"]
    assert len(listed) == 1000
    assert {each["state"] for each in listed} == {"queued"}
    assert seconds < 2
