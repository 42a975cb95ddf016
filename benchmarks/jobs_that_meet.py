"""Many jobs are started on one run directory at the same moment: one trains, the others leave at once.

    python benchmarks/jobs_that_meet.py --jobs=16
    python benchmarks/jobs_that_meet.py --jobs=16 --bucket

Printed are the exit codes and how long those took that left, from the start of their process to its end. With --bucket
the run directory lies on a pretended gs:// on loopback. The exit code is 0 where one job ended with 0, all others with
2, and all of these in less than five seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from machine import machine  # noqa: E402 (beside this file)

from trainer.errors import EXIT_DONE, EXIT_USER  # noqa: E402 (found through the line above)

FLAGS = ["--data=digits", "--epochs=2", "--export=", "--quiet"]

LONGEST_SECONDS = 5.0
"""What a job that leaves may take."""

RUN_SECONDS = 300.0


class Job(threading.Thread):
    """A trainer, and how it ended."""

    def __init__(self, run_dir: str, environment: Mapping[str, str]) -> None:
        super().__init__(daemon=True)
        self._command = [sys.executable, "-m", "trainer.task", *FLAGS, f"--run_dir={run_dir}"]
        self._environment = {**os.environ, **environment}
        self.code = -1
        self.seconds = 0.0
        self.said = ""

    def run(self) -> None:
        """Runs it to its end."""
        start = time.perf_counter()
        done = subprocess.run(
            self._command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=RUN_SECONDS
        )
        self.seconds = time.perf_counter() - start
        self.code, self.said = done.returncode, done.stderr.strip()


@contextlib.contextmanager
def run_directory(*, bucket: bool) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A new one, and the variables with which jobs reach it."""
    with tempfile.TemporaryDirectory() as folder:
        if not bucket:
            yield f"{folder}/run", {}
            return
        from fakes.certificates import make_certificate
        from fakes.gcs import TLS_HOSTS, serving, tensorflow_environment

        authority, certificate = make_certificate(Path(folder), TLS_HOSTS)
        with serving(certificate) as server:
            server.bucket("runs")
            yield "gs://runs/run", tensorflow_environment(server, authority)


def main() -> int:
    """Starts the jobs and prints what became of them; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--bucket", action="store_true")
    options = parser.parse_args()
    with run_directory(bucket=options.bucket) as (run_dir, environment):
        jobs = [Job(run_dir, environment) for _ in range(options.jobs)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    left = sorted(job.seconds for job in jobs if job.code == EXIT_USER)
    codes = Counter(job.code for job in jobs)
    print(f"exit codes: {', '.join(f'{count} x {code}' for code, count in sorted(codes.items()))}")
    print(f"left after {left[0]:.2f} to {left[-1]:.2f} s" if left else "none left")
    print(next((job.said for job in jobs if job.code == EXIT_USER), ""))
    print(f"{machine()}.")
    right = codes == {EXIT_DONE: 1, EXIT_USER: options.jobs - 1} and left[-1] < LONGEST_SECONDS
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
