"""A whole run on images in a bucket: read by TensorFlow's own gs:// file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, FakeStorage, Fault, serving, tensorflow_environment
from image_folders import encoded, gradient

from trainer.config import Config
from trainer.data.sources import open_source


def train(server: FakeStorage, authority: Path, run_dir: Path) -> subprocess.CompletedProcess[str]:
    data = ("--data=folder:gs://flowers/photos", "--image_size=16", "--epochs=1", "--batch_size=8")
    images_alone = ("--export=", "--noreport")  # They take more time than the run.
    return subprocess.run(
        [sys.executable, "-m", "trainer.task", *data, *images_alone, f"--run_dir={run_dir}"],
        env={**os.environ, **tensorflow_environment(server, authority)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def trained(server: FakeStorage, authority: Path, run_dir: Path) -> dict[str, Any]:
    """What status.json says after a run."""
    process = train(server, authority, run_dir)
    assert process.returncode == 0, process.stdout + process.stderr
    status: dict[str, Any] = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    return status


def put_photos(server: FakeStorage) -> None:
    for name, level in (("bright ü", 200), ("dark", 20)):
        for number in range(12):
            pixels = gradient(shift=number) // 8 + level
            server.bucket("flowers").put(f"photos/{name}/{number}.png", encoded(pixels))


def test_a_bucket_that_stops_answering_is_one_sentence(tmp_path: Path) -> None:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as server:
        put_photos(server)
        server.faults.append(Fault("^GET /flowers/.*png", 503))
        ended = train(server, authority, tmp_path / "run")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "gs://flowers does not answer (HTTP 503): what was saved before is untouched" in ended.stderr


def test_a_run_on_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as server:
        put_photos(server)
        status = trained(server, authority, tmp_path / "run")
        assert sum(request.startswith("GET /flowers/") for request in server.requests) >= 24, "TensorFlow's own reads"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        copied = open_source(Config(data="folder:gs://flowers/photos", stage_to=str(tmp_path / "copies")))
    assert status["state"] == "done" and status["test"]["examples"] > 0
    assert status["data_fingerprint"] == copied.fingerprint(), (
        "a run on copies can go on where one on the bucket stopped"
    )
