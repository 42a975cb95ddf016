"""The fake that really runs custom jobs: its replicas are told what Vertex AI tells them, and all of them end."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes.cloud import FakeCloud, serving
from fakes.job_runner import JobRunner
from fakes.vertex_replicas import ClusterShape, replicas_of
from processes import assert_gone

from trainer.topology import read_topology
from trainer.vertex_output import output_directory

JOBS = "aiplatform/v1/projects/p/locations/us-central1/customJobs"
PATIENCE_SECONDS = 20.0

Line = tuple[str, str, str]
"""A line of a log: replica, severity, text."""


def pool(program: str, replicas: int = 1) -> dict[str, Any]:
    return {
        "machineSpec": {"machineType": "n1-standard-4"},
        "replicaCount": str(replicas),
        "containerSpec": {"imageUri": "i", "command": ["python", "-Sc"], "args": [textwrap.dedent(program)]},
    }


class Lab:
    """A fake Vertex AI whose jobs run."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.lines: list[Line] = []
        image = {"PATH": os.path.dirname(sys.executable), "PYTHONUNBUFFERED": "1"}
        self.runner = JobRunner(image, self._keep, longest_seconds=PATIENCE_SECONDS, grace_seconds=0.5)
        cloud.vertex.on_create = self.runner.start

    def _keep(self, project: str, log: str, payload: Any, resource: Any, *, severity: str) -> None:
        assert (project, log, resource["type"]) == ("p", resource["labels"]["task_name"], "ml_job")
        self.lines.append((log, severity, payload["message"]))

    def create(self, *pools: dict[str, Any], **scheduling: Any) -> str:
        """Creates a job; gives its name."""
        spec: dict[str, Any] = {"workerPoolSpecs": list(pools), "scheduling": scheduling}
        answer = requests.post(f"{self.cloud.address}/{JOBS}", json={"displayName": "d", "jobSpec": spec}, timeout=10)
        assert answer.json()["state"] == "JOB_STATE_QUEUED", answer.text
        return str(answer.json()["name"])

    def wait(self, name: str) -> dict[str, Any]:
        """The job when it has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.cloud.vertex.jobs[name].has_ended:
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)
        return self.cloud.vertex.jobs[name].resource

    def wait_for(self, *lines: Line, times: int = 1) -> None:
        """Until these lines were printed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(self.lines.count(line) < times for line in lines):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)

    def pids(self) -> list[int]:
        """What replicas that print their process ids printed."""
        return [int(text) for _, _, text in self.lines if text.isdigit()]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with serving() as cloud:
        made = Lab(cloud)
        with made.runner:
            yield made
    assert_gone(made.pids())


WAITS = "import os, signal, time; print(os.getpid()); print('waits', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


@pytest.mark.parametrize("shape", ["pools", "tasks"])
def test_each_replica_is_told_who_it_is_and_where_to_write(shape: ClusterShape) -> None:
    spec: dict[str, Any] = {
        "workerPoolSpecs": [pool(""), pool("", 2)],
        "baseOutputDirectory": {"outputUriPrefix": "gs://bucket/runs/1/"},
        "tensorboard": "projects/p/locations/r/tensorboards/1",
    }
    spec["workerPoolSpecs"][1]["containerSpec"]["env"] = [{"name": "MINE", "value": "1"}]
    replicas = replicas_of("projects/p/locations/r/customJobs/12", spec, {"PATH": "/bin"}, shape)
    assert [replica.name for replica in replicas] == ["workerpool0-0", "workerpool1-0", "workerpool1-1"]
    topologies = [read_topology(replica.environment) for replica in replicas]
    assert [(each.name, each.index) for each in topologies] == [("chief", 0), ("worker 0", 1), ("worker 1", 2)]
    assert len(set(topologies[0].workers)) == 3 and {each.workers for each in topologies} == {topologies[0].workers}
    for replica in replicas:
        assert output_directory(replica.environment) == "gs://bucket/runs/1"
        assert (replica.environment["CLOUD_ML_JOB_ID"], replica.environment["PATH"]) == ("12", "/bin")
        assert replica.environment["AIP_TENSORBOARD_RESOURCE_NAME"] == spec["tensorboard"]
        assert ("MINE" in replica.environment) == (replica.name != "workerpool0-0")
    kinds = {"pools": "workerpool1", "tasks": "worker"}
    assert json.loads(replicas[2].environment["CLUSTER_SPEC"])["task"] == {"type": kinds[shape], "index": 1}


def test_a_job_has_succeeded_with_its_primary_replica_and_the_others_are_ended(lab: Lab) -> None:
    name = lab.create(pool("import sys; print('ü'); print('oh', file=sys.stderr)"), pool(STUBBORN, 2))
    assert lab.wait(name)["state"] == "JOB_STATE_SUCCEEDED"
    assert lab.cloud.vertex.jobs[name].resource["startTime"]
    assert {("workerpool0-0", "INFO", "ü"), ("workerpool0-0", "ERROR", "oh")} <= set(lab.lines)
    assert_gone(lab.pids())


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_a_job_fails_with_any_of_its_replicas(ending: str, code: int, lab: Lab) -> None:
    job = lab.wait(lab.create(pool(WAITS), pool(f"import os, sys; print('last', flush=True); {ending}")))
    number = job["name"].rpartition("/")[2]
    assert job["state"] == "JOB_STATE_FAILED"
    assert job["error"]["message"] == (
        f"The replica workerpool1-0 exited with a non-zero status of {code}. Termination reason: Error. To find out "
        "more about why your job exited please check the logs: "
        f"https://console.cloud.google.com/logs/viewer?project=p&resource=ml_job%2Fjob_id%2F{number}"
    )
    assert ("workerpool1-0", "INFO", "last") in lab.lines


def test_a_cancelled_job_is_asked_first_and_killed_if_it_does_not_listen(lab: Lab) -> None:
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), exit(75)))"
    )
    name = lab.create(pool(f"{program}; {WAITS}"), pool(STUBBORN))
    lab.wait_for(("workerpool0-0", "INFO", "waits"), ("workerpool1-0", "INFO", "waits"))
    requests.post(f"{lab.cloud.address}/aiplatform/v1/{name}:cancel", json={}, timeout=10).raise_for_status()
    assert lab.cloud.vertex.jobs[name].state == "JOB_STATE_CANCELLING"
    assert lab.wait(name)["state"] == "JOB_STATE_CANCELLED"
    assert ("workerpool0-0", "INFO", "saved") in lab.lines
    assert_gone(lab.pids())


def test_a_job_ends_when_its_time_is_up(lab: Lab) -> None:
    job = lab.wait(lab.create(pool(WAITS), timeout="0.3s"))
    assert job["state"] == "JOB_STATE_CANCELLED" and "longer than its timeout" in job["error"]["message"]


def test_a_preempted_job_starts_again_as_a_whole(lab: Lab, tmp_path: Path) -> None:
    again = f"import os, sys; p = {str(tmp_path / 'p')!r}; os.path.exists(p) and sys.exit(); open(p, 'w'); {WAITS}"
    name = lab.create(pool(again), pool(WAITS), restartJobOnWorkerRestart=True)
    lab.wait_for(("workerpool0-0", "INFO", "waits"), ("workerpool1-0", "INFO", "waits"))
    first = lab.pids()
    lab.runner.preempt(name)
    assert lab.wait(name)["state"] == "JOB_STATE_SUCCEEDED" and "error" not in lab.cloud.vertex.jobs[name].resource
    assert len(first) == 2
    assert_gone(first)
    other = lab.create(pool(WAITS), pool(WAITS))
    with pytest.raises(AssertionError, match="each replica would start again by itself"):
        lab.runner.preempt(other)


def test_nothing_runs_when_the_runner_is_closed_and_what_went_wrong_inside_is_told(lab: Lab) -> None:
    lab.create(pool(STUBBORN))
    lab.wait_for(("workerpool0-0", "INFO", "waits"))
    missing = pool("")
    missing["containerSpec"]["command"] = ["no-such-program"]
    name = lab.create(pool(STUBBORN), missing)
    assert lab.wait(name)["state"] == "JOB_STATE_FAILED"
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        lab.runner.close()
    assert_gone(lab.pids())
