"""Some of the faults of benchmarks/storage_faults.py: a run on gs:// ends right, or with a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_faults import KINDS, RUN, Matrix, opened_matrix

CASES = [("lost answer", 12), ("cut upload", 18), ("410 of an upload", 24)]

FOR_GOOD = [("503 for good", 12), ("403 for good", 1), ("bucket deleted", 24)]

BESIDE_A_THREAD = """
import os, sys, threading
sys.path[:0] = [".", "tests"]
from pathlib import Path
from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, serving, tensorflow_environment

authority, certificate = make_certificate(Path(sys.argv[1]), TLS_HOSTS)
with serving(certificate) as server:
    os.environ.update(tensorflow_environment(server, authority), GCS_REQUEST_IDLE_TIMEOUT_SECS="2")
    from trainer.startup import import_tensorflow_quietly
    import_tensorflow_quietly()
    from trainer.records.writers import open_writers
    from trainer.storage import RunDirectory
    server.bucket("flowers")
    with open_writers(RunDirectory("gs://flowers/run"), resumed_step=0) as writer:
        writer.write("train", 1, epoch=0, values={"loss": 1.0})
        writer.pending()()
    print(sum("tfevents" in name and len(content) > 0 for name, content in server.bucket("flowers").contents.items()))
"""


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with opened_matrix(RUN | {"report": False}) as matrix:  # The faults of these cases are over when the page is made.
        yield matrix


@pytest.mark.parametrize(("name", "request_number"), CASES)
def test_what_passes_changes_nothing(matrix: Matrix, name: str, request_number: int) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    outcome, what = matrix.case(kind, request_number)
    assert outcome == "equal", what


@pytest.mark.parametrize(("name", "request_number"), FOR_GOOD)
def test_what_stays_is_one_sentence_and_the_run_goes_on_afterwards(
    matrix: Matrix, name: str, request_number: int
) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    outcome, what = matrix.case(kind, request_number)
    assert outcome == "sentence", what


def test_a_fifth_of_the_requests_fail_on_demand(matrix: Matrix) -> None:
    outcome, what = matrix.injected(0.2)
    assert outcome == "equal", what


def test_other_threads_run_while_an_event_file_is_written(tmp_path: Path) -> None:
    """The server is one of them: if TensorFlow let no other thread run, nobody would answer it."""
    ended = subprocess.run(
        [sys.executable, "-c", BESIDE_A_THREAD, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0 and ended.stdout.strip() == "1", ended.stdout + ended.stderr
