"""What is said of a job before Vertex AI would refuse it, or would do otherwise than meant."""

from __future__ import annotations

from typing import Any

import pytest
from jobs import CPU, FOUR_GPUS, ONE_GPU, SERVICE_ACCOUNT, THREE_WORKERS, V3_8, V5E_8, V5E_16, make_job

from launch.jobs.job import Hardware, Job
from launch.services.vertex_problems import problems

TENSORBOARD = "projects/project-1/locations/us-central1/tensorboards/67890"
LAYOUT = "--run_dir_layout=vertex"


@pytest.mark.parametrize(
    ("hardware", "flags"),
    [
        (CPU, ["--strategy=default"]),
        (ONE_GPU, ["--strategy=mirrored"]),
        (FOUR_GPUS, ["--strategy=mirrored"]),
        (THREE_WORKERS, ["--strategy=multi_worker", "--batch_size=36"]),
        (V3_8, ["--strategy=tpu"]),
        (V5E_8, ["--strategy=tpu"]),
    ],
)
def test_a_strategy_that_uses_every_device_is_fine(hardware: Hardware, flags: list[str]) -> None:
    assert problems(make_job(hardware, *flags)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"provisioning": "flex-start", "max_wait_hours": 1000.0},
        {"max_run_hours": 168.0},
        {"service_account": "12345-compute@developer.gserviceaccount.com"},
        {"network": "projects/12345/global/networks/default"},
        {"web_access": True, "labels": {"team": "vision"}},
    ],
)
def test_options_that_go_together_are_fine(fields: dict[str, Any]) -> None:
    assert problems(make_job(**fields)) == []


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (
            make_job(FOUR_GPUS),
            "--strategy=default does not use one machine with 4 a100-40gb: take --strategy=mirrored.",
        ),
        (
            make_job(THREE_WORKERS, "--strategy=mirrored", "--batch_size=36"),
            "--strategy=mirrored does not use 3 machines with 2 l4 each: take --strategy=multi_worker.",
        ),
        (
            make_job(V3_8, "--strategy=mirrored"),
            "--strategy=mirrored does not use a TPU slice v3-8: take --strategy=tpu.",
        ),
        (make_job(CPU, "--strategy=tpu"), "--strategy=tpu does not use one machine: take --strategy=default."),
        (
            make_job(V5E_16, "--strategy=tpu"),
            "--accelerator=v5litepod-16 has 4 hosts, and on Vertex AI the trainer runs on one: take a slice of one "
            "host, such as v5litepod-8, or submit tpu-vm.",
        ),
        (
            make_job(max_run_hours=169.0),
            "--max_run_hours=169: must be above 0 and at most 168; a longer run goes on when it is submitted again "
            "with the same --run_dir.",
        ),
        (
            make_job(provisioning="reserved"),
            "--provisioning=reserved is for tpu-vm: take standard, spot or flex-start.",
        ),
        (
            make_job(V5E_8, "--strategy=tpu", provisioning="flex-start"),
            "--provisioning=flex-start waits for GPUs of the kinds l4, a100, h100, h200, not for v5litepod-8: take "
            "standard or spot.",
        ),
        (
            make_job(CPU, provisioning="flex-start"),
            "--provisioning=flex-start waits for GPUs of the kinds l4, a100, h100, h200, not for machines without: "
            "take standard or spot.",
        ),
        (
            make_job(Hardware("t4", 1, 1, "n1-standard-8"), provisioning="flex-start"),
            "--provisioning=flex-start waits for GPUs of the kinds l4, a100, h100, h200, not for t4: take standard or "
            "spot.",
        ),
        (
            make_job(max_wait_hours=2.0, provisioning="spot"),
            "--max_wait_hours=2 has no effect with --provisioning=spot: leave it out, or take flex-start.",
        ),
        (
            make_job(service_account="me@example.com"),
            "--service_account=me@example.com: must be a service account's address, as in "
            "trainer@project-1.iam.gserviceaccount.com.",
        ),
        (
            make_job(network="projects/project-1/global/networks/default"),
            "--network=projects/project-1/global/networks/default: must be projects/NUMBER/global/networks/NAME, with "
            "the project's number, which `gcloud projects describe project-1` prints.",
        ),
        (
            make_job(ONE_GPU, LAYOUT, tensorboard="67890", service_account=SERVICE_ACCOUNT),
            "--tensorboard=67890: must be projects/P/locations/REGION/tensorboards/NUMBER, as `gcloud ai tensorboards "
            "list --region=us-central1` prints it.",
        ),
        (
            make_job(
                ONE_GPU,
                LAYOUT,
                tensorboard=TENSORBOARD.replace("us-central1", "us-east1"),
                service_account=SERVICE_ACCOUNT,
            ),
            "--tensorboard=projects/project-1/locations/us-east1/tensorboards/67890 must be in the job's region, "
            "us-central1: choose another.",
        ),
        (
            make_job(ONE_GPU, LAYOUT, tensorboard=TENSORBOARD),
            "--tensorboard needs --service_account, with the roles storage.admin and aiplatform.user: the service's "
            "default may not write there.",
        ),
        (
            make_job(tensorboard=TENSORBOARD, service_account=SERVICE_ACCOUNT),
            "--tensorboard shows what is in RUN_DIR/logs, and the curves would be in RUN_DIR/tensorboard: add "
            "--run_dir_layout=vertex behind --.",
        ),
    ],
)
def test_what_would_be_refused_is_said(job: Job, problem: str) -> None:
    assert problems(job) == [problem]


def test_a_tensorboard_instance_with_all_it_needs_is_fine() -> None:
    job = make_job(ONE_GPU, LAYOUT, tensorboard=TENSORBOARD, service_account=SERVICE_ACCOUNT)
    assert problems(job) == []


def test_what_is_wrong_anywhere_is_said_too() -> None:
    job = make_job(name="Flowers", image="europe-docker.pkg.dev/p/r/i:1", run_dir="runs/flowers")
    assert [problem.partition("=")[0] for problem in problems(job)] == ["--name", "--run_dir", "--image"]
