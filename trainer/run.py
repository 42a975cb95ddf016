"""The story of one run, from a Config to an exported model, readable from top to bottom.

    prepare    devices, images, splits
    build      model, optimizer, where to start
    features   of a frozen backbone, once
    train      steps, and actions at their boundaries
    conclude   test the best checkpoint, export it

Nothing is written before the first two have passed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trainer.agreement import check_agreement, check_shared, come_together
from trainer.cluster import connect
from trainer.config import Config
from trainer.data.bad_images import naming_bad_images
from trainer.data.decoded_cache import decode_all
from trainer.data.file_source import FileSource
from trainer.data.images import ImageInput
from trainer.data.source import Source
from trainer.describe import describe, list_variables, say_next_steps, say_result
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.export.publish import is_published, publish, require_accuracy
from trainer.export.tflite import check_convertible
from trainer.fitting_batch import (
    naming_fitting_batch,
    naming_full_memory,
    with_batch_size_of_run,
    with_fitting_batch_size,
)
from trainer.lease import Lease
from trainer.material import facts_of, predictions_of, shown_examples
from trainer.preparation import Built, Prepared, build, features_once, prepare
from trainer.records.console import Console
from trainer.records.examples import write_examples
from trainer.records.goodput import Attempt, Stopwatch
from trainer.records.predictions import Split
from trainer.records.status import Status, TestResult, earlier_attempts
from trainer.run_dir import begin_writing, check_apart
from trainer.session import Session
from trainer.stop_request import StopRequest
from trainer.storage import RunDirectory
from trainer.train import train
from trainer.training.actions import best_result
from trainer.training.checkpoint import Best, Checkpoint
from trainer.training.evaluation import Evaluator
from trainer.training.loop import Progress
from trainer.training.resume import CONFIG_FILE, Start, choose_start, with_layout_of_run
from trainer.training.state import TrainingState, restore_weights
from trainer.watch import watch
from trainer.wording import first_line

if TYPE_CHECKING:
    from trainer.features.once import RunFeatures


def execute(
    config: Config,
    *,
    dry_run: bool = False,
    quiet: bool = False,
    stopwatch: Stopwatch | None = None,
    stop: StopRequest | None = None,
    lease: Lease | None = None,
) -> int:
    """Does what the configuration says.

    Args:
      config: the run.
      dry_run: print the resolved configuration and the plan; write and train nothing.
      quiet: print warnings and errors only.
      stopwatch: one that has run since the process began; by default the time counts from here.
      stop: asked whether the run is to stop for now; by default it is not.
      lease: of the run directory (`trainer.run_dir.take_run_dir`), held until this returns; without one, the caller
        knows that nobody else writes there.

    Returns:
      `EXIT_DONE`, or `EXIT_PREEMPTED` where the run was interrupted and can go on.

    Raises:
      UserError: something is there that the user must change; `status.json` says it too once the run had begun.
    """
    stopwatch = stopwatch or Stopwatch()
    console = Console(quiet=quiet)
    with stopwatch.measure("startup"):
        topology, run_dir = come_together(config, os.environ, console, lease)
        config = with_layout_of_run(config, run_dir, console.warning)
        run = RunDirectory(run_dir, layout=config.run_dir_layout)
        if topology and not topology.trains:
            return watch(config, run, topology, console)
        cluster = connect(config, topology)
        if not cluster.is_chief:
            console.entry("devices", cluster.description)
            console = Console(quiet=True)  # The chief tells the rest.
        prepared = prepare(config, cluster, console)
        _check_places(config, run, prepared.source)
        data_fingerprint = prepared.source.fingerprint()
        prepared = with_batch_size_of_run(prepared, run, console)
        start = choose_start(prepared.config, run, data_fingerprint, console.warning)
        if start.finished and is_published(config, run):
            console.note(f"{run.path} is done: what it left there stands. Another --run_dir starts anew.")
            return EXIT_DONE
        check_agreement(cluster, data_fingerprint, start.step)
        prepared = with_fitting_batch_size(prepared, console)
        with console.waiting("model", "is built"):
            built = build(prepared)
        if config.exports_tflite:
            check_convertible(prepared, built)
        progress, best = _restore(start, prepared, built)
        if dry_run:
            console.note(prepared.config.to_json().rstrip())
            list_variables(built, console)
            describe(prepared, built, progress, console)
            return EXIT_DONE
        prepared = _with_decoded_images(prepared, built, console)
        status = _first_status(prepared, run, data_fingerprint, progress, best)
        # As the chief sees it: when another worker looks, status.json may tell of this start already.
        first_start = bool(cluster.gather(np.array([len(status.attempts)]))[0, 0] == 1)
        stop = stop or StopRequest()
        session = Session(prepared, built, progress, best, run, status, stopwatch, console, stop, first_start, lease)
        _begin(session)
    return _carry_out(session)


def _with_decoded_images(prepared: Prepared, built: Built, console: Console) -> Prepared:
    """The same with the images in memory, where `--cache_decoded` asks for it and they will be looked at."""
    if not prepared.config.cache_decoded or prepared.config.keeps_features:
        return prepared
    image_input = built.model.model_input
    assert isinstance(image_input, ImageInput)  # `Config` does not allow it with texts.
    return dataclasses.replace(prepared, source=decode_all(prepared.source, image_input, console.note))


def _begin(session: Session) -> None:
    """Writes the first things into the run directory, and makes sure that every worker sees them."""
    if session.is_chief:
        if session.lease:
            begin_writing(session.lease, session.run)
        session.run.write_text(CONFIG_FILE, session.prepared.config.to_json())
        facts_of(session.prepared, session.built).write(session.run)
        session.status.write(session.run)
    check_shared(session.prepared.cluster, session.run, CONFIG_FILE)


def _first_status(
    prepared: Prepared, run: RunDirectory, data_fingerprint: str, progress: Progress, best: Best | None
) -> Status:
    """What status.json says before the first step of this start."""
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Status(
        step=progress.step,
        epoch=progress.epoch,
        steps_total=prepared.steps_total,
        train=progress.train,
        validation=progress.validation,
        best=best_result(best),
        attempts=[*earlier_attempts(run, progress.step), Attempt(began, progress.step, progress.step)],
        config_fingerprint=prepared.config.fingerprint(),
        data_fingerprint=data_fingerprint,
        skipped_images=prepared.source.skipped,
    )


def _carry_out(session: Session) -> int:
    """Tells the story, and notes how it ended."""
    try:
        with naming_full_memory(), contextlib.closing(session.console):
            _tell_the_story(session)
    except KeyboardInterrupt as interruption:
        return _note_interruption(session, str(interruption))
    except Exception as error:
        if _hides_an_interruption(error):
            return _note_interruption(session, session.stop.reason)
        if session.prepared.cluster.lost_worker(error):
            session.note_ending("preempted", "another worker was lost")
            session.console.warning("Another worker was lost. Start all again: they go on from the last checkpoint.")
            return EXIT_PREEMPTED
        session.status.take_time(session.stopwatch.seconds())
        session.note_ending("failed", _cause(error))
        raise
    return EXIT_DONE


def _cause(error: Exception) -> str:
    """What status.json says of the error that ended the run, and what to do about it."""
    if isinstance(error, UserError):
        return str(error)
    return (
        f"{type(error).__name__}: {first_line(error)} This is a bug or a fault of the machine: standard error has the "
        "traceback, and the same command goes on from the last checkpoint."
    )


def _note_interruption(session: Session, reason: str) -> int:
    reason = reason or "interrupted from the keyboard"
    session.status.take_time(session.stopwatch.seconds())
    session.note_ending("preempted", reason)
    session.console.warning(
        f"{reason[0].upper()}{reason[1:]}. The same command with --run_dir={session.run.path} goes on from the last "
        "checkpoint."
    )
    return EXIT_PREEMPTED


def _hides_an_interruption(error: Exception) -> bool:
    """Whether a Ctrl-C came just while TensorFlow raised another error; pybind11 (TensorFlow 2.21) words it so."""
    return (
        isinstance(error, RuntimeError)
        and re.search("REPLACED BY (KeyboardInterrupt|Preempted)", str(error)) is not None
    )


def _tell_the_story(session: Session) -> None:
    prepared, built, cluster = session.prepared, session.built, session.prepared.cluster
    with session.stopwatch.measure("startup"):
        describe(prepared, built, session.progress, session.console)
        session.console.entry("run", session.run.path)
    with naming_bad_images(prepared.source, session.console.note):
        with session.stopwatch.measure("features"):
            features = features_once(prepared, built.model, session.console)
        with naming_fitting_batch(prepared, built):
            best = _train_and_test(session, features)
    require_accuracy(session, best)
    if session.is_chief:
        session.check_lease()
        if prepared.config.export:
            waiting = session.console.waiting("export", "the model is saved and compared")
            with session.stopwatch.measure("export"), waiting:
                publish(session, best)
            session.check_lease()
        session.status.update(state="done")
        session.status.take_time(session.stopwatch.seconds())
        session.status.write(session.run)
        say_result(prepared, session.status, session.console)
        if prepared.config.report:
            make_report(session.run, session.console)
        say_next_steps(prepared, session.console)
    cluster.barrier()  # A worker that left earlier would look like one that was lost.


def make_report(run: RunDirectory, console: Console) -> None:
    """Makes the page of a run that is done, and says where it is."""
    from trainer.report.write import write_report  # Here, because it imports Matplotlib.

    console.entry("report", write_report(run, run, f"{datetime.now():%Y-%m-%d %H:%M}"))


def _judge(session: Session, evaluator: Evaluator, best: Checkpoint) -> None:
    """Tests the best checkpoint, on the validation split where no other is held out, and keeps what it said."""
    source, splits = session.prepared.source, session.prepared.splits
    split: Split = "test" if len(splits.test) else "validation"
    indices = splits.test if len(splits.test) else splits.validation
    if not len(indices):
        return
    with session.stopwatch.measure("evaluate"):
        restore_weights(best, session.built.model)
        found = evaluator(indices, partial(session.console.work, split))
        session.console.close()
        if split == "test":
            session.status.update(test=TestResult(found.accuracy, found.loss, found.examples))
        if session.is_chief:
            predictions_of(found, source).write(session.run, split)
            write_examples(session.run, shown_examples(found, source, session.built.model.model_input))


def _train_and_test(session: Session, features: RunFeatures | None) -> Checkpoint:
    """Gives the best checkpoint, which was judged."""
    prepared = session.prepared
    evaluator = Evaluator(prepared.cluster, session.built.model, prepared.source, prepared.config.batch_size, features)
    best_step = train(session, evaluator, features)
    prepared.cluster.barrier()  # The chief may still be writing the last checkpoint.
    best = session.store.load(best_step)
    _judge(session, evaluator, best)
    return best


def _restore(start: Start, prepared: Prepared, built: Built) -> tuple[Progress, Best | None]:
    """Puts the state of the starting checkpoint into model and optimizer; gives where the run stands."""
    if start.checkpoint is None:
        return Progress(step=0, epoch=0), None
    position = start.checkpoint.position
    if not start.own and position.step >= prepared.steps_total:
        raise UserError(
            f"--resume={prepared.config.resume} has done {position.step} steps and this run has "
            f"{prepared.steps_total}: give more --epochs."
        )
    TrainingState(built.model, built.optimizer).restore(start.checkpoint)
    if start.own:
        progress = Progress(position.step, position.epoch, position.validation, dict(position.sums), position.counted)
        return progress, position.best
    # Another run's epochs may have other lengths, and its best may have been chosen by other images.
    epoch = sum(end <= position.step for end in prepared.epoch_ends)
    return Progress(position.step, epoch, position.validation), None


def _check_places(config: Config, run: RunDirectory, source: Source) -> None:
    """Refuses to write among the images."""
    _check_apart(run.path, "--run_dir", source)
    if config.keeps_features and config.feature_cache != "auto":
        _check_apart(RunDirectory(config.feature_cache, "--feature_cache").path, "--feature_cache", source)


def _check_apart(folder: str, flag: str, source: Source) -> None:
    """Refuses to write among the class folders, where the next run would take what it finds for a class."""
    if isinstance(source, FileSource):
        check_apart(folder, flag, source.root, source.name)
