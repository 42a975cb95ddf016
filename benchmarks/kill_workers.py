"""A worker that is killed at a random step changes nothing: the weights in the end are those of an undisturbed run.

    python benchmarks/kill_workers.py --runs=20 --seed=0

Each run is `python -m launch run --workers=2 --max_restarts=3`. One goes undisturbed; in each of the others a worker
drawn from the seed gets SIGKILL soon after a step drawn from the seed. It must end with exit code 0, after a restart,
with all variables of its last checkpoint, those of the optimizer included, equal bit for bit. Flags behind -- are for
the trainer, instead of those below. The exit code is 0 where every run passed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from machine import machine
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.startup import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]

TRAINER_FLAGS = ["--data=digits", "--epochs=4", "--steps_per_loop=1", "--augment=crop", "--dropout=0.3"]
"""A status several times a second, so that the step of the kill is known; randomness that a resumed run must repeat."""

MAX_RESTARTS = 3

POLL_SECONDS = 0.01

LONGEST_DELAY_SECONDS = 0.1
"""The kill comes up to so much after its step, so that it hits every part of a step, and of what is between them."""

RUN_SECONDS = 600.0
"""What a run may take."""

HEADINGS = """\
| run | worker killed | after step | restarts | exit code | seconds | equal |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Kill:
    """What happens to a run: a worker gets SIGKILL some seconds after `step` steps are done."""

    worker: int
    step: int
    delay: float


@dataclass(frozen=True)
class Run:
    """What was seen of a run.

    Attributes:
      code: the launcher's exit code.
      step: steps that status.json told of when the worker was killed; None where none was.
      restarts: how often all workers started again.
      seconds: from the first process to the end of all.
      log: what it printed.
    """

    code: int
    step: int | None
    restarts: int
    seconds: float
    log: str


def train(run_dir: Path, workers: int, flags: list[str], kill: Kill | None = None) -> Run:
    """Runs the launcher to its end, and does what `kill` says while it trains."""
    log = run_dir.with_suffix(".log")
    command = [sys.executable, "-m", "launch", "run", f"--workers={workers}", f"--max_restarts={MAX_RESTARTS}", "--"]
    start, step = time.perf_counter(), None
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(
            [*command, *flags, f"--run_dir={run_dir}"],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            if kill:
                step = _kill_when_due(kill, process, run_dir, log)
            code = process.wait(RUN_SECONDS)
        finally:
            process.terminate()  # The launcher ends its workers.
    text = log.read_text(encoding="utf-8")
    restarts = len(re.findall(r"^\[launch\] .*; restart \d+ of \d+ ", text, re.MULTILINE))
    return Run(code, step, restarts, time.perf_counter() - start, text)


def _kill_when_due(kill: Kill, process: subprocess.Popen[bytes], run_dir: Path, log: Path) -> int | None:
    """Kills the worker; gives the step that was reached, or None where the run ended before."""
    while process.poll() is None:
        if steps_done(run_dir) >= kill.step:
            time.sleep(kill.delay)
            step = steps_done(run_dir)
            with suppress(ProcessLookupError):  # It was done in the meantime: no restart will be seen.
                os.kill(worker_process(log.read_text(encoding="utf-8"), kill.worker), signal.SIGKILL)
            return step
        time.sleep(POLL_SECONDS)
    return None


def steps_done(run_dir: Path) -> int:
    """Steps that status.json tells of, 0 before there is one."""
    with suppress(FileNotFoundError):
        return int(json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["step"])
    return 0


def worker_process(log: str, worker: int) -> int:
    """The process id that the launcher told of a worker last."""
    return int(re.findall(rf"^\[launch\] worker {worker} is process (\d+)$", log, re.MULTILINE)[-1])


def variables_of(run_dir: Path) -> dict[str, NDArray]:
    """All variables of the last checkpoint, by name: model, optimizer, averages, loss scale."""
    import_tensorflow_quietly()
    from trainer.storage import RunDirectory
    from trainer.training.checkpoint import CheckpointStore

    store = CheckpointStore(RunDirectory(str(run_dir)))
    return dict(store.load(store.steps()[-1]).tensors)


def differences(expected: dict[str, NDArray], found: dict[str, NDArray]) -> list[str]:
    """Names of the variables that are not there on both sides with the same bits."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if _bits(expected.get(name)) != _bits(found.get(name))]


def _bits(value: NDArray | None) -> tuple[str, tuple[int, ...], bytes] | None:
    return None if value is None else (str(value.dtype), value.shape, value.tobytes())


def compare(expected: dict[str, NDArray], number: int, run: Run, kill: Kill, run_dir: Path) -> bool:
    """Prints a row of the table, and on standard error what went wrong; gives whether the run passed."""
    different = ["all"] if run.code else differences(expected, variables_of(run_dir))
    equal = "no" if different else "yes"
    print(
        f"| {number} | {kill.worker} | {run.step} | {run.restarts} | {run.code} | {run.seconds:.0f} | {equal} |",
        flush=True,
    )
    passed = run.restarts == 1 and not different
    if not passed:
        print(f"{run.log}\nrun {number}, different: {', '.join(different) or 'nothing'}", file=sys.stderr)
    return passed


def main() -> int:
    """Runs all and prints the table; gives the exit code."""
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments[:end])
    flags = arguments[end + 1 :] or TRAINER_FLAGS
    passed = 0
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = train(Path(folder, "undisturbed"), options.workers, flags)
        if undisturbed.code:
            print(undisturbed.log, file=sys.stderr)
            return 1
        expected = variables_of(Path(folder, "undisturbed"))
        steps = steps_done(Path(folder, "undisturbed"))
        print(f"{machine()}\n{options.workers} workers, {steps} steps, {len(expected)} variables: {' '.join(flags)}\n")
        print(f"{HEADINGS}\n| undisturbed | | | 0 | 0 | {undisturbed.seconds:.0f} | |", flush=True)
        for number in range(1, options.runs + 1):
            drawn = random.Random(f"{options.seed}/{number}")
            worker, step = drawn.randrange(options.workers), drawn.randrange(1, steps)
            kill = Kill(worker, step, drawn.uniform(0, LONGEST_DELAY_SECONDS))
            run_dir = Path(folder, f"run-{number}")
            passed += compare(expected, number, train(run_dir, options.workers, flags, kill), kill, run_dir)
    print(f"\n{passed} of {options.runs} runs passed.")
    return 0 if passed == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
