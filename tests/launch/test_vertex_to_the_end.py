"""A job of Vertex AI from its request to the model: the fake runs the trainer with Vertex's own environment.

Nothing here reaches Google. What Vertex AI does is as its documentation has it (`fakes.job_runner`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import tensorflow as tf
from fakes.certificates import make_certificate
from fakes.cloud import FakeCloud, serving
from fakes.gcs import TLS_HOSTS, tensorflow_environment
from fakes.job_runner import JobRunner

from trainer.config import Config
from trainer.data.sources import open_source

pytestmark = pytest.mark.strategies

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 100.0
BASE = "gs://runs/digits"

FLAGS = ("--strategy=multi_worker", "--data=digits", "--epochs=2", "--inject=slow_worker@50:2")
"""Epoch 1 ends at step 42 of 84; at step 50 of the first start is time enough for a preemption."""


@dataclass(frozen=True)
class Vertex:
    """A fake Vertex AI whose jobs run, and what they print."""

    cloud: FakeCloud
    runner: JobRunner
    lines: list[tuple[str, str]]

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.02)

    def printed(self) -> str:
        return "\n".join(f"[{replica}] {line}" for replica, line in self.lines)

    def objects(self) -> dict[str, bytes]:
        """What lies in the job's base output directory, by name."""
        bucket, _, folder = BASE.removeprefix("gs://").partition("/")
        found = dict(self.cloud.bucket(bucket).contents)
        start = f"{folder}/"
        return {name.removeprefix(start): content for name, content in found.items() if name.startswith(start)}


@pytest.fixture
def vertex(tmp_path: Path) -> Iterator[Vertex]:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    lines: list[tuple[str, str]] = []

    def keep(project: str, log: str, payload: Any, resource: Any, *, severity: str) -> None:
        lines.append((resource["labels"]["task_name"], payload["message"]))

    with serving(certificate) as cloud:
        cloud.bucket("runs")
        image = {
            "PATH": os.path.dirname(sys.executable),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_NUM_INTRAOP_THREADS": "1",
            **tensorflow_environment(cloud, authority),
        }
        with JobRunner(image, keep, longest_seconds=LONGEST_SECONDS) as runner:
            cloud.vertex.on_create = runner.start
            yield Vertex(cloud, runner, lines)


def two_workers(flags: tuple[str, ...]) -> dict[str, Any]:
    """A custom job of two machines."""
    container = {
        "imageUri": "us-central1-docker.pkg.dev/p/hub-trainer/trainer-cpu:1",
        "command": ["python", "-m", "trainer.task"],
        "args": list(flags),
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
    }
    pool = {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1", "containerSpec": container}
    return {
        "displayName": "digits",
        "jobSpec": {
            "workerPoolSpecs": [pool, pool],
            "scheduling": {"timeout": "3600s", "strategy": "SPOT", "restartJobOnWorkerRestart": True},
            "baseOutputDirectory": {"outputUriPrefix": BASE},
        },
    }


def test_two_workers_are_preempted_and_finish(vertex: Vertex, tmp_path: Path) -> None:
    address = f"{vertex.cloud.address}/aiplatform/v1/projects/p/locations/us-central1/customJobs"
    created = requests.post(address, json=two_workers(FLAGS), timeout=10).json()
    job = vertex.cloud.vertex.jobs[created["name"]]
    vertex.wait(lambda: "epoch 1/2" in vertex.printed() or job.has_ended)
    vertex.runner.preempt(job.name)
    vertex.wait(lambda: job.has_ended)
    assert job.state == "JOB_STATE_SUCCEEDED", f"{job.resource.get('error')}\n{vertex.printed()}"

    objects = vertex.objects()
    status = json.loads(objects["status.json"])
    assert status["state"] == "done" and status["step"] == status["steps_total"] == 84
    assert len(status["attempts"]) == 2 and 42 < status["attempts"][1]["from_step"] < 84
    assert status["export"] == f"{BASE}/model"
    assert {"checkpoints/step-00000084.safetensors", "report/index.html", "report/test.csv"} <= objects.keys()
    assert any(name.startswith("logs/train/events.") for name in objects)
    assert not any(name.startswith(("export/", "tensorboard/", ".")) or name == "lease" for name in objects)
    for replica in ("workerpool0-0", "workerpool1-0"):
        said = "\n".join(line for name, line in vertex.lines if name == replica)
        assert "worker" in said and "Asked to end (SIGTERM)" in said

    assert accuracy_of_model(objects, tmp_path / "model") > 0.8


def accuracy_of_model(objects: dict[str, bytes], folder: Path) -> float:
    """Loads the model that Vertex AI would upload; gives its share of right answers on some digits."""
    for name, content in objects.items():
        if name.startswith("model/") and not name.endswith("/"):  # Folders are objects too.
            path = folder / name.removeprefix("model/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    source = open_source(Config(data="digits"))
    some = range(0, len(source), 20)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answers = serve(image_bytes=tf.constant([source.encoded(index) for index in some]))["label"].numpy()
    right = [answer.decode() == source.class_names[source.labels[i]] for answer, i in zip(answers, some)]
    return sum(right) / len(right)
