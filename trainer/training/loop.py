"""When things happen: compiled steps between boundaries, actions at them.

The loop owns WHEN. What happens at a boundary is a list of actions (`trainer.training.actions`), called in order
with a `Boundary`; the loop knows nothing of logs, checkpoints or validation.

    loop = TrainLoop(cluster, step, dataset, stopwatch)
    loop.run(Progress(step=0, epoch=0), Stops(epoch_ends=[21, 43, 64]), steps_per_loop=0, actions=[...])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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
      validation: the newest validation result, empty before the first.
      sums: of each of `METRICS` over the steps of the epoch that is running or has just ended, float64. They are added
        up step by step: the same whatever steps are looked at together.
      counted: how many steps these are.
    """

    step: int
    epoch: int
    validation: Mapping[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0

    @property
    def train(self) -> dict[str, float]:
        """Mean training metrics of these steps; empty before the first."""
        return {name: total / self.counted for name, total in self.sums.items()} if self.counted else {}

    def begin_epoch(self) -> None:
        """Forgets the metrics of the epoch before."""
        self.sums, self.counted = {}, 0

    def count(self, values: Mapping[str, NDArray[np.floating]]) -> None:
        """Takes in the metrics of some steps, float64 `[count]` each."""
        self.counted += len(values["loss"])
        for name, vector in values.items():
            self.sums[name] = float(np.add.accumulate([self.sums.get(name, 0.0), *vector], dtype=np.float64)[-1])


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
      now: seconds by the chief's clock, the same on all workers.
      stops: whether the run leaves here, to go on another time.
      writing: whether the chief still writes an earlier checkpoint.
    """

    progress: Progress
    epoch: int
    steps: NDArray[np.int64]
    values: Mapping[str, NDArray[np.floating]]
    seconds: float
    compiled: bool
    epoch_ended: bool
    finished: bool
    now: float = 0.0
    stops: bool = False
    writing: bool = False


Action = Callable[[Boundary], None]

Step = Callable[[Batch], Mapping[str, tf.Tensor]]
"""What one replica does with one batch, and its share of each of `METRICS`; normally a `TrainStep`."""


class Outlook(Protocol):
    """What the loop has to know of the world around it, on each worker; the workers then agree."""

    def stops(self) -> bool:
        """Whether this worker was asked to stop the run."""

    def writing(self) -> bool:
        """Whether this worker still writes a checkpoint."""


class Undisturbed:
    """An outlook on a world in which nothing else happens."""

    def stops(self) -> bool:
        """Never."""
        return False

    def writing(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Stops:
    """Steps after which there has to be a boundary.

    Attributes:
      epoch_ends: for each epoch, how many steps are done when it ends; not descending.
      every: multiples of this are among them; 0: none.
      at: these are.
    """

    epoch_ends: Sequence[int]
    every: int = 0
    at: Collection[int] = ()

    def after(self, step: int) -> int:
        """The first of them after `step`, which must be before the last epoch's end."""
        stops = [next(end for end in self.epoch_ends if end > step), *(stop for stop in self.at if stop > step)]
        return min(*stops, step // self.every * self.every + self.every) if self.every else min(stops)


class TrainLoop:
    """Runs a step over a distributed dataset, many times a call."""

    def __init__(
        self,
        cluster: Cluster,
        step: Step,
        dataset: tf.distribute.DistributedDataset,
        stopwatch: Stopwatch,
        watching: Callable[[], AbstractContextManager[None]] = nullcontext,
        compiling: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepares the compiled loop.

        Args:
          cluster: where the step's variables live.
          step: what each replica does with its batch.
          dataset: a batch for each replica and step, from the step that `run` starts at.
          stopwatch: is told which time is compilation and which is training.
          watching: stands around each call of compiled steps but the first, which also compiles.
          compiling: stands around that one.
          clock: seconds, for the automatic loop length and `Boundary.seconds`.
        """
        self._cluster = cluster
        self._iterator = iter(dataset)
        self._run_steps = compiled_loop(cluster.strategy, step)
        self._stopwatch = stopwatch
        self._watching = watching
        self._compiling = compiling
        self._clock = clock

    def run(
        self,
        progress: Progress,
        stops: Stops,
        steps_per_loop: int,
        actions: Sequence[Action],
        outlook: Outlook | None = None,
    ) -> bool:
        """Trains from `progress` to the last epoch end, calling every action at every boundary.

        Args:
          progress: where to start; kept up to date.
          stops: where the epochs end, and where else a boundary has to be.
          steps_per_loop: steps a call; 0 picks about half a second's worth. Calls end at `stops` too.
          actions: called in order; an exception of theirs ends the run.
          outlook: asked at every boundary; where a worker is to stop, all leave after the actions.

        Returns:
          Whether it left because a worker was to stop.
        """
        pace = Pace(steps_per_loop)
        outlook = outlook or Undisturbed()
        first_call, stopped = True, False
        ends = stops.epoch_ends
        while progress.step < ends[-1] and not stopped:
            if progress.step == (ends[progress.epoch - 1] if progress.epoch else 0):
                progress.begin_epoch()
            count = min(pace.count, stops.after(progress.step) - progress.step)
            start = self._clock()
            watching = self._compiling() if first_call else self._watching()
            with self._stopwatch.measure("compile" if first_call else "train"), watching:
                metrics, waited = (result.numpy() for result in self._run_steps(self._iterator, tf.constant(count)))
                agreed = self._over_workers(metrics, start, outlook)
            if not first_call:
                self._stopwatch.move(float(waited), "train", "input_wait")
            boundary = _advance(progress, count, ends, agreed, compiled=first_call)
            for action in actions:
                action(boundary)
            if not first_call:
                pace.learn(count, agreed.seconds)
            first_call, stopped = False, agreed.stops
        return stopped

    def _over_workers(self, local: NDArray[np.float64], start: float, outlook: Outlook) -> _Agreed:
        """What all workers go on with.

        Args:
          local: float64 `[metrics, count]`, sums over this worker's replicas.
          start: when these steps began, by this worker's clock.
          outlook: of this worker.
        """
        now = self._clock()
        mine = [now - start, now, outlook.stops(), outlook.writing()]
        gathered = self._cluster.gather(np.append(local, mine))
        sums = gathered[:, : -len(mine)].sum(axis=0).reshape(local.shape)
        seconds, now, _, writing = gathered[0, -len(mine) :]
        return _Agreed(dict(zip(METRICS, sums)), seconds, now, bool(gathered[:, -2].any()), bool(writing))


class _Agreed(NamedTuple):
    """What the workers know alike after some steps: sums of the metrics, the chief's times, and what is coming."""

    values: dict[str, NDArray[np.float64]]
    seconds: float
    now: float
    stops: bool
    writing: bool


def _advance(progress: Progress, count: int, epoch_ends: Sequence[int], agreed: _Agreed, *, compiled: bool) -> Boundary:
    """Moves `progress` by `count` steps; gives the boundary that it comes to."""
    epoch = progress.epoch + 1
    progress.step += count
    progress.count(agreed.values)
    progress.epoch = sum(end <= progress.step for end in epoch_ends)
    return Boundary(
        progress=progress,
        epoch=epoch,
        steps=np.arange(progress.step - count + 1, progress.step + 1),
        values=agreed.values,
        seconds=agreed.seconds,
        compiled=compiled,
        epoch_ended=progress.epoch >= epoch,
        finished=progress.step >= epoch_ends[-1],
        now=agreed.now,
        stops=agreed.stops,
        writing=agreed.writing,
    )


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


def compiled_loop(strategy: tf.distribute.Strategy, step: Step) -> tf.types.experimental.GenericFunction:
    """A function (iterator, count) that runs `count` steps without returning to Python.

    It gives float64 `[metrics, count]`, the sums of `METRICS` over the replicas of this process, and float64 `[]`, the
    seconds that were spent waiting for batches. Workers add their sums up between the calls, which costs one message a
    call and not one a step. The count is a tensor, so that one compilation serves every loop length.
    """

    # A step has no control flow of Python's on tensors: to convert all of its code would take a second at the start.
    step = tf.autograph.experimental.do_not_convert(step)

    @tf.function
    def run_steps(iterator: tf.distribute.DistributedIterator, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sums = tf.TensorArray(tf.float64, size=count, element_shape=[len(METRICS)])
        waited = tf.zeros([], tf.float64)
        for position in tf.range(count):
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                waited += tf.timestamp() - asked
            per_replica = strategy.run(step, args=(batch,))
            local = [tf.add_n(strategy.experimental_local_results(per_replica[name])) for name in METRICS]
            sums = sums.write(position, tf.cast(tf.stack(local), tf.float64))
        return tf.transpose(sums.stack()), waited

    return run_steps
