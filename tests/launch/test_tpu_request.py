"""The request that makes a queued resource: golden files, Google's own class, and what the real gcloud sends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import gcloud
from fakes.cloud import serving
from golden import check_golden
from jobs import RUN_DIR, SERVICE_ACCOUNT, SUBMISSION, V5E_8, V5E_16, make_job

from launch.jobs.job import Hardware, Job
from launch.services.service import ApiRequest
from launch.services.tpu_request import (
    LARGEST_METADATA,
    again,
    create_request,
    gcloud_create,
    host_commands,
    job_name,
    parameters,
    problems,
    resource_of,
)
from trainer.accelerators import SLICES

GOLDEN = Path(__file__).with_name("golden")
ZONE = "us-west4-a"
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "launch" / "services" / "tpu_startup.py").read_text(encoding="utf-8")
IMAGE = "us-west4-docker.pkg.dev/project-1/hub-trainer/trainer-tpu:abc123"


def tpu_job(hardware: Hardware = V5E_8, *trainer_flags: str, **fields: Any) -> Job:
    chosen = {"location": ZONE, "runtime": "v2-alpha-tpuv5-lite", "image": IMAGE, **fields}
    return make_job(hardware, *(trainer_flags or ("--strategy=tpu",)), target="tpu-vm", **chosen)


SHAPES = {
    "on-demand": tpu_job(),
    "spot-slice": tpu_job(
        V5E_16,
        "--strategy=tpu",
        "--data=folder:gs://bucket/photos of 'flowers', all",
        provisioning="spot",
        max_wait_hours=2.5,
        max_run_hours=0.75,
        service_account=SERVICE_ACCOUNT,
        labels={"team": "vision"},
        delete_when_done=False,
    ),
    "reserved": tpu_job(provisioning="reserved", network="projects/project-1/global/networks/inner"),
}


def body_of(request: ApiRequest) -> dict[str, Any]:
    """The body, which the API's own class must read without an unknown field or value."""
    from google.cloud.tpu_v2.types import QueuedResource
    from google.protobuf import json_format

    assert request.body is not None
    json_format.ParseDict(request.body, QueuedResource.pb(QueuedResource()))
    return dict(request.body)


def node_of(request: ApiRequest) -> dict[str, Any]:
    return dict(body_of(request)["tpu"]["nodeSpec"][0]["node"])


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_are_as_somebody_last_saw_them(shape: str) -> None:
    request = create_request(SHAPES[shape], SUBMISSION)
    assert problems(SHAPES[shape]) == []
    assert node_of(request)["metadata"]["startup-script"] == SCRIPT
    text = json.dumps(asdict(request), indent=2).replace(json.dumps(SCRIPT), '"... launch/services/tpu_startup.py ..."')
    check_golden(GOLDEN / f"tpu-{shape}.json", text + "\n")


def test_the_gcloud_command_is_as_somebody_last_saw_it() -> None:
    command = gcloud_create(SHAPES["spot-slice"], SUBMISSION)
    assert command.files["tpu_startup.py"] == SCRIPT
    check_golden(GOLDEN / "tpu-spot-slice.sh", command.shell() + "\n")


@gcloud.requires_gcloud
@pytest.mark.parametrize("shape", SHAPES)
def test_gcloud_sends_the_same(shape: str, tmp_path: Path) -> None:
    command = gcloud_create(SHAPES[shape], SUBMISSION)
    with serving() as cloud:
        run = gcloud.run(command.arguments, cloud, tmp_path, command.files)
        assert run.returncode == 0, run.stderr
        sent = cloud.sent("tpu")[0]
    request = create_request(SHAPES[shape], SUBMISSION)
    assert (sent.method, sent.path.strip("/"), sent.body) == (request.method, request.path, request.body)
    # That a request may come twice is ours alone; gcloud sends no id with it (528).
    ours = {name: value for name, value in request.query.items() if name != "requestId"}
    assert {name: value for name, value in sent.query.items() if name != "alt"} == ours


def test_a_shell_makes_the_files_that_gcloud_is_given(tmp_path: Path) -> None:
    command = gcloud_create(SHAPES["spot-slice"], SUBMISSION)
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "gcloud").write_text("#!/bin/sh\n")
    (tmp_path / "gcloud").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-ec", command.shell()], cwd=tmp_path, env=environment, check=True, timeout=60)
    for name, text in command.files.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_the_metadata_is_no_larger_than_a_machine_may_have() -> None:
    for value in node_of(create_request(SHAPES["spot-slice"], SUBMISSION))["metadata"].values():
        assert len(value.encode()) < LARGEST_METADATA / 2


def test_the_script_is_told_what_to_run_and_where_to_tell_of_it() -> None:
    told = parameters(body_of(create_request(SHAPES["spot-slice"], SUBMISSION)))
    assert told["command"][:4] == ["python", "-m", "trainer.task", "--strategy=tpu"]
    assert told["server_command"] == ["python", "-m", "trainer.tpu_server", "--port=8470"]
    assert (told["hosts"], told["max_run_seconds"], told["delete_when_done"]) == (4, 2700, False)
    assert told["results"] == f"{RUN_DIR}/launch/flowers-1"
    assert told["queued_resource"] == resource_of(create_request(SHAPES["spot-slice"], SUBMISSION))


def test_a_further_request_differs_by_its_name_alone() -> None:
    first = create_request(SHAPES["spot-slice"], SUBMISSION)
    third = again(first, 3)
    resource = f"projects/project-1/locations/{ZONE}/queuedResources/flowers-1-r3"
    assert resource_of(third) == resource
    assert job_name(resource) == "flowers-1"
    assert len({each.query["requestId"] for each in (first, again(first, 2), third)}) == 3
    assert body_of(third)["tpu"]["nodeSpec"][0]["nodeId"] == "flowers-1-r3"
    assert parameters(body_of(third)) == {**parameters(body_of(first)), "queued_resource": resource}
    text = json.dumps(third.body).replace("flowers-1-r3", "flowers-1")
    assert json.loads(text) == first.body
    assert again(first, 3) == third
    with pytest.raises(ValueError, match="attempt 1 is no further one"):
        again(first, 1)


def test_a_part_of_a_second_counts_as_a_second() -> None:
    body = body_of(create_request(tpu_job(max_wait_hours=0.0001, max_run_hours=0.0001), SUBMISSION))
    assert body["queueingPolicy"] == {"validUntilDuration": "1s"}
    assert parameters(body)["max_run_seconds"] == 1


def test_a_request_that_comes_twice_has_the_same_id() -> None:
    job = SHAPES["on-demand"]
    first = create_request(job, SUBMISSION)
    assert first.query == create_request(job, SUBMISSION).query
    assert first.query["requestId"] != create_request(job, "another").query["requestId"]


def test_what_is_not_ours_has_no_parameters() -> None:
    body = body_of(create_request(SHAPES["on-demand"], SUBMISSION))
    body["tpu"]["nodeSpec"][0]["node"]["metadata"].pop("hub-trainer")
    others: list[dict[str, Any]] = [body, {}, {"tpu": {"nodeSpec": []}}]
    for foreign in others:
        with pytest.raises(ValueError, match="its metadata has no hub-trainer of ours"):
            parameters(foreign)


def test_people_are_told_what_runs_where() -> None:
    assert host_commands(SHAPES["on-demand"]) == {"the one worker": SHAPES["on-demand"].worker_command}
    several = host_commands(SHAPES["spot-slice"])
    assert several["every worker"][2] == "trainer.tpu_server"
    servers = "grpc://HOST0:8470,HOST1:8470,HOST2:8470,HOST3:8470"
    assert several["worker 0, with TPU_LOAD_LIBRARY=0"][-1] == f"--tpu={servers}"


@pytest.mark.parametrize(
    "job, words",
    [
        (tpu_job(name="flowers-r2"), "--name=flowers-r2 ends as the name of a further request would"),
        (
            tpu_job(image="trainer-tpu:abc"),
            "--image=trainer-tpu:abc is no address that a TPU VM can pull from: push it",
        ),
        (tpu_job(runtime=""), "No TPU software version is given"),
        (tpu_job(V5E_8, "--strategy=mirrored"), "--strategy=mirrored leaves the TPU idle: give --strategy=tpu."),
        (tpu_job(V5E_8, "--strategy=tpu", "--max_minutes=9"), "--max_minutes=9 would be begun again and again"),
        (
            tpu_job(V5E_8, "--strategy=tpu", "--stop_seconds=60", provisioning="spot"),
            "--stop_seconds=60: a spot machine is gone 30 s after the notice; give at most 25.",
        ),
        (tpu_job(provisioning="flex-start"), "Version 2 of Cloud TPU has no flex-start: take spot, reserved, or"),
        (tpu_job(max_run_hours=0), "--max_run_hours=0: give a number above 0"),
        (tpu_job(web_access=True), "A Tensorboard instance and web access are Vertex AI's: leave them out"),
    ],
)
def test_what_cloud_tpu_would_do_wrong_is_told(job: Job, words: str) -> None:
    (sentence,) = problems(job)
    assert words in sentence and sentence.endswith(".")


def test_stopping_may_take_longer_where_nobody_takes_machines_away() -> None:
    assert problems(tpu_job(V5E_8, "--strategy=tpu", "--stop_seconds=60")) == []


@pytest.mark.parametrize("image", ["gcr.io/p/i", f"{IMAGE.partition(':')[0]}@sha256:{'0' * 64}", "ghcr.io/o/i:v1.0"])
def test_an_image_may_be_in_any_registry(image: str) -> None:
    assert problems(tpu_job(image=image)) == []


def test_the_name_of_a_slice_means_one_topology() -> None:
    """Which is why the request names the accelerator's type alone, as gcloud does: its --type has v2 to v4 only."""
    assert len({(each.generation.prefix, each.topology) for each in SLICES.values()}) == len(SLICES)
    assert node_of(create_request(replace(SHAPES["on-demand"], hardware=V5E_16), SUBMISSION))["acceleratorType"] == (
        "v5litepod-16"
    )
