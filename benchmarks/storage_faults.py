"""Whatever goes wrong with gs:// at a request of a run: the run ends right, or with a sentence, and never hangs.

    python benchmarks/storage_faults.py
    python benchmarks/storage_faults.py --faults=503,dropped --first=31 --last=130 --step=5

A tiny run writes to a pretended gs:// on loopback. For each kind of fault and each of the first requests the fault
happens to that request, or to that one and all after it ("for good"). The run must end in time, either with the
variables and metrics of an undisturbed run, bit for bit, or with a sentence that names the bucket and the way out. In
the latter case the fault then goes away, and the same run must end right. TensorFlow's retries are set to be few and
quick. The exit code is 0 where every case was right.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, Effect, FakeStorage, Fault, serving, tensorflow_environment
from kill_workers import differences, variables_of
from machine import machine
from numpy.typing import NDArray

from trainer.errors import EXIT_DONE, UserError
from trainer.injection_proxy import Gcs503Proxy
from trainer.startup import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]

BUCKET = "faults-bucket"

RUN = {"data": "digits", "image_size": 16, "examples_per_class": 16, "epochs": 1, "batch_size": 40, "export": ""}
"""What is trained: `trainer.config.Config` but for the run directory."""

DEADLINE_SECONDS = 240.0
"""What a run may take, however long nobody answers it."""

START_SECONDS = 120.0
"""What a worker may take to import TensorFlow and do the first run."""

QUICK = {
    "GCS_RETRY_CONFIG_MAX_RETRIES": "5",
    "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "0",
    "GCS_REQUEST_IDLE_TIMEOUT_SECS": "1",
}
"""Variables for TensorFlow, so that it gives up within seconds."""

SILENCE_SECONDS = 30.0
"""How long a server takes that does not answer: longer than TensorFlow waits."""

EXPIRED = "The credentials for gs://{bucket} were refused .*log in anew"
PERMISSION = r"No permission for gs://{bucket}/\S+: storage\.objects\.\w+ is missing for gs://{bucket}\. Log in"
NO_BUCKET = "There is no bucket gs://{bucket}: "
NO_ANSWER = "(gs://{bucket}/.* cannot be deleted.*)?gs://{bucket} does not answer.*start again"
DAMAGED = "What came from gs://{bucket}/.* is damaged"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
      name: in the table.
      effect, match, seconds: see `Fault`.
      for_good: whether it goes on from the request on, instead of happening once.
      sentence: an expression for what the run may end with, with {bucket} in it; empty where it must end right.
    """

    name: str
    effect: int | Effect
    for_good: bool = False
    sentence: str = ""
    match: str = ""
    seconds: float = 0.0


KINDS = [
    *(Kind(str(status), status) for status in (408, 429, 500, 503)),
    Kind("dropped", "dropped"),
    Kind("lost answer", "lost answer"),
    Kind("truncated answer", "truncated"),
    Kind("cut upload", "cut upload", match="^(PUT|POST)"),
    Kind("410 of an upload", 410, match="^PUT .*upload_id"),
    Kind("slow answer", "slow", seconds=0.5),
    Kind("no answer", "slow", seconds=SILENCE_SECONDS),
    Kind("a byte changed", "damaged", match=f"^GET /{BUCKET}/.*safetensors", sentence=DAMAGED),
    Kind("401", 401, sentence=EXPIRED),
    Kind("403", 403, sentence=PERMISSION),
    Kind("503 for good", 503, for_good=True, sentence=NO_ANSWER),
    Kind("dropped for good", "dropped", for_good=True, sentence=NO_ANSWER),
    Kind("no answer for good", "slow", for_good=True, seconds=SILENCE_SECONDS, sentence=NO_ANSWER),
    Kind("401 for good", 401, for_good=True, sentence=EXPIRED),
    Kind("403 for good", 403, for_good=True, sentence=PERMISSION),
    Kind("bucket deleted", 404, for_good=True, sentence=NO_BUCKET),
]

Outcome = Literal[
    "equal", "sentence", "not reached", "WRONG RESULT", "WRONG SENTENCE", "TRACEBACK", "HANG", "NO RECOVERY"
]

RIGHT: tuple[Outcome, ...] = ("equal", "sentence", "not reached")


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
      how: "done", "sentence" (`UserError`), "traceback" or "hang".
      text: the sentence or the traceback.
      seconds: how long it took.
    """

    how: str
    text: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a run left behind: variables of the last checkpoint by name, and metrics.jsonl."""

    variables: dict[str, NDArray]
    metrics: str


class Worker:
    """A process that does one run after the other; another one takes its place when it hangs."""

    def __init__(self, environment: dict[str, str]) -> None:
        """The process starts with the first run, with these variables beside those that are there."""
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._process: subprocess.Popen[str] | None = None

    def run(self, config: dict[str, Any]) -> Ending:
        """Does a run, and gives how it ended; "gcs_503" among the fields is the probability of `Gcs503Proxy`."""
        limit = DEADLINE_SECONDS if self._process else START_SECONDS
        process = self._process = self._process or self._started()
        assert process.stdin and process.stdout
        start = time.perf_counter()
        process.stdin.write(json.dumps(config) + "\n")
        process.stdin.flush()
        answered, _, _ = select.select([process.stdout], [], [], limit)
        seconds = time.perf_counter() - start
        if not answered:
            self.close()
            return Ending("hang", f"nothing after {limit:.0f} s", seconds)
        line = process.stdout.readline()
        if not line:
            self.close()
            return Ending("traceback", "the process is gone", seconds)
        how, text = json.loads(line)
        return Ending(how, text, seconds)

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--worker"]
        return subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


def work() -> None:
    """What a `Worker`'s process does: reads configurations, line by line, and answers each with how its run ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_tensorflow_quietly()
    import traceback

    import tensorflow as tf

    from trainer import run
    from trainer.config import Config

    for line in sys.stdin:
        tf.keras.backend.clear_session()
        fields = json.loads(line)
        try:
            probability = fields.pop("gcs_503", 0.0)
            with Gcs503Proxy(probability, seed=0) if probability else nullcontext():
                code = run.execute(Config(**fields), quiet=True)
            ending = ("done", "") if code == EXIT_DONE else ("traceback", f"exit code {code}")
        except UserError as error:
            ending = ("sentence", str(error))
        except Exception:
            ending = ("traceback", traceback.format_exc())
        print(json.dumps(ending), file=answers, flush=True)


class Matrix:
    """The cases, against one server."""

    def __init__(self, server: FakeStorage, worker: Worker, config: dict[str, Any] | None = None) -> None:
        """Does the undisturbed run.

        Args:
          server: holds the runs.
          worker: does them.
          config: what is trained, `RUN` by default.

        Raises:
          RuntimeError: the undisturbed run fails.
        """
        self._server, self._worker = server, worker
        self._config = RUN if config is None else config
        server.bucket(BUCKET)
        ending = self._train("undisturbed")
        if ending.how != "done":
            raise RuntimeError(f"the undisturbed run failed: {ending.text}")
        self.requests = len(server.requests)
        self.expected = self._result("undisturbed")
        # The first run in a process may differ in what it asks: the next one tells what a run is compared with.
        if self._train("again").how != "done" or self._wrong("again"):
            raise RuntimeError("two undisturbed runs are not equal")

    def case(self, kind: Kind, request: int) -> tuple[Outcome, str]:
        """Does a run with a fault at a request, counted from 1; gives its outcome, and what is wrong if it is."""
        name = re.sub(r"\W+", "-", f"{kind.name}-{request}")
        times = 1_000_000 if kind.for_good else 1
        fault = Fault(kind.match, kind.effect, times, request, kind.seconds)
        self._server.faults.append(fault)
        ending = self._train(name)
        self._server.faults.clear()
        outcome, what = self._judged(kind, name, ending)
        if outcome == "sentence":
            again = self._train(name)
            wrong = again.text if again.how != "done" else self._wrong(name)
            if wrong:
                outcome, what = "NO RECOVERY", f"{what}\nthen: {wrong}"
        self._forget(name)
        return ("not reached" if outcome == "equal" and fault.times == times else outcome), what

    def injected(self, probability: float) -> tuple[Outcome, str]:
        """Does a run, its page included, through `Gcs503Proxy`; gives its outcome, and what is wrong if it is."""
        name = f"injected-{probability}"
        ending = self._train(name, gcs_503=probability, report=True)
        return self._judged(Kind(name, 503, for_good=True, sentence=NO_ANSWER), name, ending)

    def _judged(self, kind: Kind, name: str, ending: Ending) -> tuple[Outcome, str]:
        if ending.how == "done":
            wrong = self._wrong(name)
            return ("WRONG RESULT", wrong) if wrong else ("equal", "")
        if ending.how == "sentence":
            expected = kind.sentence.format(bucket=BUCKET)
            fits = expected and re.search(expected, ending.text, re.DOTALL)
            return ("sentence" if fits else "WRONG SENTENCE"), ending.text
        return ("HANG" if ending.how == "hang" else "TRACEBACK"), ending.text

    def _train(self, name: str, **fields: Any) -> Ending:
        self._server.requests.clear()
        return self._worker.run({**self._config, **fields, "run_dir": f"gs://{BUCKET}/{name}"})

    def _wrong(self, name: str) -> str:
        """What differs from the undisturbed run; empty: nothing."""
        from tensorflow.errors import OpError

        try:
            found = self._result(name)
        except OpError as error:
            return f"the checkpoint: {error}"
        different = differences(self.expected.variables, found.variables)
        if found.metrics != self.expected.metrics:
            different.append("metrics.jsonl")
        status = json.loads(self._server.bucket(BUCKET).contents[f"{name}/status.json"])
        return ", ".join(different + ([] if status["state"] == "done" else [f"state {status['state']}"]))

    def _result(self, name: str) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            for address, content in self._server.bucket(BUCKET).contents.items():
                if address.startswith(f"{name}/") and not address.endswith("/"):
                    path = Path(folder, address)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            return Result(variables_of(Path(folder, name)), Path(folder, name, "metrics.jsonl").read_text("utf-8"))

    def _forget(self, name: str) -> None:
        with self._server.lock:
            objects = self._server.bucket(BUCKET)
            for address in [found for found in objects.contents if found.startswith(f"{name}/")]:
                objects.delete(address)


@contextmanager
def opened_matrix(config: dict[str, Any] | None = None) -> Iterator[Matrix]:
    """A server, a worker and the undisturbed run."""
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = make_certificate(Path(folder), TLS_HOSTS)
        with serving(certificate) as server:
            worker = Worker({**tensorflow_environment(server, authority), **QUICK})
            try:
                yield Matrix(server, worker, config)
            finally:
                worker.close()


def main() -> int:
    """Does all cases and prints the matrix; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default="", help="some of: " + ", ".join(kind.name for kind in KINDS))
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, default=30)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--export", action="store_true")
    options = parser.parse_args()
    chosen = options.faults.split(",") if options.faults else [kind.name for kind in KINDS]
    kinds = [kind for kind in KINDS if kind.name in chosen]
    requests = range(options.first, options.last + 1, options.step)
    wrong, start = 0, time.perf_counter()
    with opened_matrix({**RUN, "export": "saved_model" if options.export else ""}) as matrix:
        shown = ", ".join(f"{name}={value}" for name, value in RUN.items())
        print(f"{machine()}\n{matrix.requests} requests in an undisturbed run: {shown}\n")
        print("| fault | requests | equal | sentence | not reached | wrong | seconds |\n|---|---|---|---|---|---|---|")
        for kind in kinds:
            counts: collections.Counter[Outcome] = collections.Counter()
            began = time.perf_counter()
            for request in requests:
                outcome, what = matrix.case(kind, request)
                counts[outcome] += 1
                if outcome not in RIGHT:
                    print(f"{kind.name} at request {request}: {outcome}\n{what}\n", file=sys.stderr, flush=True)
            bad = sum(count for outcome, count in counts.items() if outcome not in RIGHT)
            wrong += bad
            row = [kind.name, len(requests), *(counts[outcome] for outcome in RIGHT), bad]
            print(f"| {' | '.join(map(str, row))} | {time.perf_counter() - began:.0f} |", flush=True)
    cases = len(kinds) * len(requests)
    print(f"\n{cases - wrong} of {cases} cases right, in {time.perf_counter() - start:.0f} s.")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
        sys.exit(0)
    sys.exit(main())
