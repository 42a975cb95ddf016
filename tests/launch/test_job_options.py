"""The job that a command line describes: what is filled in, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from launch.jobs.job import Hardware, Job, Target
from launch.jobs.job_options import add_job_options, arguments_of, job_from_options
from trainer.config import Config
from trainer.errors import UserError

MOMENT = datetime(2026, 11, 22, 17, 5)
IMAGE = "{region}-docker.pkg.dev/{project}/hub-trainer/trainer-{device}:abc"
GCLOUD = {"CLOUDSDK_CORE_PROJECT": "mine", "CLOUDSDK_AI_REGION": "us-central1", "CLOUDSDK_COMPUTE_ZONE": "us-west4-a"}
FLAGS = ("--data=tfds:tf_flowers", "--run_dir=gs://bucket/flowers")


def parsed(options: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    return parser.parse_args(options)


def job(*options: str, flags: Sequence[str] = FLAGS, target: Target = "vertex") -> Job:
    return job_from_options(target, parsed(options), flags, GCLOUD, MOMENT, IMAGE)


def test_what_is_not_given_is_gclouds_and_the_smallest() -> None:
    made = job()
    assert (made.project, made.location) == ("mine", "us-central1")
    assert made.hardware.workers == 1 and not made.hardware.accelerator and made.hardware.machine
    assert made.image == "us-central1-docker.pkg.dev/mine/hub-trainer/trainer-cpu:abc"
    assert made.name == "tf-flowers-convnet-20261122-170500"
    assert made.trainer_flags == FLAGS
    assert made.max_run_hours == 24 and made.delete_when_done


@pytest.mark.parametrize(
    ("options", "target", "strategy", "device"),
    [
        (["--accelerator=l4"], "vertex", "default", "gpu"),
        (["--accelerator=l4:2"], "vertex", "mirrored", "gpu"),
        (["--accelerator=l4", "--workers=2"], "vertex", "multi_worker", "gpu"),
        (["--accelerator=v5litepod-8"], "vertex", "tpu", "tpu"),
        (["--accelerator=v5litepod-16"], "tpu-vm", "tpu", "tpu"),
    ],
)
def test_the_strategy_is_the_one_that_uses_all_devices(
    options: list[str], target: Target, strategy: str, device: str
) -> None:
    made = job(*options, target=target)
    assert made.config.strategy == strategy
    expected = [] if strategy == "default" else [f"--strategy={strategy}"]
    assert made.trainer_flags == (*expected, *FLAGS)
    assert f"/trainer-{device}:" in made.image
    assert made.image.startswith("us-west4-" if target == "tpu-vm" else "us-central1-")


def test_a_strategy_that_leaves_devices_idle_is_refused() -> None:
    with pytest.raises(UserError, match="^--strategy=mirrored does not use 2 machines with 4 a100-40gb each: leave it"):
        job("--accelerator=a100-40gb:4", "--workers=2", flags=["--strategy=mirrored"])
    assert job("--accelerator=l4", flags=["--strategy=mirrored"]).config.strategy == "mirrored"


def test_a_tensorboard_instance_gets_the_folder_that_it_looks_in() -> None:
    instance = "--tensorboard=projects/mine/locations/us-central1/tensorboards/1"
    assert "--run_dir_layout=vertex" in job(instance).trainer_flags
    assert "--run_dir_layout=vertex" not in job(instance, flags=[*FLAGS, "--run_dir_layout=plain"]).trainer_flags
    assert "--run_dir_layout=vertex" not in job().trainer_flags


def test_workers_get_the_checked_configuration_whatever_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(Config(data="tfds:cats_vs_dogs", epochs=3, run_dir="gs://b/r").to_json(), encoding="utf-8")
    made = job("--accelerator=l4:2", flags=[f"--config={file}", "--epochs=4", "--quiet", "--"])
    assert made.trainer_flags == (
        "--strategy=mirrored",
        "--data=tfds:cats_vs_dogs",
        "--epochs=4",
        "--run_dir=gs://b/r",
        "--quiet",
    )


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--data=folder:gs://b/Flower Photos/"], "flower-photos-convnet"),
        (
            ["--backbone=https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5"],
            "digits-mobilenet-v2-10",
        ),
        (["--data=folder:gs://b/123"], "run"),
    ],
)
def test_a_name_says_what_is_trained(flags: list[str], name: str) -> None:
    assert job(flags=flags).name.startswith(name) and len(job(flags=flags).name) <= 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--label=team"], "--label=team: must be KEY=VALUE, as in --label=team=vision."),
        (["--label=a=b", "--label=a=c"], "--label=a=c: a is given twice."),
        (["--zone=us-west4-a"], "--zone=us-west4-a is for tpu-vm: vertex runs in a region"),
        (["--max_run_hours=0"], "--max_run_hours=0: must be hours above 0 to 168, as in 1.5."),
        (["--max_run_hours=nan"], "--max_run_hours=nan: must be hours above 0 to 168"),
        (["--max_wait_hours=-1"], "--max_wait_hours=-1: must be hours from 0 to 168"),
        (["--workers=0"], "--workers=0: must be a whole number from 1 to 64."),
    ],
)
def test_options_that_are_refused(options: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        job(*options)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("missing", "target", "sentence"),
    [
        ("CLOUDSDK_CORE_PROJECT", "vertex", "No project is given, and gcloud is set to none: add --project=ID."),
        ("CLOUDSDK_AI_REGION", "vertex", "No region is given, and gcloud is set to none: add --region=us-central1."),
        ("CLOUDSDK_COMPUTE_ZONE", "tpu-vm", "No zone is given, and gcloud is set to none: add --zone=us-west4-a."),
    ],
)
def test_places_that_nobody_gives(missing: str, target: Target, sentence: str) -> None:
    environment = {name: value for name, value in GCLOUD.items() if name != missing}
    with pytest.raises(UserError) as error:
        job_from_options(target, parsed(["--accelerator=v5litepod-8"]), FLAGS, environment, MOMENT, IMAGE)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epoch=3"], "Unknown command line flag 'epoch'. Did you mean: epochs"),
        (["--epochs=0"], "--epochs=0: must be greater than or equal to 1."),
        (["--dry_run"], "--dry_run does not go with a job"),
        (["--help"], "--help behind -- is the trainer's"),
        (["--config=gs://b/c.json"], "--config=gs://b/c.json: launch reads files of this machine"),
    ],
)
def test_flags_of_the_trainer_that_are_refused(flags: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        job(flags=flags)
    assert str(error.value).startswith(sentence)


def test_options_can_be_written_again() -> None:
    given = ["--accelerator=l4:2", "--workers=3", "--max_run_hours=1.5", "--web_access", "--label=a=b", "--label=c=d"]
    assert arguments_of(parsed(given)) == given
    assert arguments_of(parsed([])) == []


def test_hardware_in_words() -> None:
    from launch.jobs.job_options import described

    assert described(Hardware("l4", 2, 3, "g2-standard-24")) == "3 machines with 2 l4 each"
    assert described(Hardware("l4", 1, 1, "g2-standard-4")) == "one machine with 1 l4"
    assert described(Hardware("", 0, 2, "n2-standard-8")) == "2 machines"
    assert described(Hardware("v5litepod-8", 8, 1, "", "2x4")) == "a TPU slice v5litepod-8"
