"""What is said of a job wherever it is to run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jobs import CPU, FOUR_GPUS, THREE_WORKERS, V3_8, V5E_8, V5E_16, make_job

from launch.jobs.job import Hardware
from launch.jobs.job_problems import (
    batch_problems,
    image_problems,
    label_problems,
    name_problems,
    replicas,
    run_dir_problems,
)

V4_8 = Hardware("v4-8", 4, 1, "", "2x2x1")
"""Four chips, whose two cores each work as one."""


@pytest.mark.parametrize("name", ["f", "flowers-1", "a" * 50])
def test_a_name_that_can_be_an_id_is_fine(name: str) -> None:
    assert name_problems(make_job(name=name)) == []


@pytest.mark.parametrize("name", ["", "Flowers", "1flowers", "flowers-", "flowers_1", "a" * 51, "flowers\n", "é"])
def test_another_name_is_refused(name: str) -> None:
    (problem,) = name_problems(make_job(name=name))
    assert problem.startswith(f"--name={name}: must be up to 50 small letters")


@pytest.mark.parametrize("label", [("team", "vision"), ("a" * 63, "b" * 63), ("empty", ""), ("a_b-1", "2026-11")])
def test_labels_that_google_takes_are_fine(label: tuple[str, str]) -> None:
    assert label_problems(make_job(labels=dict([label]))) == []


@pytest.mark.parametrize(
    "label",
    [("Team", "vision"), ("team", "Vision"), ("", "x"), ("a" * 64, "b"), ("a", "b" * 64), ("1st", "x"), ("a", "b c")],
)
def test_other_labels_are_refused(label: tuple[str, str]) -> None:
    (problem,) = label_problems(make_job(labels=dict([label])))
    assert problem.startswith(f"--label={label[0]}={label[1]}: keys and values are small letters")


@pytest.mark.parametrize("key", ["created-by", "hub-trainer-job", "hub-trainer-submission"])
def test_labels_of_our_own_are_not_the_users(key: str) -> None:
    assert label_problems(make_job(labels={key: "me"})) == [
        f"--label={key}=me: launch sets {key} itself; take another key."
    ]


def test_there_is_room_for_our_own_labels() -> None:
    labels = {f"label-{number}": "x" for number in range(61)}
    assert label_problems(make_job(labels=labels)) == []
    assert label_problems(make_job(labels={**labels, "one-more": "x"})) == [
        "--label is given 62 times, and 61 is the most beside launch's own: leave out some."
    ]


@pytest.mark.parametrize("run_dir", ["gs://bucket", "gs://bucket/runs/x", "gs://my.bucket_1/x"])
def test_a_run_directory_is_in_a_bucket(run_dir: str) -> None:
    assert run_dir_problems(make_job(run_dir=run_dir)) == []


@pytest.mark.parametrize("run_dir", ["runs/x", "/tmp/x", "s3://bucket/x", "gs://", "gs://B/x"])
def test_another_run_directory_is_refused(run_dir: str) -> None:
    (problem,) = run_dir_problems(make_job(run_dir=run_dir))
    assert problem.startswith(f"--run_dir={run_dir.rstrip('/')}: the machines' own disks go with them")


@pytest.mark.parametrize(
    ("registry", "region"),
    [
        ("us-west1-docker.pkg.dev/p/r/i:1", "us-west1"),
        ("us-docker.pkg.dev/p/r/i:1", "us-west1"),
        ("europe-docker.pkg.dev/p/r/i:1", "europe-west4"),
        ("docker.io/library/python", "us-west1"),
        ("gcr.io/p/i", "asia-east1"),
    ],
)
def test_an_image_that_is_near_is_fine(registry: str, region: str) -> None:
    assert image_problems(make_job(image=registry), region) == []


def test_an_image_that_is_far_away_is_said() -> None:
    assert image_problems(make_job(image="us-west1-docker.pkg.dev/p/r/i:1"), "us-east1") == [
        "--image=us-west1-docker.pkg.dev/p/r/i:1 is in us-west1 and the machines are in us-east1: push it to "
        "us-east1-docker.pkg.dev, or take machines in us-west1."
    ]
    assert image_problems(make_job(image="europe-west1-docker.pkg.dev/p/r/i:1"), "europe-west12") != []
    assert image_problems(make_job(image="europe-docker.pkg.dev/p/r/i:1"), "us-east1") == [
        "--image=europe-docker.pkg.dev/p/r/i:1 is in europe and the machines are in us-east1: push it to "
        "us-east1-docker.pkg.dev."
    ]


@pytest.mark.parametrize(
    ("hardware", "count"),
    [(CPU, 1), (FOUR_GPUS, 4), (THREE_WORKERS, 6), (V3_8, 8), (V5E_8, 8), (V5E_16, 16), (V4_8, 4)],
)
def test_every_device_is_a_replica(hardware: Hardware, count: int) -> None:
    assert replicas(make_job(hardware)) == count


def test_virtual_devices_are_replicas_of_every_worker() -> None:
    assert replicas(make_job(replace(CPU, workers=2), "--strategy=multi_worker", "--virtual_devices=4")) == 8


def test_a_batch_that_replicas_do_not_divide_is_said() -> None:
    assert batch_problems(make_job(THREE_WORKERS, "--batch_size=32")) == [
        "--batch_size=32 cannot be shared by 6 replicas; take 30 or 36."
    ]
    assert batch_problems(make_job(THREE_WORKERS, "--batch_size=36")) == []
    assert batch_problems(make_job(THREE_WORKERS, "--batch_size=auto")) == []
