"""From the command to the first training step of the sample, and what takes it.

    python benchmarks/start.py [--rounds=5] [-- FLAG ...]

Each round starts `python -m trainer.task` in a process of its own, with a new run directory, and watches its
`status.json` until one step is done; then the process is ended. A second process in each round does the same up to
there, and says what took its time. Flags behind -- are for the trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.005
LONGEST_SECONDS = 300.0
STARTED = "START_BENCHMARK_TIME"
"""The environment variable that tells the process when it was started."""


def to_first_step(flags: list[str]) -> float:
    """Seconds from starting the process until its status tells of a first step.

    Raises:
      RuntimeError: it ended before that, or took more than `LONGEST_SECONDS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder, "run", "status.json")
        command = [sys.executable, "-m", "trainer.task", f"--run_dir={status.parent}", "--steps_per_loop=1", *flags]
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                while time.perf_counter() - start < LONGEST_SECONDS:
                    if status.exists() and json.loads(status.read_text(encoding="utf-8"))["step"]:
                        return time.perf_counter() - start
                    if process.poll() is not None:
                        raise RuntimeError(process.communicate()[1])
                    time.sleep(POLL_SECONDS)
                raise RuntimeError(f"no step after {LONGEST_SECONDS:g} s")
            finally:
                process.kill()


def phases(flags: list[str]) -> dict[str, float]:
    """Seconds of each part of a start, in a process of its own."""
    environment = os.environ | {STARTED: repr(time.time())}
    command = [sys.executable, __file__, "--phases", "--", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _start_in_phases(arguments: list[str]) -> dict[str, float]:
    """What a run does until its first step, without what it writes."""
    seconds = {}
    last = float(os.environ[STARTED])

    def lap(name: str) -> None:
        nonlocal last
        now = time.time()
        seconds[name] = now - last
        last = now

    lap("interpreter, this script")
    from trainer import task
    from trainer.config_flags import config_from_flags

    task.parse_flags(["start", *arguments])
    config = config_from_flags(task.FLAGS, task.read_text)
    lap("flags and configuration")
    task.import_tensorflow_quietly()
    lap("import TensorFlow and Keras")
    import trainer.run  # noqa: F401

    lap("import the rest")
    from trainer.cluster import connect
    from trainer.preparation import build, build_step, prepare, training_input
    from trainer.records.console import Console
    from trainer.records.goodput import Stopwatch
    from trainer.training.loop import Progress, Stops, TrainLoop

    cluster = connect(config)
    prepared = prepare(config, cluster, Console(quiet=True))
    prepared.source.fingerprint()
    lap("devices and images")
    built = build(prepared)
    lap("model and optimizer")
    dataset = training_input(prepared, built.model, first_step=0, last_step=prepared.steps_total)
    loop = TrainLoop(cluster, build_step(prepared, built), dataset, Stopwatch())
    lap("input pipeline")
    loop.run(Progress(0, 0), Stops([1]), 1, [])
    lap("trace, compile, first step")
    return seconds


def main() -> None:
    """Measures and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phases", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help="for the trainer, behind --")
    options = parser.parse_args()
    if options.phases:
        print(json.dumps(_start_in_phases(options.flags)))
        return
    to_first_step(options.flags)  # Warms the disk.
    totals, parts = [], []
    for _ in range(options.rounds):
        totals.append(to_first_step(options.flags))
        parts.append(phases(options.flags))
    low, middle, high = statistics.quantiles(totals, n=4)
    print(f"{machine()}\n\ncommand to first step: {middle:.2f} s (quartiles {low:.2f}, {high:.2f})\n")
    print("| part | seconds (median) |\n|---|---|")
    for name in parts[0]:
        print(f"| {name} | {statistics.median(part[name] for part in parts):.2f} |")


if __name__ == "__main__":
    main()
