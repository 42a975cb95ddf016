"""When the loop stops, how it counts, and how it paces itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pytest
import tensorflow as tf

from trainer.cluster import Cluster
from trainer.config import Config
from trainer.model.schedule import Schedule, build_schedule
from trainer.records.goodput import Stopwatch
from trainer.records.writers import MetricWriter
from trainer.training.actions import WriteMetrics
from trainer.training.loop import MAX_AUTOMATIC_STEPS, TARGET_LOOP_SECONDS, Boundary, Pace, Progress, Stops, TrainLoop

pytestmark = pytest.mark.strategies


def run_loop(epoch_ends: list[int], steps_per_loop: int, start: int = 0) -> list[Boundary]:
    """Runs a step that reports its own number as loss."""
    strategy = tf.distribute.get_strategy()
    dataset = tf.data.Dataset.range(start, epoch_ends[-1]).map(lambda step: {"number": step})

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        number = tf.cast(batch["number"], tf.float32)
        return {"loss": number, "accuracy": number / 2}

    seen: list[Boundary] = []
    loop = TrainLoop(
        Cluster(strategy, "CPU", "one CPU"), step, strategy.experimental_distribute_dataset(dataset), Stopwatch()
    )
    epoch = sum(end <= start for end in epoch_ends)
    loop.run(Progress(start, epoch), Stops(epoch_ends), steps_per_loop, [seen.append])
    return seen


def test_the_first_call_is_known_to_compile_and_the_others_to_train() -> None:
    strategy = tf.distribute.get_strategy()
    calls: list[str] = []

    def step(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"loss": tf.cast(batch, tf.float32), "accuracy": tf.zeros([])}

    @contextlib.contextmanager
    def noting(what: str) -> Iterator[None]:
        calls.append(f"{what} begins")
        yield
        calls.append(f"{what} ends")

    loop = TrainLoop(
        Cluster(strategy, "CPU", "one CPU"),
        step,
        strategy.experimental_distribute_dataset(tf.data.Dataset.range(3)),
        Stopwatch(),
        watching=lambda: noting("a call"),
        compiling=lambda: noting("compilation"),
    )
    loop.run(Progress(0, 0), Stops([3]), 1, [lambda boundary: calls.append(f"step {boundary.progress.step}")])
    assert calls == [
        *("compilation begins", "compilation ends", "step 1"),
        *("a call begins", "a call ends", "step 2"),
        *("a call begins", "a call ends", "step 3"),
    ]


@pytest.mark.parametrize("steps_per_loop", [0, 1, 3, 100])
def test_every_step_runs_once_and_calls_end_at_epoch_ends(steps_per_loop: int) -> None:
    boundaries = run_loop([4, 8, 11], steps_per_loop)
    assert np.concatenate([boundary.values["loss"] for boundary in boundaries]).tolist() == list(range(11))
    assert np.concatenate([boundary.steps for boundary in boundaries]).tolist() == list(range(1, 12))
    ends = [int(boundary.steps[-1]) for boundary in boundaries if boundary.epoch_ended]
    assert ends == [4, 8, 11]
    assert [boundary.finished for boundary in boundaries] == [False] * (len(boundaries) - 1) + [True]
    assert {int(step): boundary.epoch for boundary in boundaries for step in boundary.steps} == {
        step: 1 if step <= 4 else 2 if step <= 8 else 3 for step in range(1, 12)
    }


def test_epochs_without_a_step_of_their_own_are_counted() -> None:
    boundaries = run_loop([1, 2, 2, 2, 3], 10)
    assert [(boundary.progress.step, boundary.epoch_ended) for boundary in boundaries][-1] == (3, True)
    assert boundaries[-1].progress.epoch == 5
    assert len(boundaries) == 3


def test_a_run_that_starts_in_the_middle() -> None:
    boundaries = run_loop([4, 8], 3, start=4)
    assert np.concatenate([boundary.steps for boundary in boundaries]).tolist() == [5, 6, 7, 8]


def test_training_metrics_are_means_over_the_epoch_so_far() -> None:
    means: list[float] = []
    strategy = tf.distribute.get_strategy()
    dataset = tf.data.Dataset.range(4).map(lambda step: {"number": step})

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        number = tf.cast(batch["number"], tf.float32)
        return {"loss": number, "accuracy": number}

    loop = TrainLoop(
        Cluster(strategy, "CPU", "one CPU"), step, strategy.experimental_distribute_dataset(dataset), Stopwatch()
    )
    loop.run(Progress(0, 0), Stops([2, 4]), 1, [lambda boundary: means.append(boundary.progress.train["loss"])])
    assert means == [0.0, 0.5, 2.0, 2.5]


def test_pace_grows_towards_the_target_and_never_by_leaps() -> None:
    pace = Pace(0)
    assert pace.count == 1
    seconds_a_step = TARGET_LOOP_SECONDS / 100
    counts = []
    for _ in range(4):
        pace.learn(pace.count, pace.count * seconds_a_step)
        counts.append(pace.count)
    assert counts == [8, 64, 100, 100]
    pace.learn(100, 100 * TARGET_LOOP_SECONDS)
    assert pace.count == 1
    for _ in range(10):
        pace.learn(pace.count, 1e-6)
    assert pace.count == MAX_AUTOMATIC_STEPS
    fixed = Pace(7)
    fixed.learn(7, 100.0)
    assert fixed.count == 7


def test_the_rate_of_a_step_is_reported_the_same_however_many_steps_a_call_has() -> None:
    config = Config.parse({"schedule": "cosine", "learning_rate": 0.01, "epochs": 3, "batch_size": 7})
    schedule = build_schedule(config, 77, 33)
    whole = reported_rates(schedule, [33])
    assert len(whole) == 33
    for pieces in ([1] * 33, [7, 26], [13, 2, 18]):
        assert reported_rates(schedule, pieces) == whole


def reported_rates(schedule: Schedule, pieces: Sequence[int]) -> list[float]:
    """The learning rates that metrics.jsonl would have, for calls of so many steps each."""
    written: list[float] = []

    class Writer:
        def write_steps(self, split: str, steps: np.ndarray, *, epoch: int, values: Mapping[str, np.ndarray]) -> None:
            written.extend(values["learning_rate"].tolist())

    write = WriteMetrics(cast(MetricWriter, Writer()), schedule)
    done = 0
    for count in pieces:
        steps = np.arange(done, done + count) + 1
        values = {"loss": np.zeros(count), "accuracy": np.zeros(count)}
        write(Boundary(Progress(done + count, 0), 1, steps, values, 1.0, False, False, False))
        done += count
    return written


def slowly(number: tf.Tensor) -> tf.Tensor:
    """The number, 0.03 seconds later."""

    def sleep(number: tf.Tensor) -> tf.Tensor:
        time.sleep(0.03)
        return number

    return tf.ensure_shape(tf.py_function(sleep, [number], number.dtype), [])


@pytest.mark.parametrize("slow", ["input", "step"])
def test_waiting_for_batches_is_counted_apart_from_computing(slow: str) -> None:
    """Twenty steps; either a batch takes 0.03 seconds to come, or a step takes 0.03 seconds."""
    dataset = tf.data.Dataset.range(21).map(lambda step: {"number": slowly(step) if slow == "input" else step})

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        number = tf.cast(batch["number"], tf.float32)
        return {"loss": slowly(number) if slow == "step" else number, "accuracy": number}

    stopwatch = Stopwatch()
    loop = TrainLoop(Cluster(tf.distribute.get_strategy(), "CPU", "one CPU"), step, dataset, stopwatch)
    loop.run(Progress(0, 0), Stops([1, 21]), 20, [])
    seconds = stopwatch.seconds()
    long, short = ("input_wait", "train") if slow == "input" else ("train", "input_wait")
    assert seconds[long] > 0.5 and seconds[short] < 0.3


def test_a_boundary_stands_wherever_one_is_asked_for() -> None:
    stops = Stops([10, 20], every=4, at=[5, 13])
    found, step = [], 0
    while step < 20:
        step = stops.after(step)
        found.append(step)
    assert found == [4, 5, 8, 10, 12, 13, 16, 20]
    assert Stops([10]).after(3) == 10


def test_sums_do_not_depend_on_which_steps_are_looked_at_together() -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(1000).clip(0, 12)
    totals = set()
    for size in (1, 7, 64, 1000):
        progress = Progress(0, 0)
        for first in range(0, 1000, size):
            progress.count({"loss": values[first : first + size]})
        totals.add(progress.sums["loss"])
    assert len(totals) == 1


def test_all_leave_where_one_is_to_stop() -> None:
    class Asked:
        def __init__(self) -> None:
            self.looks = 0

        def stops(self) -> bool:
            self.looks += 1
            return self.looks == 3

        def writing(self) -> bool:
            return False

    dataset = tf.data.Dataset.range(100).map(lambda step: {"number": step})

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"loss": tf.cast(batch["number"], tf.float32), "accuracy": tf.constant(0.0)}

    seen: list[tuple[int, bool]] = []
    loop = TrainLoop(Cluster(tf.distribute.get_strategy(), "CPU", "one CPU"), step, dataset, Stopwatch())
    stopped = loop.run(Progress(0, 0), Stops([100]), 5, [lambda b: seen.append((b.progress.step, b.stops))], Asked())
    assert stopped and seen == [(5, False), (10, False), (15, True)], "the actions still see the last boundary"
