"""The request that creates a job of Vertex AI: golden files, Google's own class, and what the real gcloud sends."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes import gcloud
from fakes.cloud import serving
from golden import check_golden
from jobs import (
    CPU,
    FOUR_GPUS,
    ONE_GPU,
    SERVICE_ACCOUNT,
    SUBMISSION,
    THREE_WORKERS,
    V2_8,
    V3_8,
    V5E_8,
    make_job,
)

from launch.jobs.hardware import choose
from launch.jobs.job import Hardware, Job
from launch.services.vertex_request import create_request, gcloud_create, problems

GOLDEN = Path(__file__).with_name("golden")

SHAPES: dict[str, Job] = {
    "cpu": make_job(CPU, max_run_hours=0.5),
    "four-gpus-spot": make_job(FOUR_GPUS, "--strategy=mirrored", provisioning="spot", labels={"team": "vision"}),
    "three-workers-flex-start": make_job(
        THREE_WORKERS,
        "--strategy=multi_worker",
        "--batch_size=96",
        "--run_dir_layout=vertex",
        "--data=folder:gs://bucket/photos of 'flowers'",
        provisioning="flex-start",
        max_wait_hours=2.5,
        service_account=SERVICE_ACCOUNT,
        network="projects/12345/global/networks/default",
        tensorboard="projects/project-1/locations/us-central1/tensorboards/67890",
        web_access=True,
    ),
    "v3-8": make_job(V3_8, "--strategy=tpu"),
    "v5litepod-8": make_job(V5E_8, "--strategy=tpu"),
}


def body_of(job: Job) -> dict[str, Any]:
    """The request's body, which the API's own class must read without an unknown field or value."""
    from google.cloud.aiplatform_v1.types import CustomJob
    from google.protobuf import json_format

    body = create_request(job, SUBMISSION).body
    assert body is not None
    json_format.ParseDict(body, CustomJob.pb(CustomJob()))
    return dict(body)


def spec_of(job: Job) -> dict[str, Any]:
    return dict(body_of(job)["jobSpec"])


@pytest.mark.parametrize(
    ("accelerator", "workers", "machine", "hardware"),
    [
        ("", None, "n2-standard-8", CPU),
        ("l4", 1, "g2-standard-12", ONE_GPU),
        ("a100-40gb:4", None, "", FOUR_GPUS),
        ("l4:2", 3, "", THREE_WORKERS),
        ("v2-8", None, "", V2_8),
        ("v3-8", None, "", V3_8),
    ],
)
def test_hardware_of_these_tests_is_what_the_catalog_gives(
    accelerator: str, workers: int | None, machine: str, hardware: Hardware
) -> None:
    place = {"topology": "", "location": "us-central1"}
    assert choose("vertex", accelerator=accelerator, workers=workers, machine=machine, **place) == hardware


@pytest.mark.parametrize("shape", SHAPES)
def test_requests_are_as_somebody_last_saw_them(shape: str) -> None:
    job = SHAPES[shape]
    assert problems(job) == []
    body_of(job)
    check_golden(GOLDEN / f"vertex-{shape}.json", json.dumps(asdict(create_request(job, SUBMISSION)), indent=2) + "\n")


def test_the_gcloud_command_is_as_somebody_last_saw_it() -> None:
    check_golden(GOLDEN / "vertex-cpu.sh", gcloud_create(SHAPES["cpu"], SUBMISSION).shell() + "\n")


@gcloud.requires_gcloud
@pytest.mark.parametrize("shape", SHAPES)
def test_gcloud_sends_the_same(shape: str, tmp_path: Path) -> None:
    job = SHAPES[shape]
    command = gcloud_create(job, SUBMISSION)
    with serving() as cloud:
        run = gcloud.run(command.arguments, cloud, tmp_path, command.files)
        assert run.returncode == 0, run.stderr
        (sent,) = cloud.sent("aiplatform")
    request = create_request(job, SUBMISSION)
    assert (sent.method, sent.path.strip("/"), sent.body) == (request.method, request.path, request.body)


@pytest.mark.parametrize(
    ("hardware", "machine"),
    [
        (CPU, {"machineType": "n2-standard-8"}),
        (ONE_GPU, {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}),
        (V2_8, {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 8}),
        (V5E_8, {"machineType": "ct5lp-hightpu-8t", "tpuTopology": "2x4"}),
    ],
)
def test_a_machine_is_named_as_vertex_names_it(hardware: Hardware, machine: dict[str, object]) -> None:
    (pool,) = spec_of(make_job(hardware))["workerPoolSpecs"]
    assert pool["machineSpec"] == machine


def test_the_chief_is_a_pool_of_its_own() -> None:
    first, others = spec_of(SHAPES["three-workers-flex-start"])["workerPoolSpecs"]
    assert (first.pop("replicaCount"), others.pop("replicaCount")) == ("1", "2")
    assert first == others


def test_every_worker_runs_the_trainer_and_knows_where_results_go() -> None:
    job = SHAPES["three-workers-flex-start"]
    for pool in spec_of(job)["workerPoolSpecs"]:
        container = pool["containerSpec"]
        assert (*container["command"], *container["args"]) == job.worker_command
        assert f"--run_dir={job.run_dir}" in container["args"]
        assert {"name": "PYTHONUNBUFFERED", "value": "1"} in container["env"]
    assert spec_of(job)["baseOutputDirectory"] == {"outputUriPrefix": job.run_dir}


@pytest.mark.parametrize(
    ("job", "scheduling"),
    [
        (make_job(), {"strategy": "STANDARD", "timeout": "86400s"}),
        (make_job(max_run_hours=0.001), {"strategy": "STANDARD", "timeout": "4s"}),
        (make_job(provisioning="spot"), {"strategy": "SPOT", "timeout": "86400s", "restartJobOnWorkerRestart": True}),
        (make_job(THREE_WORKERS), {"strategy": "STANDARD", "timeout": "86400s", "restartJobOnWorkerRestart": True}),
        (
            make_job(provisioning="flex-start"),
            {"strategy": "FLEX_START", "timeout": "86400s", "maxWaitDuration": "0s"},
        ),
    ],
)
def test_time_is_limited_and_restarts_are_asked_for_where_they_help(job: Job, scheduling: dict[str, object]) -> None:
    assert spec_of(job)["scheduling"] == scheduling


def test_what_is_not_given_is_left_to_the_service() -> None:
    assert set(spec_of(make_job())) == {"workerPoolSpecs", "scheduling", "baseOutputDirectory"}


def test_the_submission_can_be_found_by_its_label() -> None:
    assert body_of(make_job(labels={"team": "vision"}))["labels"] == {
        "team": "vision",
        "created-by": "hub-trainer",
        "hub-trainer-job": "flowers-1",
        "hub-trainer-submission": SUBMISSION,
    }
