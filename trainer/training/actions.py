"""What happens at a boundary: actions that `TrainLoop.run` calls in the order in which they are listed.

An action is a callable that takes a `Boundary`. It may read and write `boundary.progress`, and it may raise to end
the run: `StopOnNonFinite` stands first so that nothing behind it saves weights that are no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.config_values import ExampleKind
from trainer.errors import UserError
from trainer.model.schedule import Schedule
from trainer.records.background import BackgroundWriter
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.records.status import FILE_NAME as STATUS_FILE
from trainer.records.status import BestResult, Status
from trainer.records.writers import MetricWriter
from trainer.storage import RunDirectory
from trainer.training.checkpoint import Best, Checkpoint, CheckpointStore, Position
from trainer.training.evaluation import Evaluation
from trainer.training.loop import Boundary, Progress
from trainer.training.state import WEIGHTS, TrainingState


class StopOnNonFinite:
    """Ends the run when a loss is NaN or infinite, before anything behind it is saved.

    The loss of a step is that of the weights before its update: `SaveCheckpoint` looks at the weights themselves.
    """

    def __init__(self, store: CheckpointStore) -> None:
        """`store` tells which checkpoint is the last good one."""
        self._store = store

    def __call__(self, boundary: Boundary) -> None:
        """Looks at the loss of every step since the last boundary.

        Raises:
          UserError: naming the first step whose loss is not finite, and the checkpoint that is kept.
        """
        bad = ~np.isfinite(boundary.values["loss"])
        if bad.any():
            first = int(np.argmax(bad))
            what = f"The loss became {boundary.values['loss'][first]} at step {boundary.steps[first]}"
            raise _not_finite(what, self._store)


def check_finite(checkpoint: Checkpoint, store: CheckpointStore) -> None:
    """Makes sure that a checkpoint is worth saving.

    Raises:
      UserError: one of its weights is NaN or infinite; the sentence names the checkpoint that is kept.
    """
    for name, weight in checkpoint.tensors.items():
        if name.startswith(WEIGHTS) and not np.isfinite(weight).all():
            path = name.partition("/")[2]
            raise _not_finite(f"{path} is no longer finite after step {checkpoint.position.step}", store)


def _not_finite(what: str, store: CheckpointStore) -> UserError:
    steps = store.steps()
    kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
    return UserError(f"{what}; {kept}. Lower --learning_rate, or give --warmup or --clip_norm.")


_STATUS_SECONDS, _REMOTE_STATUS_SECONDS = 0.5, 1.0
"""Between two statuses, at least. Cloud Storage takes one write a second of the same object (its quotas, 2026-11)."""

_BLOCK = 1024
"""Steps whose rates are computed together. A processor computes vectors in packets, and what is left over one by one,
so that a cosine of those may differ in the last bit: blocks begin at multiples of their length."""


class _Rates:
    """The learning rates of consecutive steps: the same to the last bit, whichever are asked about together."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._blocks: dict[int, NDArray[np.float32]] = {}

    def __call__(self, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of `steps`, ascending from 0 or later."""
        wanted = range(int(steps[0]) // _BLOCK, int(steps[-1]) // _BLOCK + 1)
        self._blocks = {block: self._block(block) for block in wanted}
        return np.concatenate(list(self._blocks.values()))[steps - wanted[0] * _BLOCK]

    def _block(self, block: int) -> NDArray[np.float32]:
        if block in self._blocks:
            return self._blocks[block]
        rates: NDArray[np.float32] = self._schedule(np.arange(block * _BLOCK, (block + 1) * _BLOCK)).numpy()
        return rates


class WriteMetrics:
    """Hands every step's loss, accuracy and learning rate to the metric writer."""

    def __init__(self, writer: MetricWriter, schedule: Schedule) -> None:
        """`schedule` gives the learning rate of a step."""
        self._writer = writer
        self._rates = _Rates(schedule)

    def __call__(self, boundary: Boundary) -> None:
        """Writes the steps since the last boundary."""
        rates = self._rates(boundary.steps - 1)
        values = dict(boundary.values) | {"learning_rate": rates}
        self._writer.write_steps("train", boundary.steps, epoch=boundary.epoch, values=values)


class Validate:
    """Evaluates the validation split at the end of each epoch."""

    def __init__(
        self,
        evaluate: Callable[[], Evaluation],
        keep: Callable[[Evaluation], None],
        writer: MetricWriter,
        stopwatch: Stopwatch,
    ) -> None:
        """Prepares to evaluate.

        Args:
          evaluate: judges the validation split with the weights of the moment.
          keep: is given what it said of each example.
          writer: takes accuracy and loss.
          stopwatch: whose "evaluate" it counts for.
        """
        self._evaluate = evaluate
        self._keep = keep
        self._writer = writer
        self._stopwatch = stopwatch

    def __call__(self, boundary: Boundary) -> None:
        """Puts accuracy and loss into `progress.validation` and writes them."""
        if not boundary.epoch_ended:
            return
        with self._stopwatch.measure("evaluate"):
            evaluation = self._evaluate()
        progress = boundary.progress
        progress.validation = {"accuracy": evaluation.accuracy, "loss": evaluation.loss}
        self._writer.write("validation", progress.step, epoch=progress.epoch, values=progress.validation)
        self._keep(evaluation)


@dataclass(frozen=True)
class Due:
    """When a checkpoint is due beside the ends of the epochs.

    Attributes:
      steps: every so many steps; 0: not by steps.
      minutes: once so many minutes have passed since the last one; 0: not by time.
    """

    steps: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class Records:
    """Where a run's actions write.

    Attributes:
      store: the checkpoints.
      writer: the metrics.
      background: carries out what takes time.
      is_chief: whether this process writes; the others do all that takes every worker.
    """

    store: CheckpointStore
    writer: MetricWriter
    background: BackgroundWriter
    is_chief: bool = True


CHECKPOINT_JOB = "checkpoint"
"""The kind of job in the background that writes a checkpoint."""

_SETTLING_SECONDS = 1.0
"""Checkpoints that come faster are brought to the disk, read back and cleared away once in so long."""

_METRICS_JOB, _STATUS_JOB = "metrics", "status"


class SaveCheckpoint:
    """Saves the whole state: where an epoch ends, where the run stops, and in between as it is due.

    The state is taken at the boundary and written while training goes on. A checkpoint that is due while an earlier one
    is still being written waits for the next boundary, unless an epoch ends or the run stops there.
    """

    def __init__(
        self,
        records: Records,
        state: TrainingState,
        due: Due,
        fingerprints: tuple[str, str],
        best: Best | None,
        stopwatch: Stopwatch,
    ) -> None:
        """Prepares to save.

        Args:
          records: where to.
          state: what is saved.
          due: when, between the ends of the epochs.
          fingerprints: of the configuration and of the data.
          best: the best result so far, of the checkpoint that the run resumed from.
          stopwatch: is told how long training waits for it.
        """
        self._records = records
        self._state = state
        self._due = due
        self._fingerprints = fingerprints
        self.best = best
        self._stopwatch = stopwatch
        self._last_time: float | None = None
        self._last_settled = -math.inf

    def __call__(self, boundary: Boundary) -> None:
        """Saves where it is time.

        Raises:
          whatever writing an earlier one raised.
        """
        progress = boundary.progress
        if boundary.epoch_ended and progress.validation:
            found = Best(progress.step, progress.epoch, progress.validation["accuracy"], progress.validation["loss"])
            self.best = found if found.beats(self.best) else self.best
        if not self._is_time(boundary):
            return
        self._last_time = boundary.now
        with self._stopwatch.measure("checkpoint"):
            snapshot = self._state.snapshot()
            if self._records.is_chief:
                ends = boundary.epoch_ended or boundary.stops
                if ends:  # One more at most is in memory than is being written.
                    self._records.background.wait_for(CHECKPOINT_JOB)
                settled = ends or boundary.now - self._last_settled >= _SETTLING_SECONDS
                self._last_settled = boundary.now if settled else self._last_settled
                self._hand_over(self._position(progress), snapshot, settled)

    def _is_time(self, boundary: Boundary) -> bool:
        """Every worker comes to the same answer."""
        if self._last_time is None:
            self._last_time = boundary.now - boundary.seconds
        if boundary.epoch_ended or boundary.stops:
            return True
        if boundary.writing:
            return False
        steps, minutes = self._due.steps, self._due.minutes
        by_steps = bool(steps) and boundary.progress.step % steps == 0
        return by_steps or (bool(minutes) and boundary.now - self._last_time >= 60 * minutes)

    def _position(self, progress: Progress) -> Position:
        config_fingerprint, data_fingerprint = self._fingerprints
        return Position(
            step=progress.step,
            epoch=progress.epoch,
            sums=dict(progress.sums),
            counted=progress.counted,
            validation=dict(progress.validation),
            best=self.best,
            config_fingerprint=config_fingerprint,
            data_fingerprint=data_fingerprint,
            frozen_fingerprint=self._state.frozen_fingerprint,
        )

    def _hand_over(self, position: Position, snapshot: Mapping[str, tf.Tensor], settled: bool) -> None:
        store, background = self._records.store, self._records.background

        def write() -> None:
            checkpoint = Checkpoint(position, {name: tensor.numpy() for name, tensor in snapshot.items()})
            check_finite(checkpoint, store)
            store.save(checkpoint, settled=settled)

        background.append(_METRICS_JOB, self._records.writer.pending())
        background.append(CHECKPOINT_JOB, write)


def best_result(best: Best | None) -> BestResult | None:
    """What status.json says of the best checkpoint."""
    return BestResult(best.step, best.epoch, best.accuracy, best.loss) if best else None


class WriteStatus:
    """Brings status.json up to date, twice a second at most."""

    def __init__(
        self,
        status: Status,
        run: RunDirectory,
        save: SaveCheckpoint,
        stopwatch: Stopwatch,
        global_batch: int,
        records: Records,
    ) -> None:
        """Prepares to write.

        Args:
          status: what is written.
          run: where to.
          save: knows the best result.
          stopwatch: knows where the time went.
          global_batch: examples a step.
          records: whose metrics go to disk with it, for whoever looks at both.
        """
        self._status = status
        self._run = run
        self._save = save
        self._stopwatch = stopwatch
        self._global_batch = global_batch
        self._records = records
        self._seconds_between = _REMOTE_STATUS_SECONDS if run.is_remote else _STATUS_SECONDS
        self._examples = 0
        self._seconds = 0.0
        self._last_time = -math.inf

    def __call__(self, boundary: Boundary) -> None:
        """Updates and writes. The speed is a mean that leaves out the call that compiled."""
        if not boundary.compiled:
            self._examples += len(boundary.steps) * self._global_batch
            self._seconds += boundary.seconds
        progress = boundary.progress
        self._status.update(
            step=progress.step,
            epoch=progress.epoch,
            train=progress.train,
            validation=dict(progress.validation),
            best=best_result(self._save.best),
            examples_per_second=self._examples / self._seconds if self._seconds else None,
        )
        ends = boundary.epoch_ended or boundary.stops
        if ends or boundary.now - self._last_time >= self._seconds_between:
            self._last_time = boundary.now
            self._status.take_time(self._stopwatch.seconds())
            text = self._status.to_json()
            if not self._run.is_remote:  # There, more metrics are a new object with all of them.
                self._records.background.append(_METRICS_JOB, self._records.writer.pending())
            self._records.background.submit(_STATUS_JOB, lambda: self._run.write_text(STATUS_FILE, text))


class ShowProgress:
    """Tells the person how far the run is, and a line for each epoch."""

    def __init__(self, console: Console, status: Status, epochs: int, kind: ExampleKind) -> None:
        """`status` is brought up to date by `WriteStatus`, which stands before this; `kind` is of the examples."""
        self._console = console
        self._status = status
        self._epochs = epochs
        self._unit = "img" if kind == "image" else f"{kind}s"

    def __call__(self, boundary: Boundary) -> None:
        """Moves the bar; prints a line where an epoch ends."""
        progress = boundary.progress
        if boundary.epoch_ended:
            self._console.epoch_done(
                epoch=progress.epoch, epochs=self._epochs, train=progress.train, validation=progress.validation
            )
        self._console.progress(
            epoch=min(progress.epoch + 1, self._epochs),
            epochs=self._epochs,
            step=progress.step,
            steps_total=self._status.steps_total or progress.step,
            metrics=progress.train,
            examples_per_second=self._status.examples_per_second,
            unit=self._unit,
        )
        if boundary.finished:
            self._console.close()
