"""What the training loop costs: time of a step on the digits, beside a bare compiled loop and Keras' `fit`.

    python benchmarks/loop_overhead.py [--batches=8,32,128,512] [--rounds=15] [--seconds=0.4]

All sides train the built-in network with Adam, on one device, without validation or logs; they take turns, and a round
of each takes about `--seconds`.

    ours               `TrainLoop` with --strategy=default and all of the input pipeline
    bare               a plain `tf.function` that loops over the very same step and batches, with no strategy around it
    fit, arrays        keras.Model.fit on arrays of floats in memory, all at its defaults
    fit, no XLA        the same with jit_compile=False
    fit, 16 a call     the same with steps_per_execution=16
    fit, tf.data       the same from a tf.data pipeline: shuffle, repeat, batch, scale, prefetch

Ratios are medians over rounds of a side's time by ours, above 1 where ours is faster, and in brackets their quartiles;
once by the clock, and once in seconds of all cores (CPU), which others on the machine disturb less.
The steps a call that the loop picks by itself come from a run of its own, with --steps_per_loop=0.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

import keras
import numpy as np
import tensorflow as tf
from machine import machine
from strategy_overhead import bare, through_the_loop

from trainer.cluster import connect
from trainer.config import Config
from trainer.data.source import ArraySource
from trainer.model.convnet import ConvNet
from trainer.preparation import Prepared, build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.loop import Boundary, Progress, Stops, TrainLoop

STEPS_A_CALL = 16
OURS = "ours"
PROBE_STEPS = 20
HEADINGS = """\
| batch | steps a call, picked | side | ms a step | beside ours, by the clock | by CPU |
|---|---|---|---|---|---|"""
AUTOMATIC_SECONDS = 4.0
"""How long the loop may look for its number of steps a call."""


class Cost(NamedTuple):
    """Seconds a step, by the clock and of all cores."""

    clock: float
    cpu: float


Timer = Callable[[], float]
"""Trains the steps of one round; gives seconds a step."""


def keras_model(prepared: Prepared, **compiling: Any) -> keras.Model:
    """The network of a run as a Keras model, compiled for `fit`."""
    source, config = prepared.source, prepared.config
    assert source.native_size
    pixels = keras.Input([source.native_size, source.native_size, 3])
    features = ConvNet(source.native_size, config.seed)(pixels)
    model = keras.Model(pixels, keras.layers.Dense(len(source.class_names))(features))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(config.peak_learning_rate), loss, metrics=["accuracy"], **compiling)
    return model


def fit_arrays(prepared: Prepared, steps: int, **compiling: Any) -> Timer:
    """Rounds of `fit` on float32 pixels and labels in memory, as many as the steps take."""
    pixels, labels = training_arrays(prepared)
    chosen = np.resize(np.arange(len(labels)), steps * prepared.config.batch_size)
    x, y = (pixels[chosen] / 255).astype(np.float32), labels[chosen]
    model = keras_model(prepared, **compiling)
    batch = prepared.config.batch_size
    return _timed(lambda: model.fit(x, y, batch_size=batch, epochs=1, verbose=0), steps)


def fit_dataset(prepared: Prepared, steps: int, **compiling: Any) -> Timer:
    """Rounds of `fit` on a pipeline that shuffles, as tutorials write it."""
    batch = prepared.config.batch_size
    rows = tf.data.Dataset.from_tensor_slices(training_arrays(prepared)).shuffle(2000).repeat().batch(batch, True)
    scaled = rows.map(lambda pixels, label: (tf.cast(pixels, tf.float32) / 255, label), tf.data.AUTOTUNE)
    dataset = scaled.take(steps).prefetch(tf.data.AUTOTUNE)
    model = keras_model(prepared, **compiling)
    return _timed(lambda: model.fit(dataset, epochs=1, verbose=0), steps)


def training_arrays(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 `[n, S, S, 3]`, and labels, int32 `[n]`, of the training images."""
    assert isinstance(prepared.source, ArraySource)
    return prepared.source.pixels[prepared.train], prepared.source.labels[prepared.train]


def _timed(train: Callable[[], object], steps: int) -> Timer:
    train()

    def one_round() -> float:
        start = time.perf_counter()
        train()
        return (time.perf_counter() - start) / steps

    return one_round


def picked_steps(config: Config, seconds_a_step: float) -> int:
    """The steps a call that the loop settles on."""
    cluster = connect(config)
    prepared = prepare(config, cluster, Console(quiet=True))
    built = build(prepared)
    steps = max(PROBE_STEPS, int(AUTOMATIC_SECONDS / seconds_a_step))
    dataset = training_input(prepared, built.model, first_step=0, last_step=steps)
    calls: list[int] = []

    def note(boundary: Boundary) -> None:
        calls.append(len(boundary.steps))

    TrainLoop(cluster, build_step(prepared, built), dataset, Stopwatch()).run(Progress(0, 0), Stops([steps]), 0, [note])
    return max(calls)


def compare(batch: int, rounds: int, seconds: float) -> dict[str, list[Cost]]:
    """What each side's steps cost in each round."""
    config = Config(data="digits", batch_size=batch)
    cluster = connect(config)
    probe = through_the_loop(config, cluster, 2, PROBE_STEPS)
    probe()
    steps = max(PROBE_STEPS, int(seconds / probe()))
    prepared = prepare(config, cluster, Console(quiet=True))
    plain = {"jit_compile": False}
    timers: dict[str, Timer] = {
        OURS: through_the_loop(config, cluster, rounds, steps),
        "bare": bare(config, rounds, steps),
        "fit, arrays": fit_arrays(prepared, steps),
        "fit, no XLA": fit_arrays(prepared, steps, **plain),
        f"fit, {STEPS_A_CALL} a call": fit_arrays(prepared, steps, steps_per_execution=STEPS_A_CALL, **plain),
        "fit, tf.data": fit_dataset(prepared, steps, **plain),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            cpu = time.process_time()
            clock = timer()
            costs[name].append(Cost(clock, (time.process_time() - cpu) / steps))
    return costs


def ratio(pairs: list[tuple[float, float]]) -> str:
    """Median and quartiles of the first number by the second."""
    low, middle, high = statistics.quantiles([mine / other for mine, other in pairs], n=4)
    return f"{middle:.3f} ({low:.3f}, {high:.3f})"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="8,32,128,512")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4)
    flags = parser.parse_args()
    print(f"{machine()}\n\n{HEADINGS}", flush=True)
    for batch in map(int, flags.batches.split(",")):
        costs = compare(batch, flags.rounds, flags.seconds)
        ours = costs[OURS]
        picked = picked_steps(Config(data="digits", batch_size=batch), statistics.median(each.clock for each in ours))
        for name, theirs in costs.items():
            step = 1e3 * statistics.median(each.clock for each in theirs)
            by_clock = ratio([(a.clock, b.clock) for a, b in zip(theirs, ours)])
            by_cpu = ratio([(a.cpu, b.cpu) for a, b in zip(theirs, ours)])
            print(f"| {batch} | {picked} | {name} | {step:.3f} | {by_clock} | {by_cpu} |", flush=True)


if __name__ == "__main__":
    main()
