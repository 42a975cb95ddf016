"""The start-up script of a TPU host, really run, on a machine whose docker only notes what it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jobs
import pytest
from fakes.cloud import FakeCloud, Fault, serving
from fakes.tpu_host import TOKEN, TpuHost, tpu_host

from launch.local.worker_processes import free_ports
from launch.services.service import ApiRequest
from launch.services.tpu_request import create_request, parameters

PACE: dict[str, Any] = {
    "metadata": 0.2,
    "retry": 0.01,
    "attempts": 2,
    "pull": 5.0,
    "docker": 5.0,
    "look": 0.02,
    "others": 0.05,
    "servers": 1.0,
    "again": 0.01,
    "restarts": 2,
    "notice": 0.01,
    "deleted": 0.05,
}
FOLDER = "runs/flowers/launch/flowers-1"
NAME = "projects/project-1/locations/us-west4-a/queuedResources/flowers-1"


class World:
    """The cloud, and machines in it."""

    def __init__(self, folder: Path, cloud: FakeCloud, held: ExitStack) -> None:
        self._folder = folder
        self.cloud = cloud
        self.objects = cloud.bucket("bucket")
        self._held = held

    def host(self, worker: int = 0, addresses: tuple[str, ...] = (), **changes: Any) -> TpuHost:
        """A machine that is told what `create_request` tells it, with changes; it has not booted."""
        hardware = jobs.V5E_16 if addresses else jobs.V5E_8
        job = jobs.make_job(
            hardware, "--strategy=tpu", target="tpu-vm", location="us-west4-a", runtime="v2-alpha-tpuv5-lite"
        )
        told = {**parameters(create_request(job, jobs.SUBMISSION).body or {}), **changes}
        attributes = {"hub-trainer": json.dumps(told), "agent-worker-number": str(worker)}
        if addresses:
            attributes["hub-trainer"] = json.dumps({**told, "hosts": len(addresses)})
            attributes["worker-network-endpoints"] = ",".join(f"unknown:unknown:{each}" for each in addresses)
        address = addresses[worker] if addresses else "127.0.0.1"
        host = self._held.enter_context(tpu_host(self._folder / f"host-{worker}", self.cloud, attributes, address))
        self.cloud.tpu.on_delete = lambda _: host.terminate()
        return host

    def ended(self, worker: int = 0) -> dict[str, Any]:
        """What a host has told of the end."""
        return dict(json.loads(self.objects.contents[f"{FOLDER}/ended-{worker}.json"]))

    def tell_ended(self, worker: int, **changes: Any) -> None:
        """Writes what another host, or an earlier start, has told."""
        content = {"exit_code": 1, "stage": "pull", "message": "no image", "when": "2026-11-22T10:00:00+00:00"}
        content |= {"submission": jobs.SUBMISSION, "resource": NAME, **changes}
        self.objects.put(f"{FOLDER}/ended-{worker}.json", json.dumps(content).encode())

    @property
    def deletions(self) -> list[str]:
        return [request.path for request in self.cloud.sent("tpu", "DELETE") if request.query == {"force": "true"}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with serving() as cloud, ExitStack() as held:
        cloud.tpu.script = ("ACTIVE",)
        job = jobs.make_job(jobs.V5E_8, "--strategy=tpu", target="tpu-vm", location="us-west4-a", runtime="r")
        api = jobs.api_at(cloud)
        api.send(create_request(job, jobs.SUBMISSION))
        api.send(ApiRequest("tpu", "GET", f"v2/{NAME}"))  # Now it is active.
        yield World(tmp_path, cloud, held)


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_host_pulls_runs_tells_and_deletes_its_slice(world: World) -> None:
    host = world.host()
    host.boot(**PACE)
    assert host.wait() == 75  # The deletion ended it.
    assert host.did == ["login", "pull", "run hub-trainer"]
    login, pull = host.calls[0], host.calls[1]
    assert login["stdin"] == TOKEN
    assert login["arguments"][1:] == [
        "--username=oauth2accesstoken",
        "--password-stdin",
        "https://us-central1-docker.pkg.dev",
    ]
    assert login["has_config"] and pull["has_config"]
    assert TOKEN not in json.dumps([call["arguments"] for call in host.calls]) + host.journal
    run = next(call["arguments"] for call in host.calls if call["key"] == "run hub-trainer")
    image = run.index("us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123")
    assert run[image + 1 :] == ["python", "-m", "trainer.task", "--strategy=tpu", f"--run_dir={jobs.RUN_DIR}"]
    assert run[:image] == [
        *("run", "--rm", "--name=hub-trainer", "--privileged", "--net=host", "--user=0", "--stop-timeout=25"),
        *("--log-driver=gcplogs", "--log-opt=gcp-project=project-1"),
        "--log-opt=labels=hub-trainer-job,hub-trainer-submission,hub-trainer-worker",
        *("--label=hub-trainer-job=flowers-1", f"--label=hub-trainer-submission={jobs.SUBMISSION}"),
        *("--label=hub-trainer-worker=0", "--env=PYTHONUNBUFFERED=1"),
    ]
    ended = world.ended()
    assert ended.pop("when").startswith("20")
    whose = {"submission": jobs.SUBMISSION, "resource": NAME}
    assert ended["exit_code"] == 0 and {key: ended[key] for key in whose} == whose
    assert world.deletions == [f"/v2/{NAME}"]
    assert host.shutdowns == ["-P +1500"]  # 24 hours, and one more: should this script be killed.
    assert host.metadata.logged[0]["logName"] == "projects/project-1/logs/gcplogs-docker-driver"
    labels = host.metadata.logged[0]["entries"][0]["jsonPayload"]["container"]["metadata"]
    assert labels["hub-trainer-submission"] == jobs.SUBMISSION


@pytest.mark.parametrize(
    "behaviour, did, stage, exit_code, message",
    [
        pytest.param(
            {"pull": [["manifest unknown", 1]]},
            ["login", "pull", "login", "pull"],
            "pull",
            1,
            "abc123 cannot be pulled (docker pull: manifest unknown)",
            id="there is no such image",
        ),
        pytest.param(
            {"login": [["denied", 1]]}, ["login", "login"], "pull", 1, "docker login: denied", id="no permission"
        ),
        pytest.param(
            {"run hub-trainer": [["failed to initialize logging driver", 125]]},
            ["login", "pull", "run hub-trainer"],
            "run",
            125,
            "docker could not start hub-trainer: failed to initialize logging driver",
            id="docker does not start it",
        ),
        pytest.param(
            {"pull": [1, 0], "run hub-trainer": [2]},
            ["login", "pull", "login", "pull", "run hub-trainer"],
            "run",
            2,
            "hub-trainer ended with exit code 2",
            id="a pull that fails once, and a user's mistake",
        ),
        pytest.param(
            {"run hub-trainer": [75, 75, 0]},
            ["login", "pull", *["run hub-trainer"] * 3],
            "run",
            0,
            "",
            id="interrupted twice",
        ),
        pytest.param(
            {"run hub-trainer": [75]},
            ["login", "pull", *["run hub-trainer"] * 3],
            "run",
            75,
            "hub-trainer ended with exit code 75",
            id="interrupted again and again",
        ),
    ],
)
def test_however_the_container_ends_the_job_is_told_and_its_slice_deleted(
    world: World, behaviour: dict[str, list[Any]], did: list[str], stage: str, exit_code: int, message: str
) -> None:
    host = world.host()
    host.behave(behaviour)
    host.boot(**PACE)
    host.wait()
    assert host.did == did
    ended = world.ended()
    assert (ended["stage"], ended["exit_code"]) == (stage, exit_code)
    assert message in ended["message"] if message else ended["message"] == ""
    assert world.deletions == [f"/v2/{NAME}"]


def test_a_machine_without_docker_is_deleted(world: World) -> None:
    host = world.host()
    host.install("docker", "")
    host.boot(**PACE)
    host.wait()
    assert "No such file or directory: 'docker'" in world.ended()["message"]
    assert world.deletions


def test_a_pull_that_hangs_is_given_up(world: World) -> None:
    host = world.host()
    host.behave({"pull": ["hangs"]})
    host.boot(**{**PACE, "pull": 0.3, "attempts": 1})
    host.wait()
    assert "docker pull took longer than 0.3 s" in world.ended()["message"]
    assert world.deletions


@pytest.mark.parametrize(
    "code, stop, told",
    [
        pytest.param(75, [0], ("time limit", 75, "max_run_hours=0.000138889 have passed"), id="it saves"),
        pytest.param(0, [0], ("run", 0, ""), id="it is done just then"),
        pytest.param(
            75, ["hangs"], ("time limit", 75, "max_run_hours=0.000138889 have passed"), id="docker stop hangs"
        ),
    ],
)
def test_the_time_limit_ends_the_job(world: World, code: int, stop: list[Any], told: tuple[str, int, str]) -> None:
    host = world.host(max_run_seconds=0.5, stop_seconds=0.1)
    host.behave({"run hub-trainer": [f"until stopped, {code}"], "stop hub-trainer": stop})
    host.boot(**{**PACE, "docker": 1.0})
    host.wait()
    ended = world.ended()
    assert (ended["stage"], ended["exit_code"], ended["message"]) == told
    assert "stop hub-trainer" in host.did
    assert ("kill hub-trainer" in host.did) == (stop == ["hangs"])
    assert world.deletions


def test_the_time_limit_counts_from_the_first_boot(world: World, tmp_path: Path) -> None:
    host = world.host(max_run_seconds=3600)
    (tmp_path / "host-0" / "state").mkdir()
    (tmp_path / "host-0" / "state" / "flowers-1.started").write_text(str(time.time() - 3601))
    host.behave({"run hub-trainer": ["until stopped, 75"]})
    host.boot(**PACE)
    host.wait()
    assert world.ended()["stage"] == "time limit"
    assert host.shutdowns[0] == "-P +60"


def test_a_machine_that_is_taken_away_lets_the_trainer_save_and_tells_of_no_end(world: World) -> None:
    host = world.host()
    host.behave({"run hub-trainer": ["until stopped, 75"]})
    host.boot(**PACE)
    until(lambda: "run hub-trainer" in host.did)
    host.terminate()
    assert host.wait() == 75
    assert host.did[-1] == "stop hub-trainer"
    assert not world.objects.contents and not world.deletions


def test_a_trainer_that_is_done_when_its_machine_is_taken_away_is_done(world: World) -> None:
    host = world.host()
    host.behave({"run hub-trainer": ["until stopped, 0"]})
    host.boot(**PACE)
    until(lambda: "run hub-trainer" in host.did)
    host.terminate()
    host.wait()
    assert world.ended()["exit_code"] == 0
    assert world.deletions


def test_a_pull_does_not_hold_up_a_machine_that_goes(world: World) -> None:
    host = world.host()
    host.behave({"pull": ["hangs"]})
    host.boot(**{**PACE, "pull": 60.0})
    until(lambda: "pull" in host.did)
    host.terminate()
    assert host.wait() == 75
    assert not world.objects.contents and not world.deletions


@pytest.mark.parametrize("notice", ["the system stops", "the metadata server tells"])
def test_docker_may_hear_of_the_machines_end_first(world: World, notice: str) -> None:
    host = world.host()
    host.behave({"run hub-trainer": [137]})
    if notice == "the system stops":
        host.goes_down()
    else:
        host.metadata.values["instance/preempted"] = "TRUE"
    host.boot(**PACE)
    assert host.wait() == 75
    assert host.did.count("run hub-trainer") == 1
    assert not world.objects.contents and not world.deletions


@pytest.mark.parametrize("told", ["nothing", "rubbish", "no answer"])
def test_a_machine_that_does_not_know_its_job_shuts_itself_down(world: World, told: str) -> None:
    host = world.host()
    values = host.metadata.values
    values.pop("instance/attributes/hub-trainer")
    if told == "rubbish":
        values["instance/attributes/hub-trainer"] = "rubbish"
    if told == "no answer":
        host.metadata.faults.append(Fault("hub-trainer", 503))
    host.boot(**PACE)
    assert host.wait() == 1
    assert host.shutdowns == ["-P now"]
    assert not host.calls


def test_a_machine_without_a_service_account_shuts_itself_down(world: World) -> None:
    host = world.host()
    host.metadata.values.pop("instance/service-accounts/default/token")
    host.boot(**PACE)
    host.wait()
    assert host.shutdowns[-1] == "-P now"
    assert "the machine has no service account" in host.journal
    assert not world.deletions


def test_where_nothing_can_be_written_the_slice_is_deleted_all_the_same(world: World) -> None:
    world.cloud.faults.append(Fault("POST /upload/storage", 403))
    host = world.host()
    host.boot(**PACE)
    host.wait()
    assert world.deletions
    assert any("ended-0.json cannot be written: 403" in message for message in host.metadata.messages)


def test_a_slice_that_cannot_be_deleted_says_so_and_shuts_down(world: World) -> None:
    world.cloud.faults.append(Fault("DELETE /tpu", 403))
    host = world.host()
    host.behave({"run hub-trainer": [1]})
    host.boot(**PACE)
    assert host.wait() == 0
    ended = world.ended()
    assert (ended["stage"], ended["exit_code"]) == ("run", 1)
    assert f"{NAME} is not deleted (403 injected): delete it by hand." in ended["message"]
    assert any("delete it by hand" in message for message in host.metadata.messages)
    assert host.shutdowns[-1] == "-P now"


def test_a_machine_that_outlives_its_deletion_shuts_itself_down(world: World) -> None:
    host = world.host()
    world.cloud.tpu.on_delete = None
    host.boot(**PACE)
    host.wait()
    assert "its deletion was accepted, but this machine is still there" in world.ended()["message"]
    assert host.shutdowns[-1] == "-P now"


def test_a_job_that_has_ended_is_not_begun_again(world: World) -> None:
    world.tell_ended(0)
    host = world.host()
    host.boot(**PACE)
    host.wait()
    assert not host.calls
    assert world.deletions == [f"/v2/{NAME}"]


def test_the_end_of_an_earlier_job_of_that_name_is_not_this_ones(world: World) -> None:
    world.tell_ended(0, submission="another")
    host = world.host()
    host.boot(**PACE)
    host.wait()
    assert "run hub-trainer" in host.did
    assert world.ended()["submission"] == jobs.SUBMISSION


def test_a_slice_that_is_to_stay_stays(world: World) -> None:
    host = world.host(delete_when_done=False)
    host.boot(**PACE)
    assert host.wait() == 0
    assert world.ended()["exit_code"] == 0
    assert not world.deletions and not host.shutdowns


def test_a_fault_of_the_script_itself_ends_the_job(world: World) -> None:
    host = world.host(environment=5)
    host.boot(**PACE)
    host.wait()
    ended = world.ended()
    assert ended["stage"] == "script" and "TypeError" in ended["message"]
    assert world.deletions


def test_the_first_of_several_hosts_waits_for_the_servers_and_tells_the_trainer_of_all(world: World) -> None:
    port = free_ports(1)[0]
    host = world.host(0, ("127.0.0.1", "localhost"), server_port=port, server_command=["server", f"--port={port}"])
    host.behave({"run hub-trainer-server": ["until stopped, 0"]})
    host.boot(**PACE)
    host.wait()
    runs = [call["arguments"] for call in host.calls if call["key"].startswith("run")]
    assert [run[2] for run in runs] == ["--name=hub-trainer-server", "--name=hub-trainer"]
    assert runs[0][-2:] == ["server", f"--port={port}"]
    assert runs[1][-1] == f"--tpu=grpc://127.0.0.1:{port},localhost:{port}"
    assert "--env=TPU_LOAD_LIBRARY=0" in runs[1] and "--env=TPU_LOAD_LIBRARY=0" not in runs[0]
    assert host.did[-1] == "stop hub-trainer-server"
    assert world.ended()["exit_code"] == 0


def test_a_server_that_nobody_can_reach_ends_the_job(world: World) -> None:
    port = free_ports(1)[0]
    host = world.host(0, ("127.0.0.1", "127.0.0.1"), server_port=port)
    host.behave({"run hub-trainer-server": ["until stopped, 0"]})  # Its port is another.
    host.boot(**PACE)
    host.wait()
    ended = world.ended()
    assert ended["stage"] == "servers"
    assert f"no TPU server answers at 127.0.0.1:{port}" in ended["message"]
    assert f"let the network's firewall pass tcp:{port}" in ended["message"]


def test_a_server_that_ends_ends_the_job(world: World) -> None:
    host = world.host(1, ("127.0.0.1", "127.0.0.1"))
    host.behave({"run hub-trainer-server": [2]})
    host.boot(**PACE)
    host.wait()
    ended = world.ended(1)
    assert (ended["stage"], ended["exit_code"]) == ("server", 2)
    assert world.deletions


def test_a_server_that_docker_ends_with_the_machine_is_no_end_of_the_job(world: World) -> None:
    host = world.host(1, ("127.0.0.1", "127.0.0.1"))
    host.behave({"run hub-trainer-server": [0]})
    host.goes_down()
    host.boot(**PACE)
    assert host.wait() == 75
    assert not world.objects.contents and not world.deletions


@pytest.mark.parametrize("exit_code", [0, 3])
def test_every_host_ends_with_the_first(world: World, exit_code: int) -> None:
    host = world.host(1, ("127.0.0.1", "127.0.0.1"))
    host.behave({"run hub-trainer-server": ["until stopped, 0"]})
    host.boot(**PACE)
    until(lambda: "run hub-trainer-server" in host.did)
    world.tell_ended(0, exit_code=9, resource=f"{NAME}-r2")
    until(lambda: sum("ended-0.json" in line and "alt=media" in line for line in world.cloud.lines) >= 3)
    world.tell_ended(0, exit_code=exit_code)
    host.wait()
    assert (world.ended(1)["stage"], world.ended(1)["exit_code"]) == ("another host", exit_code)
    assert "stop hub-trainer-server" in host.did


def test_a_host_that_is_not_told_who_it_is_ends_the_job(world: World) -> None:
    host = world.host(1, ("127.0.0.1", "127.0.0.1"))
    host.metadata.values.pop("instance/attributes/agent-worker-number")
    host.boot(**PACE)
    host.wait()
    ended = world.ended()
    assert ended["stage"] == "metadata" and "worker None of unknown:unknown:127.0.0.1," in ended["message"]
    assert world.deletions
