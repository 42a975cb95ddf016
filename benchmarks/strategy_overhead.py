"""What the strategies cost: time of a training step on the digits, beside a bare loop over the same step.

    python benchmarks/strategy_overhead.py [--rounds=40] [--steps=80]

Two comparisons, each in one run, its sides taking turns because machines are noisy:

1. `--strategy=mirrored` with one replica through the loop of a run, beside a plain `tf.function` that loops over the
   very same step, with no strategy around it.
2. Two workers of one replica each, beside two virtual replicas in one process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

import tensorflow as tf
from equivalence import cluster_of_processes
from machine import machine

from trainer.agreement import come_together
from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.preparation import build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.loop import Progress, Stops, TrainLoop

WARM_UP_STEPS = 20

Timer = Callable[[], float]
"""Trains the steps of one round; gives seconds a step."""


def through_the_loop(config: Config, cluster: Cluster, rounds: int, steps: int) -> Timer:
    """Rounds of `TrainLoop`, as a run calls it, without actions."""
    prepared = prepare(config, cluster, Console(quiet=True))
    built = build(prepared)
    total = WARM_UP_STEPS + rounds * steps
    dataset = training_input(prepared, built.model, first_step=0, last_step=total)
    loop = TrainLoop(cluster, build_step(prepared, built), dataset, Stopwatch())
    progress = Progress(0, 0)
    loop.run(progress, Stops([WARM_UP_STEPS]), steps, [])

    def one_round() -> float:
        start = time.perf_counter()
        loop.run(progress, Stops([progress.step + steps]), steps, [])
        return (time.perf_counter() - start) / steps

    return one_round


def bare(config: Config, rounds: int, steps: int) -> Timer:
    """Rounds of a plain compiled loop over the same step and the same batches, outside of any strategy."""
    cluster = connect(config)
    prepared = prepare(config, Cluster(tf.distribute.get_strategy(), cluster.device_type, "none"), Console(quiet=True))
    built = build(prepared)
    total = WARM_UP_STEPS + rounds * steps
    iterator = iter(training_input(prepared, built.model, first_step=0, last_step=total))
    step = build_step(prepared, built)

    @tf.function
    def run(count: tf.Tensor) -> tf.Tensor:
        losses = tf.TensorArray(tf.float32, size=count)
        for position in tf.range(count):
            losses = losses.write(position, step(next(iterator))["loss"])
        return losses.stack()

    run(tf.constant(WARM_UP_STEPS))

    def one_round() -> float:
        start = time.perf_counter()
        run(tf.constant(steps)).numpy()
        return (time.perf_counter() - start) / steps

    return one_round


def in_processes(workers: int, rounds: int, steps: int) -> list[float]:
    """Seconds a step of each round, of two replicas in one process or in two; in processes of their own."""
    command = [sys.executable, __file__, "--worker", f"--rounds={rounds}", f"--steps={steps}"]
    with cluster_of_processes([command] * workers, stdout=subprocess.PIPE) as processes:
        outputs = [process.communicate(timeout=600) for process in processes]
    for process, (_, errors) in zip(processes, outputs):
        if process.returncode:
            raise RuntimeError(errors)
    return [float(line) for line in outputs[0][0].splitlines()]


def _work(rounds: int, steps: int) -> None:
    """The chief's or a worker's part of `in_processes`; alone, it is two virtual replicas."""
    alone = "TF_CONFIG" not in os.environ
    where = {"strategy": "mirrored", "virtual_devices": 2} if alone else {"strategy": "multi_worker"}
    config = Config.parse({"data": "digits"} | where)
    cluster = connect(config, come_together(config, os.environ, Console(quiet=True)).topology)
    one_round = through_the_loop(config, cluster, rounds, steps)
    for _ in range(rounds):
        print(one_round(), flush=True)
    cluster.barrier()


def report(title: str, ours: list[float], other: list[float], how: str, ratio: float) -> None:
    """Prints medians and quartiles of both sides, and how many times as long ours takes."""
    for name, seconds in (("ours", ours), ("beside", other)):
        low, middle, high = statistics.quantiles(seconds, n=4)
        print(f"  {name:7} {middle * 1e3:.3f} ms a step (quartiles {low * 1e3:.3f} and {high * 1e3:.3f})")
    print(f"{title}: {ratio:.3f} times ({how})\n", flush=True)


def main() -> None:
    """Measures and prints both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        _work(flags.rounds, flags.steps)
        return
    print(machine())
    config = Config(data="digits", strategy="mirrored")
    ours = through_the_loop(config, connect(config), flags.rounds, flags.steps)
    plain = bare(Config(data="digits"), flags.rounds, flags.steps)
    pairs = [(ours(), plain()) for _ in range(flags.rounds)]
    ratio = statistics.median(mine / other for mine, other in pairs)
    title = "mirrored on one replica beside a bare loop"
    report(title, [a for a, _ in pairs], [b for _, b in pairs], "median over pairs of rounds", ratio)
    workers: list[float] = []
    replicas: list[float] = []
    for _ in range(3):
        workers += in_processes(2, flags.rounds, flags.steps)
        replicas += in_processes(1, flags.rounds, flags.steps)
    ratio = statistics.median(workers) / statistics.median(replicas)
    report("two workers beside two virtual replicas", workers, replicas, "of the medians", ratio)


if __name__ == "__main__":
    main()
