"""A job of Vertex AI from its request to the model: the fake really runs the trainer, with Vertex's own environment.

Nothing here reaches Google. What Vertex AI does is what its documentation tells (`fakes.job_runner`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from fakes.certificates import make_certificate
from fakes.cloud import FakeCloud, serving
from fakes.gcs import TLS_HOSTS, tensorflow_environment
from fakes.job_runner import JobRunner

from launch.__main__ import main
from launch.google.log_entries import line_of
from trainer.config import Config
from trainer.data.sources import open_source
from trainer.errors import EXIT_DONE

pytestmark = [pytest.mark.strategies, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 200.0

IMAGE = "us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-cpu:1"
RUN_DIR = "gs://bucket/digits"

SLOWLY = "slow_worker@44:3,slow_worker@46:3"
"""Epoch 1 ends at step 42 of 84; in the six seconds that the first start then has there is time for a preemption."""

OPTIONS = (
    *("--project=project-1", "--region=us-central1", f"--image={IMAGE}", "--name=digits-1"),
    *("--machine=n2-standard-4", "--workers=2", "--provisioning=spot"),
)
FLAGS = ("--data=digits", "--epochs=2", f"--inject={SLOWLY}", "--run_dir_layout=vertex", f"--run_dir={RUN_DIR}")


@dataclass(frozen=True)
class Vertex:
    """A fake Vertex AI that runs its jobs."""

    cloud: FakeCloud
    runner: JobRunner
    entries: list[dict[str, Any]]

    def objects(self) -> dict[str, bytes]:
        """What lies in the run directory, by name; without the objects that stand for folders."""
        bucket, _, folder = RUN_DIR.removeprefix("gs://").partition("/")
        with self.cloud.lock:
            found = dict(self.cloud.bucket(bucket).contents)
        start = f"{folder}/"
        return {name.removeprefix(start): found[name] for name in found if name.startswith(start) and name[-1] != "/"}

    def said(self, worker: str) -> str:
        """What a worker printed, by the entries of Cloud Logging."""
        lines = [line_of(entry) for entry in tuple(self.entries)]
        return "\n".join(line.text for line in lines if line.worker == worker)


@pytest.fixture
def vertex(tmp_path: Path) -> Iterator[Vertex]:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as cloud:
        cloud.bucket("bucket")
        cloud.storage.locations["bucket"] = "US-CENTRAL1"
        cloud.registry.push(IMAGE)
        image = {
            "PATH": os.path.dirname(sys.executable),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_NUM_INTRAOP_THREADS": "1",
            **tensorflow_environment(cloud, authority),
        }
        entries: list[dict[str, Any]] = []

        def write(*arguments: Any, **facts: Any) -> None:
            entries.append(cloud.logs.write(*arguments, **facts))

        with JobRunner(image, write, longest_seconds=LONGEST_SECONDS) as runner:
            cloud.vertex.on_create = runner.start
            yield Vertex(cloud, runner, entries)


def preempt_in_the_second_epoch(vertex: Vertex) -> None:
    """Waits until the chief has told of the first epoch, and takes the machines away once."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while "epoch 1/2" not in vertex.said("workerpool0-0") and time.monotonic() < deadline:
        time.sleep(0.1)
    (name,) = vertex.cloud.vertex.jobs
    vertex.runner.preempt(name)


@pytest.mark.timeout(300)
def test_a_job_is_submitted_preempted_and_finished(
    vertex: Vertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**vertex.cloud.environment(), **vertex.cloud.credentials(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HUB_TRAINER_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setattr("launch.records.follow.POLL_SECONDS", 1.0)
    monkeypatch.setattr("launch.records.follow.SILENT_SECONDS", 5.0)
    preemption = threading.Thread(target=preempt_in_the_second_epoch, args=[vertex], daemon=True)
    preemption.start()
    code = main(["submit", "vertex", *OPTIONS, "--wait", "--", *FLAGS])
    preemption.join(LONGEST_SECONDS)
    out, err = capsys.readouterr()
    assert code == EXIT_DONE, (out, err)

    objects = vertex.objects()
    run = json.loads(objects["status.json"])
    assert (run["state"], run["step"], run["steps_total"]) == ("done", 84, 84)
    assert len(run["attempts"]) == 2 and 42 < run["attempts"][1]["from_step"] < 84
    assert run["export"] == f"{RUN_DIR}/model"
    assert {"checkpoints/step-00000084.safetensors", "report/index.html", "report/test.csv"} <= objects.keys()
    assert {name.partition("/")[0] for name in objects} - {"workers"} == {  # These come after some seconds.
        *("checkpoints", "config.json", "logs", "metrics.jsonl", "model", "report", "status.json")
    }
    assert accuracy_of_model(objects, tmp_path / "model") > 0.8

    for worker, calls_itself in (("workerpool0-0", "chief of 2 workers"), ("workerpool1-0", "worker 0 of 2 workers")):
        said = [line for line in out.splitlines() if line.startswith(f"[{worker}] ")]
        assert sum(calls_itself in line for line in said) == 2
        assert "Asked to end (SIGTERM)" in vertex.said(worker)
    assert f"[workerpool0-0] export   {RUN_DIR}/model" in out


def accuracy_of_model(objects: dict[str, bytes], folder: Path) -> float:
    """Loads the model that Vertex AI would upload; gives its share of right answers on some digits."""
    for name in (name for name in objects if name.startswith("model/")):
        path = folder / name.removeprefix("model/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects[name])
    source = open_source(Config(data="digits"))
    some = range(0, len(source), 20)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answers = serve(image_bytes=tf.constant([source.encoded(index) for index in some]))["label"].numpy()
    right = [answer.decode() == source.class_names[source.labels[i]] for answer, i in zip(answers, some)]
    return sum(right) / len(right)
