"""The training part of a run: the loop, and what happens at its boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from trainer.material import predictions_of
from trainer.preparation import build_step, training_input
from trainer.records.background import BackgroundWriter
from trainer.records.worker_states import WorkerStates
from trainer.records.writers import no_writers, open_writers
from trainer.session import Session
from trainer.stop_request import Preempted, StopRequest
from trainer.training.actions import (
    CHECKPOINT_JOB,
    Due,
    Records,
    SaveCheckpoint,
    ShowProgress,
    StopOnNonFinite,
    Validate,
    WriteMetrics,
    WriteStatus,
)
from trainer.training.evaluation import Evaluation, Evaluator
from trainer.training.faults import InjectFaults
from trainer.training.loop import Action, Boundary, Stops, TrainLoop
from trainer.training.stall import StallDetector
from trainer.training.state import TrainingState

if TYPE_CHECKING:
    from trainer.features.once import RunFeatures


_PREDICTIONS_JOB = "predictions"


def train(session: Session, evaluator: Evaluator, features: RunFeatures | None) -> int:
    """Trains from where the session stands to the last epoch; all is written when it returns or raises.

    Args:
      session: the run.
      evaluator: judges the validation split.
      features: of the images, computed before; None has the model look at the images.

    Returns:
      The step of the best checkpoint.

    Raises:
      Preempted: a worker was asked to stop; the state is saved.
      UserError: the loss or a weight is no number any more, or the place cannot be written.
    """
    prepared, built, progress, stopwatch = session.prepared, session.built, session.progress, session.stopwatch
    with stopwatch.measure("startup"):
        dataset = training_input(
            prepared, built.model, first_step=progress.step, last_step=prepared.steps_total, features=features
        )
        detector = _stall_detector(session)
        loop = TrainLoop(
            prepared.cluster,
            build_step(prepared, built),
            dataset,
            stopwatch,
            lambda: detector.watching("a training call"),
            lambda: session.console.waiting("compile", "the training step"),
        )
    with (
        # The outermost: what is being written at the end is not interrupted either.
        session.stop.at_boundaries(session.leave),
        open_writers(session.run, progress.step) if session.is_chief else no_writers() as writer,
        BackgroundWriter() as background,
        detector.running(),
    ):
        records = Records(session.store, writer, background, session.is_chief)
        save = _save_checkpoint(session, records)
        faults = _faults(session)
        actions: list[Action] = [faults, *_actions(session, records, save, evaluator, detector)]
        stops = Stops(prepared.epoch_ends, prepared.config.checkpoint_steps, faults.steps)
        outlook = _RunOutlook(session.stop, background)
        stopped = loop.run(progress, stops, prepared.config.steps_per_loop, actions, outlook)
    if stopped:
        prepared.cluster.barrier()  # A worker that left earlier would look like one that was lost.
        raise Preempted(session.stop.reason or "another worker was asked to stop")
    return save.best.step if save.best else progress.step


class _RunOutlook:
    """What this worker's loop has to know; see `trainer.training.loop.Outlook`."""

    def __init__(self, stop: StopRequest, background: BackgroundWriter) -> None:
        self._stop = stop
        self._background = background

    def stops(self) -> bool:
        return bool(self._stop.reason)

    def writing(self) -> bool:
        return self._background.busy(CHECKPOINT_JOB)


def _actions(
    session: Session, records: Records, save: SaveCheckpoint, evaluator: Evaluator, detector: StallDetector
) -> Iterator[Action]:
    """What happens at each boundary, in order."""
    prepared, built = session.prepared, session.built
    validation = prepared.splits.validation

    def validate() -> Evaluation:
        with built.optimizer.averages.in_place(), detector.watching("a validation"):
            return evaluator(validation, partial(session.console.work, "validation"))

    def keep(evaluation: Evaluation) -> None:
        if records.is_chief:
            records.background.submit(
                _PREDICTIONS_JOB, lambda: predictions_of(evaluation, prepared.source).write(session.run, "validation")
            )

    def look_around(boundary: Boundary) -> None:
        detector.step = boundary.progress.step
        session.check_lease()

    yield look_around
    yield StopOnNonFinite(records.store)
    yield WriteMetrics(records.writer, built.optimizer.schedule)
    if len(validation):
        yield Validate(validate, keep, records.writer, session.stopwatch)
    yield save
    if records.is_chief:
        batch = prepared.config.batch_size
        yield WriteStatus(session.status, session.run, save, session.stopwatch, batch, records)
        yield ShowProgress(session.console, session.status, prepared.config.epochs, built.model.model_input.kind)


def _save_checkpoint(session: Session, records: Records) -> SaveCheckpoint:
    config, status = session.prepared.config, session.status
    return SaveCheckpoint(
        records,
        TrainingState(session.built.model, session.built.optimizer),
        Due(config.checkpoint_steps, config.checkpoint_minutes),
        (status.config_fingerprint, status.data_fingerprint),
        session.best,
        session.stopwatch,
    )


def _faults(session: Session) -> InjectFaults:
    """Each happens once, however often the run starts again: otherwise it would never get past one."""
    faults = session.prepared.config.faults if session.first_start else []
    return InjectFaults(faults, session.prepared.cluster, session.built.model)


def _stall_detector(session: Session) -> StallDetector:
    cluster = session.prepared.cluster
    return StallDetector(
        session.prepared.config.stall_minutes,
        WorkerStates(session.run, cluster.worker_index, cluster.workers),
        lambda sentence: session.note_ending("failed", sentence),
    )
