"""`launch submit`: exactly one job, its record, and what a person is told."""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, Fault, serving

from launch.__main__ import main
from launch.jobs.preflight import Preflight
from launch.packaging.build_step import step
from launch.records.job_access import JobAccess
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER

IMAGE = "us-central1-docker.pkg.dev/project-1/r/trainer:1"
REPOSITORY = Path(__file__).resolve().parents[2]

Captured = pytest.CaptureFixture[str]

PLACE = ["--project=project-1", "--region=us-central1", f"--image={IMAGE}"]
FLAGS = ["--", "--data=tfds:tf_flowers", "--run_dir=gs://bucket/flowers"]
VERTEX = ["submit", "vertex", *PLACE, "--accelerator=l4:2", "--name=flowers-1"]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    with serving() as server:
        for name, value in {**server.environment(), **server.credentials(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HUB_TRAINER_JOBS", str(tmp_path / "jobs"))
        seconds = itertools.count(time.time(), 5)  # Each look at the clock is later than the one before.

        def open_access(options: argparse.Namespace) -> JobAccess:
            return JobAccess(options, os.environ, sleep=lambda _: None, clock=lambda: next(seconds))

        monkeypatch.setattr("launch.commands.submit_command.open_access", open_access)
        server.bucket("bucket")
        server.storage.locations["bucket"] = "US-CENTRAL1"
        server.registry.push(IMAGE)
        yield server


def record(tmp_path: Path, name: str = "flowers-1") -> dict[str, object]:
    loaded: dict[str, object] = json.loads((tmp_path / "jobs" / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def test_one_job_is_made_and_recorded(cloud: FakeCloud, tmp_path: Path, capsys: Captured) -> None:
    assert main([*VERTEX, *FLAGS]) == EXIT_DONE
    (job,) = cloud.vertex.jobs.values()
    assert job.resource["displayName"] == "flowers-1"
    kept = record(tmp_path)
    assert kept["resource"] == job.name and kept["attempts"] == [job.name]
    assert kept["submission"] == job.resource["labels"]["hub-trainer-submission"]
    assert kept["trainer_flags"] == ["--strategy=mirrored", *FLAGS[1:]]
    out = capsys.readouterr().out
    for told in (job.name, "https://console.cloud.google.com/", "python -m launch logs flowers-1", "launch cancel fl"):
        assert told in out


def test_what_is_submitted_is_what_is_planned(cloud: FakeCloud, capsys: Captured) -> None:
    assert main(["plan", *VERTEX[1:], "--json", *FLAGS]) == EXIT_DONE
    planned = json.loads(capsys.readouterr().out)["requests"][-1]["body"]
    assert not cloud.requests
    main([*VERTEX, "--submission=plan", *FLAGS])
    assert [request.body for request in cloud.sent("aiplatform", "POST")] == [planned]


def test_the_same_submission_twice_is_one_job(cloud: FakeCloud, tmp_path: Path) -> None:
    for _ in range(2):
        assert main([*VERTEX, "--submission=build-1", *FLAGS]) == EXIT_DONE
    assert len(cloud.vertex.jobs) == 1
    (tmp_path / "jobs" / "flowers-1.json").unlink()
    assert main([*VERTEX, "--submission=build-1", *FLAGS]) == EXIT_DONE
    assert len(cloud.vertex.jobs) == 1 and record(tmp_path)["resource"] == next(iter(cloud.vertex.jobs))


def test_ten_lost_answers_are_ten_jobs(cloud: FakeCloud, tmp_path: Path) -> None:
    for number in range(10):
        cloud.faults.append(Fault("POST /aiplatform/", "lost answer", times=1))
        assert main([*VERTEX[:-1], f"--name=flowers-{number}", *FLAGS]) == EXIT_DONE
    assert len(cloud.vertex.jobs) == 10
    assert len({record(tmp_path, f"flowers-{number}")["resource"] for number in range(10)}) == 10


def test_a_name_that_is_taken_makes_no_job(cloud: FakeCloud, capsys: Captured) -> None:
    main([*VERTEX, *FLAGS])
    assert main([*VERTEX, *FLAGS]) == EXIT_USER
    assert len(cloud.vertex.jobs) == 1
    assert "A job named flowers-1 was submitted already" in capsys.readouterr().err


def test_a_refused_request_leaves_no_record(cloud: FakeCloud, tmp_path: Path, capsys: Captured) -> None:
    cloud.faults.append(Fault("POST /aiplatform/", 403, times=1))
    assert main([*VERTEX, *FLAGS]) == EXIT_USER
    assert not list((tmp_path / "jobs").glob("*.json"))
    assert main([*VERTEX, *FLAGS]) == EXIT_DONE


def test_a_request_that_nobody_answers_leaves_its_record(cloud: FakeCloud, tmp_path: Path) -> None:
    cloud.faults.append(Fault("/aiplatform/", "dropped", times=100))
    assert main([*VERTEX, *FLAGS]) == EXIT_USER
    assert record(tmp_path)["resource"] == ""


def test_problems_are_said_before_anything_is_asked(cloud: FakeCloud, capsys: Captured) -> None:
    flags = ["--", "--data=folder:/photos", "--batch_size=33"]
    assert main([*VERTEX, *flags]) == EXIT_USER
    err = capsys.readouterr().err
    for told in ("--data=folder:/photos is on this machine", "No --run_dir is given", "--batch_size=33 cannot be"):
        assert told in err
    assert not cloud.requests and err.count("error: ") == 1


@pytest.mark.parametrize(
    ("mend", "sentence"),
    [
        (
            lambda cloud: cloud.storage.locations.update(bucket="EUROPE-WEST4"),
            "bucket is in europe-west4 and the job in",
        ),
        (lambda cloud: cloud.storage.buckets.pop("bucket"), "The bucket: gs://bucket is not there. Try gcloud storage"),
        (lambda cloud: cloud.faults.append(Fault("/tags/", 404)), f"The image: {IMAGE} is not there"),
    ],
)
def test_what_is_missing_is_said_before_anything_costs(
    mend: Callable[[FakeCloud], object], sentence: str, cloud: FakeCloud, tmp_path: Path, capsys: Captured
) -> None:
    mend(cloud)
    assert main([*VERTEX, *FLAGS]) == EXIT_USER
    err = capsys.readouterr().err
    assert sentence in err and err.count("error: ") == 1
    assert not cloud.sent("aiplatform") and not list(tmp_path.glob("jobs/*"))


def test_no_credentials(cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*VERTEX, *FLAGS]) == EXIT_USER
    assert (
        "There are no Google credentials here: run `gcloud auth application-default login`" in capsys.readouterr().err
    )
    assert not list((tmp_path / "jobs").glob("*.json"))


def test_json(cloud: FakeCloud, capsys: Captured) -> None:
    assert main([*VERTEX, "--json", *FLAGS]) == EXIT_DONE
    assert json.loads(capsys.readouterr().out)["resource"] == next(iter(cloud.vertex.jobs))


def test_a_sweep_is_a_job_for_each_run(cloud: FakeCloud, tmp_path: Path, capsys: Captured) -> None:
    sweep = ["--sweep=learning_rate=1e-3,1e-4 seed=0,1", "--submission=grid"]
    for _ in range(2):
        assert main([*VERTEX, *sweep, *FLAGS]) == EXIT_DONE
    assert [job.resource["displayName"] for job in cloud.vertex.jobs.values()] == [
        f"flowers-1-{n}" for n in range(1, 5)
    ]
    flags = record(tmp_path, "flowers-1-4")["trainer_flags"]
    assert flags == [
        "--strategy=mirrored",
        "--data=tfds:tf_flowers",
        "--learning_rate=0.0001",
        "--seed=1",
        "--run_dir=gs://bucket/flowers/learning_rate=0.0001,seed=1",
    ]
    assert "of all 4: unknown an hour" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--sweep=seed=0,1", "--wait"], "--sweep makes several jobs, and --wait is for one"),
        (["--sweep=sed=0,1"], "--sweep, sed=0: there is no field sed. did you mean seed?"),
        ([f"--sweep=seed={','.join(map(str, range(60)))}"], "asks for 60 jobs: 50 at once are the most."),
    ],
)
def test_sweeps_that_are_refused(options: list[str], sentence: str, cloud: FakeCloud, capsys: Captured) -> None:
    assert main([*VERTEX, *options, *FLAGS]) == EXIT_USER
    assert sentence.lower() in capsys.readouterr().err.lower() and not cloud.requests


KIND = "PRIVATE KEY"  # Apart from its frame: this file is packaged too.
BUILDING = ["--project=project-1", "--region=us-central1", "--name=flowers-1"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree that is no git repository, with the cloudbuild.yaml of this one."""
    folder = tmp_path / "tree"
    folder.mkdir()
    shutil.copy(REPOSITORY / "cloudbuild.yaml", folder)
    (folder / "source.py").write_text("x = 1\n")
    monkeypatch.chdir(folder)
    return folder


def test_the_image_is_built_before_the_job(cloud: FakeCloud, tree: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["submit", "vertex", "--build", *BUILDING, *FLAGS]) == EXIT_DONE
    (build,) = cloud.sent("cloudbuild", "POST")
    (job,) = cloud.vertex.jobs.values()
    tag = build.body["substitutions"]["_TAG"]
    image = job.spec["workerPoolSpecs"][0]["containerSpec"]["imageUri"]
    assert image == f"us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-cpu:{tag}"
    stored = build.body["source"]["storageSource"]
    package = cloud.bucket(stored["bucket"]).content(stored["object"])
    assert package
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        assert archive.getnames() == ["cloudbuild.yaml", "source.py"]
    assert tag == f"tree-{hashlib.sha256(package).hexdigest()[:12]}"
    kept = record(tmp_path)
    assert kept["image"] == image and kept["clean"] is None

    cloud.registry.push(image)
    assert main(["submit", "vertex", "--build", *BUILDING[:-1], "--name=flowers-2", *FLAGS]) == EXIT_DONE
    assert len(cloud.sent("cloudbuild", "POST")) == 1 and len(cloud.vertex.jobs) == 2


def test_an_image_that_cannot_be_built_makes_no_job(cloud: FakeCloud, tree: Path, capsys: Captured) -> None:
    cloud.builds.script = ("WORKING", "FAILURE")
    assert main(["submit", "vertex", "--build", *BUILDING, *FLAGS]) == EXIT_USER
    assert "was not built (" in capsys.readouterr().err and not cloud.vertex.jobs


def test_secrets_stay_here(cloud: FakeCloud, tree: Path, capsys: Captured) -> None:
    (tree / "key.pem").write_text(f"-----BEGIN {KIND}-----\nMIIE\n-----END {KIND}-----\n")
    assert main(["submit", "vertex", "--build", *BUILDING, *FLAGS]) == EXIT_USER
    err = capsys.readouterr().err
    assert "key.pem" in err and "MIIE" not in err and not cloud.requests


def test_a_build_that_submits_the_job(cloud: FakeCloud, tree: Path, tmp_path: Path, capsys: Captured) -> None:
    options = ["--accelerator=l4:2", "--label=team=vision"]
    assert main(["submit", "cloud-build", *BUILDING, *options, *FLAGS]) == EXIT_DONE
    assert not cloud.vertex.jobs
    (build,) = cloud.sent("cloudbuild", "POST")
    given = build.body["substitutions"]
    environment = {
        "SUBMIT": given["_SUBMIT"],
        "JOB_TARGET": given["_JOB_TARGET"],
        "JOB_PROJECT": "project-1",
        "JOB_IMAGE": f"us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:{given['_TAG']}",
        "JOB_SUBMISSION": "build-id",
        "JOB_RECORDS": str(tmp_path / "step"),
        "LAUNCH_OPTIONS": given["_LAUNCH_OPTIONS"],
        "TRAINER_FLAGS": given["_TRAINER_FLAGS"],
    }
    cloud.registry.push(environment["JOB_IMAGE"])
    for _ in range(2):  # Cloud Build may run a step again.
        assert step(environment) == EXIT_DONE
    (job,) = cloud.vertex.jobs.values()
    assert job.resource["displayName"] == "flowers-1" and job.resource["labels"]["team"] == "vision"
    arguments = job.spec["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert arguments == ["--strategy=mirrored", *FLAGS[1:]]
    assert record(tmp_path, "flowers-1-build")["target"] == "cloud-build"


SLICE = [
    "--zone=us-west4-a",
    "--accelerator=v5litepod-8",
    "--name=flowers-1",
    f"--image={IMAGE}",
    "--project=project-1",
]


def test_a_slice_is_made_only_if_the_preflight_has_nothing_against_it(
    cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    cloud.storage.locations["bucket"] = "US-WEST4"
    for verdict, mode, code in (("does not", "auto", 2), ("could not be checked", "require", 2), ("fits", "auto", 0)):
        answer = Preflight(verdict, f"{verdict} for v5litepod-8")
        monkeypatch.setattr("launch.commands.submit_command.ask", lambda job, mode, answer=answer: answer)
        assert main(["submit", "tpu-vm", *SLICE, f"--preflight={mode}", *FLAGS]) == code
        assert bool(cloud.sent("tpu")) == (code == EXIT_DONE)
    assert record(tmp_path)["preflight"] == "fits for v5litepod-8"
    assert "it does not for v5litepod-8" in capsys.readouterr().err


def test_an_interruption_says_how_to_find_out(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("launch.jobs.submission.submit", interrupt)
    assert main([*VERTEX, *FLAGS]) == EXIT_PREEMPTED
    assert "python -m launch list shows whether a job was made" in capsys.readouterr().err
