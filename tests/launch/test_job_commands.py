"""`launch status`, `logs` and `cancel` against services in memory: which job is meant, what is told, how it ends."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from job_commands import Commands, commands_in
from jobs import V5E_8, make_job
from memory_service import JOB, PARENT, START, MemoryLog, MemoryService, record, unavailable

from launch.commands import cancel_command, logs_command, status_command
from launch.services.service import ApiRequest, JobStatus, State
from launch.services.tpu_request import create_request
from trainer.errors import EXIT_PREEMPTED, EXIT_USER, UserError

RUNNING, SUCCEEDED, FAILED, PREEMPTED = State.RUNNING, State.SUCCEEDED, State.FAILED, State.PREEMPTED

ZONE = "projects/my-project/locations/us-west4-a"
SLICE = f"{ZONE}/queuedResources/slice"


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return commands_in(tmp_path / "jobs", capsys, monkeypatch, os.environ)


def submitted(commands: Commands, *events: Any, name: str = "flowers", **fields: Any) -> MemoryService:
    """A job on Vertex AI with a record."""
    resource = JOB if name == "flowers" else f"{PARENT}/customJobs/{name}"
    commands.records.save(record(name).requested(resource))
    service = commands.service("vertex")
    service.add(*events, resource=resource, name=name, **fields)
    return service


class Slices(MemoryService):
    """Cloud TPU: it knows what a slice that is gone left, and requests slices again."""

    def get_requested(self, resource: str, request: ApiRequest) -> JobStatus:
        return self.get(resource)

    def request_again(self, request: ApiRequest, attempt: int, submission: str) -> JobStatus:
        query = {"queuedResourceId": f"slice-r{attempt}"}
        return self.create(replace(request, query=query), submission)


def slice_submitted(commands: Commands, *events: Any) -> Slices:
    """A spot slice with a record, which may be requested three times."""
    slices = Slices(commands.time)
    commands.services["tpu-vm"] = slices
    job = make_job(V5E_8, target="tpu-vm", name="slice", project="my-project", location="us-west4-a")
    request = create_request(job, "token-slice")
    made = record("slice", target="tpu-vm", location="us-west4-a", request=request)
    commands.records.save(made.requested(SLICE))
    slices.add(*events, resource=SLICE, name="slice")
    return slices


ALL = pytest.mark.parametrize("module", [status_command, logs_command, cancel_command])


@ALL
@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("", "JOB is empty"),
        (" ", "JOB is empty"),
        ("../../etc/passwd", "../../etc/passwd is no job: give its name, or all of projects/"),
        (f"{PARENT}/customJobs/1/../2", "is no job"),
        (f"{PARENT}/models/1", "is no job"),
        ("projects/p/locations/r/customJobs/1?x=y", "is no job"),
        ("flo", "flo is the beginning of 2 jobs' names: flowers-2, flowers-1."),
        ("flower-1", "did you mean flowers-1?"),
        ("cats", "No job is recorded as cats: python -m launch list shows"),
        ("FLOWERS-1", "No job is recorded as FLOWERS-1"),
    ],
)
def test_a_job_that_is_none(commands: Commands, module: ModuleType, job: str, sentence: str) -> None:
    later = START.replace(hour=18).isoformat()
    commands.records.save(record("flowers-1").requested(JOB))
    commands.records.save(record("flowers-2", created=later).requested(f"{PARENT}/customJobs/2"))
    code, out, err = commands.run(module, job)
    assert (code, out) == (EXIT_USER, "")
    assert sentence in err
    assert commands.services == {}


@ALL
@pytest.mark.parametrize("job", ["flowers", "fl", JOB])
def test_a_job_by_its_name_its_beginning_and_in_full(commands: Commands, module: ModuleType, job: str) -> None:
    submitted(commands, SUCCEEDED)
    submitted(commands, SUCCEEDED, name="cats")
    patch_log(commands, MemoryLog())
    code, out, _ = commands.run(module, job)
    assert code == 0
    assert "flowers" in out
    assert "cats" not in out


def test_a_name_is_taken_before_the_beginning_of_another(commands: Commands) -> None:
    submitted(commands, SUCCEEDED)
    submitted(commands, SUCCEEDED, name="flowers-2")
    assert JOB in commands.run(status_command, "flowers", "--json")[1]


def test_a_job_from_elsewhere(commands: Commands) -> None:
    commands.service("vertex").add(RUNNING, details={"hardware": "2 x n1-standard-4", "time limit": "86400s"})
    code, out, _ = commands.run(status_command, JOB)
    assert code == 0
    assert "hardware      2 x n1-standard-4" in out
    assert "time limit    86400s" in out
    assert "cost          unknown: no price" in out
    assert f"cancel        python -m launch cancel {JOB} --records={commands.folder}" in out


@ALL
def test_a_job_that_the_service_does_not_have(commands: Commands, module: ModuleType) -> None:
    code, _, err = commands.run(module, JOB)
    assert (code, err) == (EXIT_USER, f"error: There is no job {JOB}.\n")


@ALL
def test_no_credentials(commands: Commands, module: ModuleType) -> None:
    submitted(commands, RUNNING)
    commands.credentials = UserError("There are no Google credentials here: log in.")
    code, out, err = commands.run(module, "flowers")
    assert (code, out, err) == (EXIT_USER, "", "error: There are no Google credentials here: log in.\n")


@ALL
def test_what_stands_behind_the_dashes_is_refused(commands: Commands, module: ModuleType) -> None:
    options = argparse.Namespace(job="flowers")
    with pytest.raises(UserError, match="--epochs=3 stands behind --"):
        module.execute(options, ["--epochs=3"])


def test_a_submission_whose_answer_was_lost(commands: Commands) -> None:
    commands.records.save(record())
    code, _, err = commands.run(status_command, "flowers")
    assert code == EXIT_USER
    assert "flowers was about to be submitted at 2026-11-22T17:00:00+00:00, and us-central1 has no such job" in err
    commands.service("vertex").add(RUNNING, submission="token-flowers")
    code, _, _ = commands.run(status_command, "flowers")
    assert code == 0
    known = commands.records.load("flowers")
    assert known is not None
    assert (known.resource, known.attempts) == (JOB, (JOB,))


def test_status_for_a_person(commands: Commands) -> None:
    submitted(commands, RUNNING)
    commands.run(status_command, "flowers")
    commands.time.sleep(3600)
    code, out, err = commands.run(status_command, "flowers")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "job           flowers",
        "state         running (JOB_STATE_RUNNING) for 60 min 00 s",
        "where         vertex in us-central1 of my-project",
        "provisioning  spot",
        "cost          about $1.50 by now, at $1.50 an hour",
        "submitted     2026-11-22 17:00:00 UTC",
        "image         us-central1-docker.pkg.dev/my-project/hub-trainer/trainer-gpu:abc",
        "commit        abc",
        "results       gs://bucket/flowers",
        "report        gs://bucket/flowers/report/index.html",
        f"console       https://console.cloud.google.com/{JOB}",
        f"logs          python -m launch logs flowers --records={commands.folder}",
        f"status        python -m launch status flowers --records={commands.folder}",
        f"cancel        python -m launch cancel flowers --records={commands.folder}",
    ]


def test_status_for_programs(commands: Commands) -> None:
    submitted(commands, FAILED, error="worker 0 exited with 3", exit_code=3, details={"image": "i"})
    code, out, _ = commands.run(status_command, "flowers", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["state"], told["error"], told["details"]) == ("failed", "worker 0 exited with 3", {"image": "i"})
    assert told["gcloud"] == {"status": ["ai", "custom-jobs", "describe", JOB]}
    assert told["commands"]["logs"] == f"python -m launch logs flowers --records={commands.folder}"
    assert told["console"].endswith(JOB)


def test_the_cost_of_a_slice_whose_start_nobody_tells_is_bounded(commands: Commands) -> None:
    slices = slice_submitted(commands)
    slices.jobs[SLICE] = replace(slices.jobs[SLICE], state=RUNNING)
    commands.time.sleep(7200)
    assert "cost          at most $3.00 by now, at $1.50 an hour" in commands.run(status_command, "slice")[1]


def test_hostile_words_of_the_service(commands: Commands) -> None:
    hostile = {"x\x1b[1m": "\x1b]0;t\x07"}
    commands.service("vertex").add(FAILED, name="a\x1b[2J\nb", error="\x1b[31mred", details=hostile)
    patch_log(commands, MemoryLog(["w\x1b[1m: \x1b[2J"]))
    for module in (status_command, logs_command, cancel_command):
        _, out, err = commands.run(module, JOB)
        assert "\x1b" not in out + err
        assert out


def test_waiting_ends_with_the_exit_code_of_the_job(commands: Commands) -> None:
    submitted(commands, RUNNING, FAILED, exit_code=3)
    code, out, _ = commands.run(status_command, "flowers", "--wait")
    assert code == 3
    assert "[launch] flowers failed (JOB_STATE_FAILED) after 5.0 s.\n" in out
    assert "state         failed (JOB_STATE_FAILED)" in out

    submitted(commands, RUNNING, SUCCEEDED)
    code, out, err = commands.run(status_command, "flowers", "--wait", "--json")
    assert (code, err, json.loads(out)["state"]) == (0, "", "succeeded")

    submitted(commands, RUNNING, SUCCEEDED)
    assert commands.run(status_command, "flowers", "--wait", "--quiet") == (0, "", "")


def test_interrupting_the_wait(commands: Commands) -> None:
    service = submitted(commands, RUNNING, RUNNING, KeyboardInterrupt)
    code, _, err = commands.run(status_command, "flowers", "--wait")
    assert (code, service.cancelled) == (EXIT_PREEMPTED, [])
    assert "and the job goes on." in err
    for verb in ("logs", "status", "cancel"):
        assert f"python -m launch {verb} flowers --records={commands.folder}\n" in err
    assert "--wait" not in err


def test_an_expired_token_while_waiting(commands: Commands) -> None:
    submitted(commands, RUNNING, unavailable(401, "invalid_grant: Token has been expired"))
    code, _, err = commands.run(status_command, "flowers", "--wait")
    assert code == EXIT_USER
    assert "does not accept the Google credentials (invalid_grant: Token has been expired)" in err
    assert "the job goes on" in err


def test_a_preempted_slice_is_requested_again_while_somebody_waits(commands: Commands) -> None:
    slices = slice_submitted(commands, RUNNING, PREEMPTED)
    code, out, _ = commands.run(status_command, "slice", "--wait")
    assert code == 0
    assert [request.query["queuedResourceId"] for request in slices.created] == ["slice-r2"]
    known = commands.records.load("slice")
    assert known is not None
    assert known.attempts == (SLICE, f"{SLICE}-r2")
    assert "requests      2 of at most 3" in out


def test_a_slice_is_requested_no_more_often_than_allowed(commands: Commands) -> None:
    slices = slice_submitted(commands, PREEMPTED)
    add = slices.add

    def preempt(*_: Any, **fields: Any) -> JobStatus:
        return add(RUNNING, PREEMPTED, **fields)

    slices.add = preempt  # type: ignore[method-assign]
    code, _, _ = commands.run(status_command, "slice", "--wait")
    assert (code, len(slices.created)) == (1, 2)


def test_the_name_of_a_request_is_kept_before_it_is_sent(commands: Commands) -> None:
    slices = slice_submitted(commands, PREEMPTED)
    request_again = slices.request_again
    kept: list[Any] = []

    def fail_once(request: ApiRequest, attempt: int, submission: str) -> JobStatus:
        kept.append(commands.records.load("slice"))
        if len(kept) == 1:
            raise unavailable()
        return request_again(request, attempt, submission)

    slices.request_again = fail_once  # type: ignore[method-assign]
    code, _, _ = commands.run(status_command, "slice", "--wait")
    assert code == 0
    assert [each.attempts for each in kept] == [(SLICE, f"{SLICE}-r2")] * 2
    assert len(slices.created) == 1


def test_somebody_else_who_requested_the_slice_again(commands: Commands) -> None:
    slices = slice_submitted(commands, RUNNING, PREEMPTED)
    look = slices.get

    def be_overtaken(resource: str) -> JobStatus:
        status = look(resource)
        if status.state is PREEMPTED:
            made = commands.records.load("slice")
            assert made is not None
            commands.records.save(made.requested(f"{SLICE}-r2"))
            slices.add(RUNNING, SUCCEEDED, resource=f"{SLICE}-r2", name="slice")
        return status

    slices.get = be_overtaken  # type: ignore[method-assign]
    code, _, _ = commands.run(status_command, "slice", "--wait")
    assert (code, slices.created) == (0, [])


def test_logs_alone_do_not_request_again(commands: Commands) -> None:
    slices = slice_submitted(commands, RUNNING, PREEMPTED)
    patch_log(commands, MemoryLog(["worker 0: line"]))
    code, out, _ = commands.run(logs_command, "slice")
    assert (code, slices.created) == (1, [])
    assert "[worker 0] line\n" in out
    assert f"[launch] python -m launch status slice --records={commands.folder} --wait requests it again.\n" in out


def test_whoever_stops_waiting_for_a_slice_is_told_how_to_go_on(commands: Commands) -> None:
    slice_submitted(commands, RUNNING, KeyboardInterrupt)
    code, _, err = commands.run(status_command, "slice", "--wait")
    assert code == EXIT_PREEMPTED
    assert f"python -m launch status slice --records={commands.folder} --wait\n" in err


Opened = list[tuple[JobStatus, datetime.datetime | None]]


def patch_log(commands: Commands, log: MemoryLog) -> Opened:
    """Lets all jobs have that log; notes of what it was opened."""
    opened: Opened = []

    def open_log(job: Any, status: JobStatus, access: Any, since: datetime.datetime | None) -> MemoryLog:
        opened.append((status, since))
        return log

    commands.patch("launch.records.follow_job.open_log", open_log)
    return opened


def test_logs_end_with_the_job(commands: Commands) -> None:
    submitted(commands, RUNNING, RUNNING, FAILED, exit_code=7)
    patch_log(commands, MemoryLog(["workerpool0-0: a"], ["workerpool0-0: b"], ["workerpool0-0: late"]))
    code, out, _ = commands.run(logs_command, "flowers", "--quiet")
    assert (code, out) == (7, "[workerpool0-0] a\n[workerpool0-0] b\n[workerpool0-0] late\n")


def test_logs_without_following(commands: Commands) -> None:
    submitted(commands, RUNNING)
    patch_log(commands, MemoryLog(["w: a"], ["w: kept back"], ["w: never"]))
    before = commands.time.seconds
    assert commands.run(logs_command, "flowers", "--nofollow") == (0, "[w] a\n[w] kept back\n", "")
    assert commands.time.seconds == before
    submitted(commands, FAILED, exit_code=4)
    patch_log(commands, MemoryLog())
    assert commands.run(logs_command, "flowers", "--nofollow") == (4, "", "")
    patch_log(commands, MemoryLog(unavailable(403, "Permission 'logging.logEntries.list' denied")))
    code, _, err = commands.run(logs_command, "flowers", "--nofollow")
    assert code == EXIT_USER
    assert "logging.logEntries.list is missing" in err


def test_logs_since(commands: Commands) -> None:
    submitted(commands, SUCCEEDED)
    opened = patch_log(commands, MemoryLog())
    commands.run(logs_command, "flowers", "--since=2026-11-22T17:00:00Z")
    commands.run(logs_command, "flowers", "--since=2h")
    commands.run(logs_command, "flowers")
    (_, moment), (_, ago), (_, never) = opened
    assert moment == START
    assert ago is not None
    assert abs((datetime.datetime.now(datetime.timezone.utc) - ago).total_seconds() - 7200) < 60
    assert never is None
    for wrong in ("", "2", "2w", "yesterday", "-5m", "²m", "9999999d"):
        code, _, err = commands.run(logs_command, "flowers", f"--since={wrong}")
        assert code == EXIT_USER
        assert f"--since={wrong}: must be" in err


def test_cancelling_waits_until_it_is_over(commands: Commands) -> None:
    service = submitted(commands, RUNNING)
    code, out, err = commands.run(cancel_command, "flowers")
    assert (code, err, service.cancelled) == (0, "", [JOB])
    assert out.splitlines() == [
        "[launch] flowers is asked to end.",
        "[launch] flowers is stopping (JOB_STATE_STOPPING) for 0.0 s.",
        "[launch] flowers was cancelled (JOB_STATE_CANCELLED) after 5.0 s.",
    ]
    code, out, _ = commands.run(cancel_command, "flowers")
    assert (code, service.cancelled) == (0, [JOB])
    assert "flowers had ended before: cancelled (JOB_STATE_CANCELLED) after 5.0 s." in out
    assert commands.run(cancel_command, "flowers", "--quiet") == (0, "", "")


def cancelling(commands: Commands, service: MemoryService, then: Callable[[], Any]) -> None:
    """Lets `then` happen when the job is asked to end."""

    def cancel(resource: str) -> None:
        service.cancelled.append(resource)
        then()

    service.cancel = cancel  # type: ignore[method-assign]


def test_a_job_that_does_not_end(commands: Commands) -> None:
    service = submitted(commands, RUNNING)
    cancelling(commands, service, lambda: None)
    before = commands.time.seconds
    code, out, err = commands.run(cancel_command, "flowers")
    assert code == EXIT_PREEMPTED
    assert commands.time.seconds - before == cancel_command.MOST_SECONDS
    assert len(out.splitlines()) == 32
    assert "30 min 00 s after it was asked to end flowers is running" in err
    assert "may cost money still: python -m launch status flowers" in err


def test_interrupting_a_cancellation(commands: Commands) -> None:
    service = submitted(commands, RUNNING)
    cancelling(commands, service, lambda: service.scripts[JOB].append(KeyboardInterrupt))
    code, _, err = commands.run(cancel_command, "flowers")
    assert (code, service.cancelled) == (EXIT_PREEMPTED, [JOB])
    assert "Interrupted: it is not waited for any more; python -m launch status flowers" in err


def test_a_job_that_is_gone_is_over(commands: Commands) -> None:
    service = submitted(commands, RUNNING)
    cancelling(commands, service, service.jobs.clear)
    code, out, _ = commands.run(cancel_command, "flowers")
    assert code == 0
    assert "flowers is over: vertex does not have it any more." in out
    assert commands.run(cancel_command, "flowers")[0] == 0
