"""When things happen: compiled steps between boundaries, actions at them.

The loop owns WHEN. What happens at a boundary is a list of actions (`trainer.training.actions`), called in order
with a `Boundary`; the loop knows nothing of logs, checkpoints or validation.

    loop = TrainLoop(cluster, step, dataset, stopwatch)
    loop.run(Progress(step=0, epoch=0), epoch_ends=[21, 43, 64], steps_per_loop=0, actions=[...])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.records.goodput import Stopwatch
from trainer.training.step import Batch

TARGET_LOOP_SECONDS = 0.5
"""How long a call of compiled steps may take when the loop picks its length: often enough for a progress bar,
rarely enough for Python not to matter."""

MAX_AUTOMATIC_STEPS = 1000

METRICS = ("loss", "accuracy")
"""What a training step reports, as its replica's share of the global batch's mean."""


@dataclass
class Progress:
    """How far a run is; actions read it and write their findings here for the actions behind them.

    Attributes:
      step: steps done.
      epoch: epochs completed.
      train: mean training metrics of the epoch that is running or has just ended.
      validation: the newest validation result, empty before the first.
    """

    step: int
    epoch: int
    train: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Boundary:
    """A moment between compiled steps.

    Attributes:
      progress: how far the run is.
      epoch: the epoch, from 1, that these steps belong to: a boundary stands at every epoch's end.
      steps: int64 `[count]`, the numbers, from 1, of the steps since the last boundary.
      values: float64 `[count]` a metric, one for each of these steps.
      seconds: wall time of these steps.
      compiled: whether that time includes the compilation of the step.
      epoch_ended: whether an epoch ends here.
      finished: whether the run's last step is done.
    """

    progress: Progress
    epoch: int
    steps: NDArray[np.int64]
    values: Mapping[str, NDArray[np.floating]]
    seconds: float
    compiled: bool
    epoch_ended: bool
    finished: bool


Action = Callable[[Boundary], None]

Step = Callable[[Batch], Mapping[str, tf.Tensor]]
"""What one replica does with one batch, and its share of each of `METRICS`; normally a `TrainStep`."""


class TrainLoop:
    """Runs a step over a distributed dataset, many times a call."""

    def __init__(
        self,
        cluster: Cluster,
        step: Step,
        dataset: tf.distribute.DistributedDataset,
        stopwatch: Stopwatch,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepares the compiled loop.

        Args:
          cluster: where the step's variables live.
          step: what each replica does with its batch.
          dataset: a batch for each replica and step, from the step that `run` starts at.
          stopwatch: is told which time is compilation and which is training.
          clock: seconds, for the automatic loop length and `Boundary.seconds`.
        """
        self._cluster = cluster
        self._iterator = iter(dataset)
        self._run_steps = compiled_loop(cluster.strategy, step)
        self._stopwatch = stopwatch
        self._clock = clock

    def run(
        self, progress: Progress, epoch_ends: Sequence[int], steps_per_loop: int, actions: Sequence[Action]
    ) -> None:
        """Trains from `progress` to the last epoch end, calling every action at every boundary.

        Args:
          progress: where to start; kept up to date.
          epoch_ends: for each epoch, how many steps are done when it ends; not descending.
          steps_per_loop: steps a call; 0 picks about half a second's worth. Calls end at epoch ends too.
          actions: called in order; an exception of theirs ends the run.
        """
        pace = Pace(steps_per_loop)
        epoch_sums = _EpochMeans()
        first_call = True
        while progress.step < epoch_ends[-1]:
            count = min(pace.count, _next_end(epoch_ends, progress.step) - progress.step)
            start = self._clock()
            with self._stopwatch.measure("compile" if first_call else "train"):
                local = self._run_steps(self._iterator, tf.constant(count)).numpy()
                values, seconds = self._over_workers(local, self._clock() - start)
            epoch = progress.epoch + 1
            progress.step += count
            progress.train = epoch_sums.add(values)
            epochs_done = sum(end <= progress.step for end in epoch_ends)
            epoch_ended = epochs_done > progress.epoch
            progress.epoch = epochs_done
            finished = progress.step >= epoch_ends[-1]
            steps = np.arange(progress.step - count + 1, progress.step + 1)
            boundary = Boundary(progress, epoch, steps, values, seconds, first_call, epoch_ended, finished)
            for action in actions:
                action(boundary)
            if epoch_ended:
                epoch_sums = _EpochMeans()
            if not first_call:
                pace.learn(count, seconds)
            first_call = False

    def _over_workers(self, local: NDArray[np.float64], seconds: float) -> tuple[dict[str, NDArray[np.float64]], float]:
        """The metrics summed over the workers, and the chief's seconds: all workers go on with the same numbers.

        Args:
          local: float64 `[metrics, count]`, sums over this worker's replicas.
          seconds: by this worker's clock.
        """
        gathered = self._cluster.gather(np.append(local, seconds))
        sums = gathered[:, :-1].sum(axis=0).reshape(local.shape)
        return dict(zip(METRICS, sums)), float(gathered[0, -1])


class Pace:
    """How many steps the next call runs."""

    def __init__(self, steps_per_loop: int) -> None:
        """Fixed at `steps_per_loop`, or, for 0, one step at first and then as the clock tells."""
        self._fixed = steps_per_loop > 0
        self.count = steps_per_loop or 1

    def learn(self, count: int, seconds: float) -> None:
        """Takes in that `count` steps took `seconds`; grows at most eightfold at once, a first call being slow."""
        if self._fixed:
            return
        wanted = int(TARGET_LOOP_SECONDS * count / max(seconds, 1e-9))
        self.count = max(1, min(wanted, self.count * 8, MAX_AUTOMATIC_STEPS))


class _EpochMeans:
    """Means of the step metrics since the epoch began, in float64."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: Mapping[str, NDArray[np.floating]]) -> dict[str, float]:
        self._count += len(values["loss"])
        for name, vector in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(np.sum(vector))
        return {name: total / self._count for name, total in self._sums.items()}


def _next_end(epoch_ends: Sequence[int], step: int) -> int:
    return next(end for end in epoch_ends if end > step)


def compiled_loop(strategy: tf.distribute.Strategy, step: Step) -> tf.types.experimental.GenericFunction:
    """A function (iterator, count) that runs `count` steps without returning to Python.

    It gives float64 `[metrics, count]`: the sums of `METRICS` over the replicas of this process. Workers add theirs up
    between the calls, which costs one message a call and not one a step. The count is a tensor, so that one compilation
    serves every loop length.
    """

    # A step has no control flow of Python's on tensors: to convert all of its code would take a second at the start.
    step = tf.autograph.experimental.do_not_convert(step)

    @tf.function
    def run_steps(iterator: tf.distribute.DistributedIterator, count: tf.Tensor) -> tf.Tensor:
        sums = tf.TensorArray(tf.float64, size=count, element_shape=[len(METRICS)])
        for position in tf.range(count):
            per_replica = strategy.run(step, args=(next(iterator),))
            local = [tf.add_n(strategy.experimental_local_results(per_replica[name])) for name in METRICS]
            sums = sums.write(position, tf.cast(tf.stack(local), tf.float64))
        return tf.transpose(sums.stack())

    return run_steps
