"""A job of Vertex AI from its request to the model: the fake really runs the trainer, with Vertex's own environment.

Nothing here reaches Google. What Vertex AI does is what its documentation tells (`fakes.job_runner`).
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tensorflow as tf
from fakes.certificates import make_certificate
from fakes.cloud import FakeCloud, serving
from fakes.gcs import TLS_HOSTS, tensorflow_environment
from fakes.job_runner import JobRunner
from jobs import SUBMISSION, api_at, make_job

from launch.job import Hardware
from launch.log_entries import LogReader, utc_now
from launch.service import State
from launch.vertex import VertexService
from launch.vertex_request import create_request
from trainer.config import Config
from trainer.data.sources import open_source

pytestmark = pytest.mark.strategies

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 200.0

TWO_WORKERS = Hardware("", 0, 2, "n2-standard-4")
RUN_DIR = "gs://bucket/digits"

SLOWLY = ",".join(f"slow_worker@{step}:1" for step in range(44, 84, 4))
"""Epoch 1 ends at step 42 of 84; in the ten seconds that the first start then has there is time for a preemption."""

FLAGS = ("--strategy=multi_worker", "--data=digits", "--epochs=2", f"--inject={SLOWLY}", "--run_dir_layout=vertex")


@dataclass(frozen=True)
class Vertex:
    """A fake Vertex AI that runs its jobs."""

    cloud: FakeCloud
    runner: JobRunner

    def objects(self) -> dict[str, bytes]:
        """What lies in the run directory, by name; without the objects that stand for folders."""
        bucket, _, folder = RUN_DIR.removeprefix("gs://").partition("/")
        with self.cloud.lock:
            found = dict(self.cloud.bucket(bucket).contents)
        start = f"{folder}/"
        return {name.removeprefix(start): found[name] for name in found if name.startswith(start) and name[-1] != "/"}

    def said(self, log_filter: str) -> dict[str, str]:
        """What each worker printed."""
        later = utc_now() + datetime.timedelta(minutes=1)  # All lines are old enough by then.
        lines = list(LogReader(api_at(self.cloud), "project-1", now=lambda: later).open(log_filter).new_lines())
        return {line.worker: "\n".join(each.text for each in lines if each.worker == line.worker) for line in lines}


@pytest.fixture
def vertex(tmp_path: Path) -> Iterator[Vertex]:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as cloud:
        cloud.bucket("bucket")
        image = {
            "PATH": os.path.dirname(sys.executable),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_NUM_INTRAOP_THREADS": "1",
            **tensorflow_environment(cloud, authority),
        }
        with JobRunner(image, cloud.logs.write, longest_seconds=LONGEST_SECONDS) as runner:
            cloud.vertex.on_create = runner.start
            yield Vertex(cloud, runner)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_two_workers_are_preempted_and_finish(vertex: Vertex, tmp_path: Path) -> None:
    job = make_job(TWO_WORKERS, *FLAGS, run_dir=RUN_DIR, provisioning="spot")
    service = VertexService(api_at(vertex.cloud))
    status = service.create(create_request(job, SUBMISSION), SUBMISSION)
    assert status.state is State.QUEUED
    name, log_filter = status.resource, service.log_filter(status)

    wait(lambda: "epoch 1/2" in vertex.said(log_filter).get("workerpool0-0", "") or service.get(name).state.has_ended)
    vertex.runner.preempt(name)
    wait(lambda: service.get(name).state.has_ended)
    said = vertex.said(log_filter)
    assert service.get(name).state is State.SUCCEEDED, (service.get(name).error, said)

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

    assert said.keys() == {"workerpool0-0", "workerpool1-0"}
    for worker, calls_itself in zip(sorted(said), ("chief of 2 workers", "worker 0 of 2 workers")):
        assert said[worker].count(calls_itself) == 2 and said[worker].count("Asked to end (SIGTERM)") == 1
    assert f"export   {RUN_DIR}/model" in said["workerpool0-0"]


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
