"""A job on a spot slice of two hosts, from its submission over a preemption to its end.

The fake Cloud TPU starts the start-up script on two fake hosts, up to the commands that docker is given: no container
runs, and no TPU.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fakes.cloud import FakeCloud, serving
from fakes.tpu_api import QueuedResource
from fakes.tpu_host import TOKEN, TpuHost, tpu_host
from jobs import SUBMISSION, api_at, make_job

from launch.jobs.job import Hardware
from launch.jobs.submission import submit
from launch.local.worker_logs import Console
from launch.records.follow import Follower
from launch.records.records import Record, open_records
from launch.records.requests_again import requester
from launch.services.service import State
from launch.services.tpu_request import create_request
from launch.services.tpu_vm import TpuVmService

LONGEST_SECONDS = 60.0
PARENT = "projects/project-1/locations/us-east5-a"
FIRST, SECOND = (f"{PARENT}/queuedResources/{name}" for name in ("flowers-1", "flowers-1-r2"))
UNTIL_STOPPED: dict[str, list[Any]] = {
    "run hub-trainer-server": ["until stopped, 0"],
    "run hub-trainer": ["until stopped, 75"],
}


class Slices:
    """Gives each queued resource that becomes active its two hosts, and takes them away with it."""

    def __init__(self, folder: Path, cloud: FakeCloud, held: ExitStack) -> None:
        self._folder = folder
        self._cloud = cloud
        self._held = held
        # Hosts have one port and two addresses; of this process alone, since several may run these tests.
        self.addresses = [f"127.{os.getpid() // 256 % 256}.{os.getpid() % 256}.{host + 1}" for host in range(2)]
        self.hosts: dict[str, list[TpuHost]] = {}
        self.behaviours = [UNTIL_STOPPED, {**UNTIL_STOPPED, "run hub-trainer": [0]}]
        cloud.tpu.hosts = 2
        cloud.tpu.on_active = self.start
        cloud.tpu.on_delete = self.stop

    def start(self, known: QueuedResource) -> None:
        metadata = known.node_spec["node"]["metadata"]
        behaviour = self.behaviours[len(self.hosts)]
        name = known.name.rpartition("/")[2]
        endpoints = ",".join(f"unknown:unknown:{address}" for address in self.addresses)
        self.hosts[known.name] = []
        for number, address in enumerate(self.addresses):
            whose = {"agent-worker-number": str(number), "worker-network-endpoints": endpoints}
            host = self._held.enter_context(
                tpu_host(self._folder / f"{name}-{number}", self._cloud, {**metadata, **whose}, address)
            )
            host.behave(behaviour)
            host.boot(metadata["startup-script"])
            self.hosts[known.name].append(host)

    def stop(self, known: QueuedResource) -> None:
        for host in self.hosts.get(known.name, []):
            host.terminate()

    def preempt(self, resource: str) -> None:
        """Takes a slice back, as the cloud does: its machines are told, and gone a little later."""
        self._cloud.tpu.resources[resource].preempt()
        for host in self.hosts[resource]:
            host.metadata.values["instance/preempted"] = "TRUE"
            host.terminate()


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serving() as cloud:
        cloud.bucket("bucket")
        yield cloud


@pytest.fixture
def slices(cloud: FakeCloud, tmp_path: Path) -> Iterator[Slices]:
    with ExitStack() as held:
        yield Slices(tmp_path, cloud, held)


def submitted(cloud: FakeCloud, folder: Path, service: TpuVmService) -> Record:
    hardware = Hardware("v5p-16", 8, 2, "", "2x2x2")
    job = make_job(hardware, "--strategy=tpu", target="tpu-vm", location="us-east5-a", runtime="r", provisioning="spot")
    record = Record(
        name=job.name,
        target="tpu-vm",
        project=job.project,
        location=job.location,
        submission=SUBMISSION,
        created=datetime.now(timezone.utc).isoformat(),
        request=create_request(job, SUBMISSION),
        max_requests=2,
    )
    return submit(record, service, open_records(str(folder), lambda: api_at(cloud)), may_exist=False)[0]


def test_a_slice_is_preempted_requested_again_and_finishes(slices: Slices, cloud: FakeCloud, tmp_path: Path) -> None:
    service = TpuVmService(api_at(cloud))
    record = submitted(cloud, tmp_path / "records", service)
    records = open_records(str(tmp_path / "records"), lambda: api_at(cloud))
    deadline = time.monotonic() + LONGEST_SECONDS
    told_before_the_second: list[str] = []

    def pause(_: float) -> None:
        """In the place of Follower's pauses: takes the first slice away once its trainer runs."""
        assert time.monotonic() < deadline, journals(slices)
        time.sleep(0.05)
        first = slices.hosts.get(FIRST)
        if first and "run hub-trainer" in first[0].did and cloud.tpu.resources[FIRST].state == "ACTIVE":
            slices.preempt(FIRST)
            assert [host.wait() for host in first] == [75, 75], journals(slices)
            told_before_the_second.extend(cloud.bucket("bucket").contents)

    notes = io.StringIO()
    follower = Follower(
        lambda resource: service.get_requested(resource, record.request),
        Console(notes, notes, {}),
        request_again=requester(record, records, service),
        sleep=pause,
    )
    status = follower.follow(record.resource)

    assert (status.state, status.exit_code, status.resource) == (State.SUCCEEDED, 0, SECOND), journals(slices)
    assert "is requested again, as" in notes.getvalue()
    kept = records.load("flowers-1")
    assert kept is not None and kept.attempts == (FIRST, SECOND)
    assert told_before_the_second == []
    for resource in (FIRST, SECOND):
        chief, other = slices.hosts[resource]
        started = ["login", "pull", "run hub-trainer-server"]
        assert chief.did[:4] == [*started, "run hub-trainer"]
        assert other.did[:3] == started and "run hub-trainer" not in other.did
        command = next(call["arguments"] for call in chief.calls if call["key"] == "run hub-trainer")
        image = command.index("us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123")
        servers = ",".join(f"{address}:8470" for address in slices.addresses)
        trainer = ["python", "-m", "trainer.task", "--strategy=tpu", "--run_dir=gs://bucket/runs/flowers"]
        assert command[image + 1 :] == [*trainer, f"--tpu=grpc://{servers}"]
        assert "--env=TPU_LOAD_LIBRARY=0" in command
        for host in (chief, other):
            server = next(call["arguments"] for call in host.calls if call["key"] == "run hub-trainer-server")
            assert server[-4:] == ["python", "-m", "trainer.tpu_server", "--port=8470"]
    assert "stop hub-trainer" in slices.hosts[FIRST][0].did

    wait_until(lambda: any(sent.path == f"/v2/{SECOND}" for sent in cloud.sent("tpu", "DELETE")), slices)
    by_script = [sent for sent in cloud.sent("tpu", "DELETE") if sent.headers["Authorization"] == f"Bearer {TOKEN}"]
    assert [sent.path for sent in by_script] == [f"/v2/{SECOND}"]
    for host in slices.hosts[SECOND]:
        host.wait()
    ended = json.loads(cloud.bucket("bucket").contents["runs/flowers/launch/flowers-1/ended-0.json"])
    assert (ended["exit_code"], ended["resource"]) == (0, SECOND)
    assert service.get_requested(SECOND, record.request).state is State.SUCCEEDED
    assert service.get_requested(SECOND, record.request).said == "gone"


def wait_until(happened: Callable[[], bool], slices: Slices) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not happened():
        assert time.monotonic() < deadline, journals(slices)
        time.sleep(0.02)


def journals(slices: Slices) -> str:
    """What the hosts printed, for whoever looks why a test failed."""
    return "\n".join(host.journal for hosts in slices.hosts.values() for host in hosts)
