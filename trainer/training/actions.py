"""What happens at a boundary: actions that `TrainLoop.run` calls in the order in which they are listed.

An action is a callable that takes a `Boundary`. It may read and write `boundary.progress`, and it may raise to end
the run: `StopOnNonFinite` stands first so that nothing behind it saves weights that are no numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.model.classifier import Classifier
from trainer.model.optimizer import Optimizer, Schedule
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.records.status import BestResult, Status
from trainer.records.writers import MetricWriter
from trainer.storage import RunDirectory
from trainer.training.checkpoint import Best, CheckpointStore, Position
from trainer.training.evaluation import Evaluation
from trainer.training.loop import Boundary


class StopOnNonFinite:
    """Ends the run when a loss or a weight is NaN or infinite, before anything of it is saved."""

    def __init__(self, store: CheckpointStore, model: Classifier) -> None:
        """`store` tells which checkpoint is the last good one; `model` is looked at before it is saved."""
        self._store = store
        self._model = model

    def __call__(self, boundary: Boundary) -> None:
        """Looks at the loss of every step since the last boundary, and at the weights where an epoch ends.

        The loss of a step is that of the weights before its update, so the last update shows in the weights alone.

        Raises:
          UserError: naming the first step whose loss is not finite, and the checkpoint that is kept.
        """
        bad = ~np.isfinite(boundary.values["loss"])
        if bad.any():
            first = int(np.argmax(bad))
            raise self._error(f"The loss became {boundary.values['loss'][first]} at step {boundary.steps[first]}")
        if boundary.epoch_ended:
            for variable in self._model.trainable_variables + self._model.backbone.moving_statistics:
                if not tf.reduce_all(tf.math.is_finite(variable.value)):
                    raise self._error(f"{variable.path} is no longer finite after step {boundary.progress.step}")

    def _error(self, what: str) -> UserError:
        steps = self._store.steps()
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
        return UserError(f"{what}; {kept}. Lower --learning_rate, or give --warmup or --clip_norm.")


_ALIGNMENT = 64
"""Steps. A processor computes vectors in packets of up to so many numbers, and what is left over one by one."""


def _rates(schedule: Schedule, steps: NDArray[np.int64]) -> NDArray[np.float32]:
    """The rates of consecutive steps, ascending from 0 or later.

    The same step gets the same rate, to the last bit, whichever others are asked about with it: how many those are
    depends on the clock, and a cosine left over from the packets may differ from one in them.
    """
    first, end = int(steps[0]) // _ALIGNMENT * _ALIGNMENT, -(-int(steps[-1] + 1) // _ALIGNMENT) * _ALIGNMENT
    rates: NDArray[np.float32] = schedule(np.arange(first, end)).numpy()
    return rates[steps - first]


class WriteMetrics:
    """Hands every step's loss, accuracy and learning rate to the metric writer."""

    def __init__(self, writer: MetricWriter, schedule: Schedule) -> None:
        """`schedule` gives the learning rate of a step."""
        self._writer = writer
        self._schedule = schedule

    def __call__(self, boundary: Boundary) -> None:
        """Writes the steps since the last boundary; flushes at the end of an epoch."""
        rates = _rates(self._schedule, boundary.steps - 1)
        values = dict(boundary.values) | {"learning_rate": rates}
        self._writer.write_steps("train", boundary.steps, epoch=boundary.epoch, values=values)
        if boundary.epoch_ended:
            self._writer.flush()


class Validate:
    """Evaluates the validation split at the end of each epoch."""

    def __init__(self, evaluate: Callable[[], Evaluation], writer: MetricWriter, stopwatch: Stopwatch) -> None:
        """`evaluate` judges the validation split with the weights of the moment."""
        self._evaluate = evaluate
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
        self._writer.flush()


class SaveCheckpoint:
    """Saves the whole state at the end of each epoch, and keeps track of the best one."""

    def __init__(
        self,
        store: CheckpointStore,
        model: Classifier,
        optimizer: Optimizer,
        fingerprints: tuple[str, str],
        best: Best | None,
        stopwatch: Stopwatch,
    ) -> None:
        """Prepares to save.

        Args:
          store: where to.
          model: its weights are saved.
          optimizer: its state is saved.
          fingerprints: of the configuration and of the data.
          best: the best result so far, of the checkpoint that the run resumed from.
          stopwatch: is told how long saving takes.
        """
        self._store = store
        self._model = model
        self._optimizer = optimizer
        self._fingerprints = fingerprints
        self.best = best
        self._stopwatch = stopwatch

    def __call__(self, boundary: Boundary) -> None:
        """Saves where an epoch ends."""
        if not boundary.epoch_ended:
            return
        progress = boundary.progress
        if progress.validation:
            found = Best(progress.step, progress.epoch, progress.validation["accuracy"], progress.validation["loss"])
            self.best = found if found.beats(self.best) else self.best
        config_fingerprint, data_fingerprint = self._fingerprints
        position = Position(
            step=progress.step,
            epoch=progress.epoch,
            train=dict(progress.train),
            validation=dict(progress.validation),
            best=self.best,
            config_fingerprint=config_fingerprint,
            data_fingerprint=data_fingerprint,
        )
        with self._stopwatch.measure("checkpoint"):
            self._store.save(position, self._model, self._optimizer)


def best_result(best: Best | None) -> BestResult | None:
    """What status.json says of the best checkpoint."""
    return BestResult(best.step, best.epoch, best.accuracy, best.loss) if best else None


class WriteStatus:
    """Brings status.json up to date at every boundary."""

    def __init__(
        self, status: Status, run: RunDirectory, save: SaveCheckpoint, stopwatch: Stopwatch, global_batch: int
    ) -> None:
        """Prepares to write.

        Args:
          status: what is written.
          run: where to.
          save: knows the best result.
          stopwatch: knows where the time went.
          global_batch: images a step.
        """
        self._status = status
        self._run = run
        self._save = save
        self._stopwatch = stopwatch
        self._global_batch = global_batch
        self._images = 0
        self._seconds = 0.0

    def __call__(self, boundary: Boundary) -> None:
        """Updates and writes. The speed is a mean that leaves out the call that compiled."""
        if not boundary.compiled:
            self._images += len(boundary.steps) * self._global_batch
            self._seconds += boundary.seconds
        progress = boundary.progress
        self._status.update(
            step=progress.step,
            epoch=progress.epoch,
            train=dict(progress.train),
            validation=dict(progress.validation),
            best=best_result(self._save.best),
            images_per_second=self._images / self._seconds if self._seconds else None,
            seconds=self._stopwatch.seconds(),
        )
        self._status.write(self._run)


class ShowProgress:
    """Tells the person how far the run is, and a line for each epoch."""

    def __init__(self, console: Console, status: Status, epochs: int) -> None:
        """`status` is brought up to date by `WriteStatus`, which stands before this."""
        self._console = console
        self._status = status
        self._epochs = epochs

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
            images_per_second=self._status.images_per_second,
        )
        if boundary.finished:
            self._console.close()
