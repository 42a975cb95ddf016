"""`launch list`: every job once, in tables that fit, and what is said when a service does not answer."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from job_commands import Commands, commands_in
from memory_service import PARENT, START, MemoryService, record, unavailable

from launch.commands import list_command
from launch.records.job_facts import hardware_of
from launch.services.service import ApiRequest, State
from launch.tables import Look, folded
from trainer.errors import EXIT_PREEMPTED, EXIT_USER, UserError

ZONE = "projects/my-project/locations/us-west4-a"
LONG_NAME = "tf-flowers-mobilenet-v2-100-224-20261122-170500"

VERTEX_BODY = {
    "jobSpec": {
        "workerPoolSpecs": [
            {
                "replicaCount": "1",
                "machineSpec": {
                    "machineType": "g2-standard-12",
                    "acceleratorType": "NVIDIA_L4",
                    "acceleratorCount": 1,
                },
            },
            {
                "replicaCount": "2",
                "machineSpec": {
                    "machineType": "g2-standard-12",
                    "acceleratorType": "NVIDIA_L4",
                    "acceleratorCount": 1,
                },
            },
        ]
    }
}


def slice_record(name: str, **changes: Any) -> Any:
    body = {"tpu": {"nodeSpec": [{"node": {"acceleratorType": "v5litepod-8"}}]}}
    request = ApiRequest("tpu", "POST", f"v2/{ZONE}/queuedResources", {"queuedResourceId": name}, body)
    resource = f"{ZONE}/queuedResources/{name}"
    made = record(name, target="tpu-vm", location="us-west4-a", request=request).requested(resource)
    return replace(made, **changes)


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    for name in ("CLOUDSDK_CORE_PROJECT", "GOOGLE_CLOUD_PROJECT", "HUB_TRAINER_JOBS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    return commands_in(tmp_path / "jobs", capsys, monkeypatch, os.environ)


def submit(commands: Commands, name: str, state: State, minutes: float, **changes: Any) -> None:
    """A job on Vertex AI that was submitted so many minutes after the start, and began to run a minute later."""
    made = record(name, created=(START.replace(minute=int(minutes))).isoformat(), **changes)
    resource = f"{PARENT}/customJobs/{name}"
    body = {**VERTEX_BODY, "displayName": name}
    commands.records.save(replace(made, request=replace(made.request, body=body)).requested(resource))
    started = START.replace(minute=int(minutes) + 1)
    ended = START.replace(minute=int(minutes) + 31) if state.has_ended else None
    service = commands.service("vertex")
    service.add(resource=resource, name=name, state=state, started=started, ended=ended, submission=made.submission)


def three_jobs(commands: Commands) -> None:
    submit(commands, "done", State.SUCCEEDED, 0)
    submit(commands, LONG_NAME, State.RUNNING, 20, hourly_price=None)
    slice_of = slice_record("slice", created=START.replace(minute=10).isoformat())
    commands.records.save(slice_of)
    commands.service("tpu-vm").add(resource=slice_of.resource, name="slice", state=State.QUEUED)
    commands.time.sleep(3600)


def test_a_table_for_a_pipe(commands: Commands) -> None:
    three_jobs(commands)
    code, out, err = commands.run(list_command)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "NAME                                             STATE      AGE     RAN     COST   TARGET  LOCATION     "
        "HARDWARE",
        f"{LONG_NAME}  running    40 min  39 min  -      vertex  us-central1  3 x g2-standard-12 with 1 NVIDIA_L4",
        "slice                                            queued     50 min  -       $0.00  tpu-vm  us-west4-a   "
        "v5litepod-8",
        "done                                             succeeded  60 min  30 min  $0.75  vertex  us-central1  "
        "3 x g2-standard-12 with 1 NVIDIA_L4",
    ]


def test_times_are_rough() -> None:
    times = [list_command.rough(seconds) for seconds in (0, 99, 100, 5999, 6000, 11100, 172799, 172800)]
    assert times == ["0 s", "99 s", "2 min", "100 min", "1 h 40 min", "3 h 05 min", "47 h 59 min", "2 d"]


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.mark.parametrize("columns", [60, 100])
def test_blocks_for_a_terminal_that_is_too_narrow(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    three_jobs(commands)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    commands.run(list_command)
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    if columns == 60:
        assert lines == [
            LONG_NAME,
            "  running, 40 min old, ran 39 min, vertex, us-central1, 3 x",
            "  g2-standard-12 with 1 NVIDIA_L4",
            "slice",
            "  queued, 50 min old, $0.00, tpu-vm, us-west4-a, v5litepod-8",
            "done",
            "  succeeded, 60 min old, ran 30 min, $0.75, vertex,",
            "  us-central1, 3 x g2-standard-12 with 1 NVIDIA_L4",
        ]
    assert "\x1b" not in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "")
    commands.run(list_command)
    assert "\x1b[36mrunning\x1b[0m" in terminal.getvalue()


def test_hostile_names_of_servers(commands: Commands) -> None:
    service = commands.service("vertex")
    service.add(resource=f"{PARENT}/customJobs/1", name="a\x1b[2J\nb", details={"hardware": "\x1b[31m"})
    code, out, _ = commands.run(list_command, "--project=my-project", "--region=us-central1")
    assert code == 0
    assert "a\\x1b[2J\\nb" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_json_for_programs(commands: Commands) -> None:
    three_jobs(commands)
    code, out, _ = commands.run(list_command, "--json", "--limit=1")
    listed = json.loads(out)
    assert (code, listed["total"], listed["unanswered"]) == (0, 3, [])
    (job,) = listed["jobs"]
    expected = {
        "name": LONG_NAME,
        "target": "vertex",
        "state": "running",
        "location": "us-central1",
        "created": "2026-11-22T17:20:00+00:00",
        "run_seconds": 2340.0,
        "cost_usd": None,
        "recorded": True,
        "hardware": "3 x g2-standard-12 with 1 NVIDIA_L4",
        "run_dir": "gs://bucket/flowers",
        "report": "gs://bucket/flowers/report/index.html",
    }
    assert {name: job[name] for name in expected} == expected


def test_a_limit_and_all(commands: Commands) -> None:
    three_jobs(commands)
    _, out, _ = commands.run(list_command, "--limit=2")
    assert out.splitlines()[-1] == "1 older job not shown; --all shows all."
    assert len(out.splitlines()) == 4
    _, out, _ = commands.run(list_command, "--limit=2", "--quiet")
    assert len(out.splitlines()) == 3
    _, out, _ = commands.run(list_command, "--limit=2", "--all")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", LONG_NAME, "slice", "done"]


def test_no_jobs(commands: Commands) -> None:
    code, out, err = commands.run(list_command)
    assert (code, err) == (0, "")
    assert out.startswith("No jobs are recorded here; ")
    assert commands.run(list_command, "--quiet") == (0, "", "")
    assert json.loads(commands.run(list_command, "--json")[1]) == {"jobs": [], "unanswered": [], "total": 0}


def test_a_service_that_does_not_answer_does_not_hide_the_others(commands: Commands) -> None:
    three_jobs(commands)
    commands.service("vertex").list_error = unavailable(503, "overloaded\x1b[2J")
    code, out, err = commands.run(list_command)
    assert code == EXIT_PREEMPTED
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["unknown", "queued", "unknown"]
    assert err.startswith("warning: vertex in us-central1 of my-project: ")
    assert "overloaded\\x1b[2J" in err

    commands.service("tpu-vm").list_error = unavailable(403, "denied")
    code, out, _ = commands.run(list_command, "--json")
    assert code == EXIT_USER
    assert [answer["target"] for answer in json.loads(out)["unanswered"]] == ["vertex", "tpu-vm"]


def test_without_credentials_records_are_shown(commands: Commands) -> None:
    three_jobs(commands)
    commands.credentials = UserError("There are no Google credentials here: log in.")
    code, out, err = commands.run(list_command)
    assert (code, len(out.splitlines())) == (EXIT_USER, 4)
    assert err == "warning: There are no Google credentials here: log in.\n"


def test_jobs_whose_records_are_elsewhere(commands: Commands) -> None:
    three_jobs(commands)
    commands.service("vertex").add(resource=f"{PARENT}/customJobs/9", name="theirs", submission="other")
    commands.service("tpu-vm").add(resource=f"{ZONE}/queuedResources/away", name="away", submission="another")
    code, out, _ = commands.run(list_command)
    assert (code, len(out.splitlines())) == (0, 6)  # They are in the places that records name.
    code, out, _ = commands.run(list_command, "--project=elsewhere", "--region=europe-west4", "--zone=europe-west4-b")
    assert (code, len(out.splitlines())) == (0, 6)
    parent = "projects/elsewhere/locations/europe-west4"
    commands.service("cloud-build").add(resource=f"{parent}/builds/b-1", name="build")
    commands.service("tpu-vm").add(resource="projects/elsewhere/locations/europe-west4-b/queuedResources/q", name="q")
    _, out, _ = commands.run(
        list_command, "--project=elsewhere", "--region=europe-west4", "--zone=europe-west4-b", "--json"
    )
    jobs = {job["name"]: job for job in json.loads(out)["jobs"]}
    assert len(jobs) == 7
    assert (jobs["build"]["target"], jobs["build"]["project"], jobs["build"]["recorded"]) == (
        "cloud-build",
        "elsewhere",
        False,
    )


def test_places_that_are_none(commands: Commands) -> None:
    for arguments, sentence in (
        (["--region=us-central1"], "No project is given"),
        (["--project=p"], "add --region or --zone"),
        (["--project=p", "--region=../x"], "is no place"),
        (["--project=p?q", "--zone=us-west4-a"], "is no place"),
    ):
        code, _, err = commands.run(list_command, *arguments)
        assert code == EXIT_USER
        assert sentence in err


def test_requests_of_one_job_are_one_job(commands: Commands) -> None:
    first = slice_record("slice")
    again = first.requested(f"{ZONE}/queuedResources/slice-r2")
    commands.records.save(again)
    service = commands.service("tpu-vm")
    hour = START.replace(hour=18)
    service.add(
        resource=first.resource,
        name="slice",
        state=State.PREEMPTED,
        started=START,
        ended=hour,
        submission="token-slice",
    )
    commands.time.sleep(7200)
    service.add(resource=again.resource, name="slice", state=State.RUNNING, started=hour, submission="token-slice")
    _, out, _ = commands.run(list_command, "--json")
    (job,) = json.loads(out)["jobs"]
    assert (job["state"], job["resource"], job["run_seconds"]) == ("running", again.resource, 7200.0)
    assert (job["cost_usd"], job["requests"]) == (3.0, [first.resource, again.resource])


def test_a_submission_whose_answer_was_lost_is_found_by_its_token(commands: Commands) -> None:
    commands.records.save(record("lost"))
    commands.records.save(record("never"))
    commands.service("vertex").add(resource=f"{PARENT}/customJobs/5", name="lost", submission="token-lost")
    _, out, _ = commands.run(list_command, "--json")
    jobs = {job["name"]: job for job in json.loads(out)["jobs"]}
    assert (jobs["lost"]["state"], jobs["lost"]["resource"]) == ("running", f"{PARENT}/customJobs/5")
    assert (jobs["never"]["state"], jobs["never"]["cost_usd"]) == ("gone", None)


class Slices(MemoryService):
    """Cloud TPU, whose slices delete themselves and leave word of their end."""

    def get_requested(self, resource: str, request: ApiRequest) -> Any:
        if self.list_error:
            raise self.list_error
        return self.get(resource)

    def list(self, project: str, location: str) -> Any:
        return iter(())


def test_slices_that_deleted_themselves_are_looked_up(commands: Commands) -> None:
    slices = commands.services["tpu-vm"] = Slices(commands.time)
    ended = slice_record("ended")
    commands.records.save(ended)
    commands.records.save(slice_record("vanished"))
    slices.add(resource=ended.resource, name="ended", state=State.SUCCEEDED, ended=START.replace(minute=30))
    code, out, _ = commands.run(list_command, "--json")
    jobs = {job["name"]: job for job in json.loads(out)["jobs"]}
    assert (code, jobs["ended"]["state"], jobs["vanished"]["state"]) == (0, "succeeded", "gone")
    assert (jobs["ended"]["cost_usd"], jobs["ended"]["cost_at_most_usd"]) == (None, 0.75)
    assert "<$0.75" in commands.run(list_command)[1]
    slices.list_error = unavailable(503, "storage is away")
    code, _, err = commands.run(list_command)
    assert code == EXIT_PREEMPTED
    assert "storage is away" in err
    slices.list_error = unavailable(403, "denied")
    assert commands.run(list_command)[0] == EXIT_USER


def test_hardware_in_a_few_words() -> None:
    def words(api: str, body: dict[str, Any]) -> str:
        return hardware_of(ApiRequest(api, "POST", "v1/x", {}, body))

    pool = {"machineSpec": {"machineType": "ct5lp-hightpu-8t", "tpuTopology": "2x4"}, "replicaCount": 1}
    assert words("aiplatform", {"jobSpec": {"workerPoolSpecs": [pool]}}) == "ct5lp-hightpu-8t (2x4)"
    cpu = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
    assert words("aiplatform", {"jobSpec": {"workerPoolSpecs": [cpu]}}) == "n1-standard-4"
    node = {"acceleratorConfig": {"type": "V4", "topology": "2x2x1"}}
    assert words("tpu", {"tpu": {"nodeSpec": [{"node": node}]}}) == "V4 2x2x1"
    assert words("cloudbuild", {"steps": []}) == ""


def test_an_address_stays_in_one_piece() -> None:
    look = Look(io.StringIO(), 20, False)
    assert folded("console  ", "https://" + "x" * 40, look) == ["console  https://" + "x" * 40]
    assert folded("state  ", "running for 12 min 05 s", look) == ["state  running for", "       12 min 05 s"]
