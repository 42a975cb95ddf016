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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainer.agreement import check_agreement, check_shared, come_together
from trainer.cluster import connect
from trainer.config import Config
from trainer.data.bad_images import naming_bad_images
from trainer.data.decoded_cache import decode_all
from trainer.data.file_source import FileSource
from trainer.data.source import Source
from trainer.describe import describe, list_variables, say_result
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.export import FOLDER as EXPORT_FOLDER
from trainer.export import export_model
from trainer.lease import Lease
from trainer.model.endpoint import first_line
from trainer.preparation import (
    Built,
    Prepared,
    build,
    build_step,
    features_once,
    prepare,
    publishable,
    training_input,
)
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.records.status import State, Status, TestResult
from trainer.records.writers import no_writers, open_writers
from trainer.run_dir import begin_writing, check_apart
from trainer.storage import RunDirectory
from trainer.training.actions import (
    SaveCheckpoint,
    ShowProgress,
    StopOnNonFinite,
    Validate,
    WriteMetrics,
    WriteStatus,
    best_result,
)
from trainer.training.checkpoint import Best, CheckpointStore
from trainer.training.evaluation import Evaluation, Evaluator
from trainer.training.loop import Action, Progress, TrainLoop
from trainer.training.resume import CONFIG_FILE, Start, choose_start
from trainer.watch import watch

if TYPE_CHECKING:
    from trainer.features.once import RunFeatures

PROBE_IMAGES = 8
"""How many images the parity gate asks about."""


@dataclass(frozen=True)
class Session:
    """A run that has begun: what it does, where it leaves it, and who is told.

    Attributes:
      prepared: devices, images, splits.
      built: model and optimizer, with the state of the checkpoint that the run goes on from.
      progress: where the run stands.
      best: the best of its checkpoints so far.
      run: the run directory.
      status: what status.json will say.
      stopwatch: where the time goes.
      console: the person's view.
      lease: of the run directory; None in a process that does not write there, or alone knows of it.
    """

    prepared: Prepared
    built: Built
    progress: Progress
    best: Best | None
    run: RunDirectory
    status: Status
    stopwatch: Stopwatch
    console: Console
    lease: Lease | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.prepared.cluster.is_chief

    def check_lease(self) -> None:
        """Raises UserError where another run has taken the run directory over."""
        if self.lease:
            self.lease.check()


def execute(
    config: Config,
    *,
    dry_run: bool = False,
    quiet: bool = False,
    stopwatch: Stopwatch | None = None,
    lease: Lease | None = None,
) -> int:
    """Does what the configuration says.

    Args:
      config: the run.
      dry_run: print the resolved configuration and the plan; write and train nothing.
      quiet: print warnings and errors only.
      stopwatch: one that has run since the process began; by default the time counts from here.
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
        run = RunDirectory(run_dir)
        if topology and not topology.trains:
            return watch(config, run, topology, console)
        cluster = connect(config, topology)
        if not cluster.is_chief:
            console.entry("devices", cluster.description)
            console = Console(quiet=True)  # The chief tells the rest.
        prepared = prepare(config, cluster, console)
        _check_apart(run.path, "--run_dir", prepared.source)
        if config.keeps_features and config.feature_cache != "auto":
            _check_apart(RunDirectory(config.feature_cache, "--feature_cache").path, "--feature_cache", prepared.source)
        data_fingerprint = prepared.source.fingerprint()
        start = choose_start(config, run, data_fingerprint)
        if start.finished and (run.exists(EXPORT_FOLDER) or not config.export):
            console.note(f"{run.path} is done: what it left there stands. Another --run_dir starts anew.")
            return EXIT_DONE
        check_agreement(cluster, data_fingerprint, start.position.step if start.position else 0)
        built = build(prepared)
        progress, best = _restore(start, run, prepared, built)
        if dry_run:
            console.note(config.to_json().rstrip())
            list_variables(built, console)
            describe(prepared, built, progress, console)
            return EXIT_DONE
        if config.cache_decoded and not config.keeps_features:
            decoded = decode_all(prepared.source, built.model.image_input, console.note)
            prepared = dataclasses.replace(prepared, source=decoded)
        status = Status(config_fingerprint=config.fingerprint(), data_fingerprint=data_fingerprint)
        status.update(steps_total=prepared.steps_total, skipped_images=prepared.source.skipped)
        status.update(**dataclasses.asdict(progress), best=best_result(best))
        session = Session(prepared, built, progress, best, run, status, stopwatch, console, lease)
        if session.is_chief:
            if lease:
                begin_writing(lease, run)
            run.write_text(CONFIG_FILE, config.to_json())
            status.write(run)
        check_shared(cluster, run, CONFIG_FILE)
    return _carry_out(session)


def _carry_out(session: Session) -> int:
    """Tells the story, and notes how it ended."""
    try:
        with _naming_full_memory(), contextlib.closing(session.console):
            _tell_the_story(session)
    except KeyboardInterrupt:
        return _note_interruption(session)
    except Exception as error:
        if _hides_an_interruption(error):
            return _note_interruption(session)
        if session.prepared.cluster.lost_worker(error):
            _write_ending(session, "preempted", "another worker was lost")
            session.console.warning("Another worker was lost. Start all again: they go on from the last checkpoint.")
            return EXIT_PREEMPTED
        _write_ending(session, "failed", str(error) or type(error).__name__)
        raise
    return EXIT_DONE


def _note_interruption(session: Session) -> int:
    _write_ending(session, "preempted", "interrupted from the keyboard")
    session.console.warning(
        f"Interrupted. The same command with --run_dir={session.run.path} goes on from the last checkpoint."
    )
    return EXIT_PREEMPTED


def _hides_an_interruption(error: Exception) -> bool:
    """Whether a Ctrl-C came just while TensorFlow raised another error; pybind11 (TensorFlow 2.21) words it so."""
    return isinstance(error, RuntimeError) and "REPLACED BY KeyboardInterrupt" in str(error)


def _tell_the_story(session: Session) -> None:
    prepared, built, source, splits = session.prepared, session.built, session.prepared.source, session.prepared.splits
    cluster = prepared.cluster
    with session.stopwatch.measure("startup"):
        describe(prepared, built, session.progress, session.console)
        session.console.entry("run", session.run.path)
    with naming_bad_images(source, session.console.note):
        with session.stopwatch.measure("features"):
            features = features_once(prepared, built.model, session.console)
        evaluator = Evaluator(cluster, built.model, source, prepared.config.batch_size, features)
        best_step = _train(session, evaluator, features)
        store = CheckpointStore(session.run)
        cluster.barrier()  # The chief may still be writing the last checkpoint.
        if len(splits.test):
            with session.stopwatch.measure("evaluate"):
                store.restore(best_step, built.model, averages=built.optimizer.averages)
                built.optimizer.averages.put_in_place()
                test = evaluator(splits.test)
                session.status.update(test=TestResult(test.accuracy, test.loss, test.examples))
    if session.is_chief:
        session.check_lease()
        if prepared.config.export:
            with session.stopwatch.measure("export"):
                session.status.update(export=_export(session, store, best_step))
            session.check_lease()
        session.status.update(state="done", seconds=session.stopwatch.seconds())
        session.status.write(session.run)
        say_result(prepared, session.status, session.console)
    cluster.barrier()  # A worker that left earlier would look like one that was lost.


def _export(session: Session, store: CheckpointStore, step: int) -> str:
    """Publishes a checkpoint; gives the path."""
    prepared = session.prepared
    model, averages = publishable(prepared, session.built)
    store.restore(step, model, averages=averages)
    averages.put_in_place()
    return export_model(model, prepared.source.class_names, _probe_images(prepared), session.run)


def _train(session: Session, evaluator: Evaluator, features: RunFeatures | None) -> int:
    """Trains from the start to the last epoch; gives the step of the best checkpoint."""
    prepared, built, progress, stopwatch = session.prepared, session.built, session.progress, session.stopwatch
    averages, validation = built.optimizer.averages, prepared.splits.validation
    store = CheckpointStore(session.run, writes=session.is_chief)
    with stopwatch.measure("startup"):
        dataset = training_input(
            prepared, built.model, first_step=progress.step, last_step=prepared.steps_total, features=features
        )
        loop = TrainLoop(prepared.cluster, build_step(prepared, built), dataset, stopwatch)

    def validate() -> Evaluation:
        with averages.in_place():
            return evaluator(validation)

    with open_writers(session.run, progress.step) if session.is_chief else no_writers() as writer:
        fingerprints = (session.status.config_fingerprint, session.status.data_fingerprint)
        save = SaveCheckpoint(store, built.model, built.optimizer, fingerprints, session.best, stopwatch)
        actions: list[Action] = [StopOnNonFinite(store, built.model), WriteMetrics(writer, built.optimizer.schedule)]
        if len(validation):
            actions.append(Validate(validate, writer, stopwatch))
        actions.append(save)
        if session.is_chief:
            actions.append(WriteStatus(session.status, session.run, save, stopwatch, prepared.config.batch_size))
            actions.append(ShowProgress(session.console, session.status, prepared.config.epochs))
        loop.run(progress, prepared.epoch_ends, prepared.config.steps_per_loop, actions)
    return save.best.step if save.best else progress.step


def _restore(start: Start, run: RunDirectory, prepared: Prepared, built: Built) -> tuple[Progress, Best | None]:
    """Puts the state of the starting checkpoint into model and optimizer; gives where the run stands."""
    position = start.position
    if position is None:
        return Progress(step=0, epoch=0), None
    own = start.store.belongs_to(run)
    if not own and position.step >= prepared.steps_total:
        raise UserError(
            f"--resume={prepared.config.resume} has done {position.step} steps and this run has "
            f"{prepared.steps_total}: give more --epochs."
        )
    start.store.restore(position.step, built.model, built.optimizer)
    progress = Progress(position.step, position.epoch, position.train, position.validation)
    # Only this run's own checkpoints can be its best: another run's may have been chosen by other images.
    return progress, position.best if own else None


def _check_apart(folder: str, flag: str, source: Source) -> None:
    """Refuses to write among the class folders, where the next run would take what it finds for a class."""
    if isinstance(source, FileSource):
        check_apart(folder, flag, source.root, source.name)


@contextlib.contextmanager
def _naming_full_memory() -> Iterator[None]:
    """Says what needs less memory when a device has no more.

    Raises:
      UserError: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        allocation = re.search(r"OOM when .+", str(error))
        reason = allocation[0] if allocation else first_line(error)
        raise UserError(
            f"There is not enough memory ({reason}): a smaller --batch_size or --image_size needs less."
        ) from error


def _probe_images(prepared: Prepared) -> list[bytes]:
    """Some training images, spread over the classes' names, as a client would send them."""
    source = prepared.source
    places = np.linspace(0, len(prepared.train) - 1, PROBE_IMAGES).astype(int)
    return [source.encoded(int(index)) for index in prepared.train[np.unique(places)]]


def _write_ending(session: Session, state: State, error: str) -> None:
    """Notes how the run ended; where even that cannot be written, the error that ended the run is the news."""
    session.status.update(state=state, error=error)
    lost = session.lease.lost if session.lease else None  # Then the file is another run's.
    if session.is_chief and not lost:
        with contextlib.suppress(UserError):
            session.status.write(session.run)
