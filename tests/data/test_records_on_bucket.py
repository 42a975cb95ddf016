"""Records in a bucket, read by TensorFlow's own gs:// file system."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import gcs
from fakes.certificates import make_certificate
from record_files import example, image_bytes, write_records

from trainer.config import Config
from trainer.data.sources import open_source

IMAGES = 12
LARGE_BYTES = 20_000_000

PROGRAM = f"""
from trainer.startup import import_tensorflow_quietly
import_tensorflow_quietly()
import hashlib
import numpy as np
import tensorflow as tf
from trainer.config import Config
from trainer.data.sources import open_source
source = open_source(Config(data="tfrecord:gs://flowers/records"), print)
images = tf.data.Dataset.range({IMAGES}).map(source.encoded_reader(np.arange({IMAGES})), num_parallel_calls=4)
print(source.fingerprint(), hashlib.sha256(b"".join(images.as_numpy_iterator())).hexdigest())
"""


def test_a_record_of_a_bucket_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = [image_bytes(number) for number in range(IMAGES)]
    records = [example(image=image, label=number % 2) for number, image in enumerate(images)]
    path = write_records(tmp_path / "x.tfrecord", [*records, example(image=bytes(LARGE_BYTES), label=0)])
    served: list[int] = []
    answer = gcs.FakeStorage.answer

    def counted(self: gcs.FakeStorage, request: gcs.Request) -> gcs.Answer:
        answered = answer(self, request)
        served.append(len(answered.body))
        return answered

    monkeypatch.setattr(gcs.FakeStorage, "answer", counted)
    authority, certificate = make_certificate(tmp_path, gcs.TLS_HOSTS)
    with gcs.serving(certificate) as server:
        server.bucket("flowers").put("records/x.tfrecord", path.read_bytes())
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **gcs.tensorflow_environment(server, authority)},
            capture_output=True,
            text=True,
            timeout=100,
        )
    local = open_source(Config(data=f"tfrecord:{path}"))
    expected = f"{local.fingerprint()} {hashlib.sha256(b''.join(images)).hexdigest()}"
    assert ended.stdout.splitlines()[-1:] == [expected], ended.stderr
    # Once for the index; a record alone is small.
    assert sum(served) < 1.5 * LARGE_BYTES
