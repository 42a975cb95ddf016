"""The story of one run, from a Config to an exported model, readable from top to bottom.

    prepare    devices, images, splits
    build      model, optimizer, where to start
    train      steps, and actions at their boundaries
    conclude   test the best checkpoint, export it

Nothing is written before the first two have passed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.data.bad_images import naming_bad_images
from trainer.data.pipeline import Share, first_step_of_epoch, training_batches, training_steps
from trainer.data.sources import FileSource, Source, open_source
from trainer.data.splits import Splits, limit_per_class, split_examples
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.export import FOLDER as EXPORT_FOLDER
from trainer.export import export_model
from trainer.model.backbone import build_backbone
from trainer.model.classifier import Classifier
from trainer.model.endpoint import first_line
from trainer.model.optimizer import Optimizer, build_schedule
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.records.status import State, Status, TestResult
from trainer.records.writers import open_writers
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
from trainer.training.evaluation import Evaluator
from trainer.training.loop import Action, Progress, TrainLoop
from trainer.training.resume import CONFIG_FILE, Start, choose_start
from trainer.training.step import TrainStep

PROBE_IMAGES = 8
"""How many images the parity gate asks about."""

SAMPLE_NOTE = """\
This was the built-in sample. With your own images, in one
folder a class, and a pretrained module:
  python -m trainer.task --data=folder:PHOTOS \\
    --backbone=HANDLE
HANDLE is a folder, gs:// or https://, such as
https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5
--dry_run shows the plan, --train_backbone fine-tunes,
--help has all flags."""


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model is built.

    Attributes:
      config: the run.
      cluster: where it computes.
      source: the images.
      splits: which of them are for what.
      train: int64, the training images: `splits.train`, or `--examples_per_class` of them.
    """

    config: Config
    cluster: Cluster
    source: Source
    splits: Splits
    train: NDArray

    @property
    def epoch_ends(self) -> list[int]:
        """For each epoch, how many steps are done when it ends."""
        examples, batch = len(self.train), self.config.batch_size
        return [first_step_of_epoch(epoch, examples, batch) for epoch in range(1, self.config.epochs + 1)]

    @property
    def steps_total(self) -> int:
        """Steps of the whole run."""
        return training_steps(len(self.train), self.config.batch_size, self.config.epochs)


@dataclass(frozen=True)
class Built:
    """The model and what moves it, created in the strategy's scope."""

    model: Classifier
    optimizer: Optimizer


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
    """

    prepared: Prepared
    built: Built
    progress: Progress
    best: Best | None
    run: RunDirectory
    status: Status
    stopwatch: Stopwatch
    console: Console


def execute(config: Config, *, dry_run: bool = False, quiet: bool = False, stopwatch: Stopwatch | None = None) -> int:
    """Does what the configuration says.

    Args:
      config: the run.
      dry_run: print the resolved configuration and the plan; write and train nothing.
      quiet: print warnings and errors only.
      stopwatch: one that has run since the process began; by default the time counts from here.

    Returns:
      `EXIT_DONE`, or `EXIT_PREEMPTED` where the run was interrupted and can go on.

    Raises:
      UserError: something is there that the user must change; `status.json` says it too once the run had begun.
    """
    stopwatch = stopwatch or Stopwatch()
    console = Console(quiet=quiet)
    with stopwatch.measure("startup"):
        prepared = prepare(config, console)
        run = RunDirectory(config.run_dir or _new_run_dir(config))
        _check_apart(run, prepared.source)
        data_fingerprint = prepared.source.fingerprint()
        start = choose_start(config, run, data_fingerprint)
        if start.finished and run.exists(EXPORT_FOLDER):
            console.note(f"{run.path} is done: its status.json and export/ stand. Another --run_dir starts anew.")
            return EXIT_DONE
        built = build(prepared)
        progress, best = _restore(start, run, prepared, built)
        if dry_run:
            console.note(config.to_json().rstrip())
            describe(prepared, built.model, progress, console)
            return EXIT_DONE
        status = Status(config_fingerprint=config.fingerprint(), data_fingerprint=data_fingerprint)
        status.update(steps_total=prepared.steps_total, skipped_images=prepared.source.skipped)
        status.update(**dataclasses.asdict(progress), best=best_result(best))
        run.write_text(CONFIG_FILE, config.to_json())
        status.write(run)
    session = Session(prepared, built, progress, best, run, status, stopwatch, console)
    try:
        with _naming_full_memory(), contextlib.closing(console):
            _tell_the_story(session)
    except KeyboardInterrupt:
        _write_ending(run, status, "preempted", "interrupted from the keyboard")
        console.warning(f"Interrupted. The same command with --run_dir={run.path} goes on from the last checkpoint.")
        return EXIT_PREEMPTED
    except Exception as error:
        _write_ending(run, status, "failed", str(error) or type(error).__name__)
        raise
    return EXIT_DONE


def prepare(config: Config, console: Console) -> Prepared:
    """Finds devices, images and splits.

    Raises:
      UserError: the devices or the images are not as the configuration needs them.
    """
    cluster = connect(config)
    source = open_source(config, console.note)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    train = limit_per_class(splits.train, source.labels, config.examples_per_class, config.seed)
    return Prepared(config, cluster, source, splits, train)


def build(prepared: Prepared) -> Built:
    """Builds model and optimizer under the strategy.

    Raises:
      UserError: the Hub module cannot be had, or is no feature vector for images.
    """
    config = prepared.config
    with prepared.cluster.strategy.scope():
        model = _classifier(prepared)
        schedule = build_schedule(config, len(prepared.train), prepared.steps_total)
        optimizer = Optimizer(config, schedule, model.trainable_variables)
    return Built(model, optimizer)


def training_input(
    prepared: Prepared, model: Classifier, *, first_step: int, last_step: int
) -> tf.distribute.DistributedDataset:
    """A batch for each replica and step, from `first_step` to `last_step` (exclusive)."""
    cluster, config = prepared.cluster, prepared.config
    share = Share(config.batch_size, cluster.replicas, first_replica=0, local_replicas=cluster.replicas)
    return cluster.strategy.distribute_datasets_from_function(
        lambda context: training_batches(
            prepared.source, prepared.train, config, model.image_input, share, first_step, last_step
        )
    )


def describe(prepared: Prepared, model: Classifier, progress: Progress, console: Console) -> None:
    """Tells what will be done: devices, images, model, steps, and which of them are done already."""
    config, cluster, source, splits = prepared.config, prepared.cluster, prepared.source, prepared.splits
    console.entry("devices", cluster.description)
    if cluster.hint:
        console.entry("", cluster.hint)
    console.entry(
        "images",
        f"{source.name}: {len(source)} of {len(source.class_names)} classes; {len(prepared.train)} to train, "
        f"{len(splits.validation)} to validate, {len(splits.test)} to test",
    )
    if source.skipped:
        console.warning(
            f"{_counted(len(source.skipped), 'file')} cannot be decoded and will not be used; status.json lists which."
        )
    trained, total = _parameters(model.trainable_variables), _parameters(model.variables)
    size = model.backbone.image_size
    console.entry("model", f"{config.backbone} at {size} x {size} pixels: {total:,} parameters, {trained:,} trained")
    per_replica = cluster.replica_batch(config.batch_size)
    shared = f", {per_replica} a replica" if cluster.replicas > 1 else ""
    console.entry(
        "plan",
        f"{_counted(config.epochs, 'epoch')}, {_counted(prepared.steps_total, 'step')} of "
        f"{_counted(config.batch_size, 'image')}{shared}",
    )
    console.entry("rate", f"{config.optimizer}, {config.schedule} from {config.peak_learning_rate:g}")
    if progress.step:
        console.entry("resume", f"from step {progress.step}, epoch {progress.epoch}")


def _tell_the_story(session: Session) -> None:
    prepared, source, splits = session.prepared, session.prepared.source, session.prepared.splits
    with session.stopwatch.measure("startup"):
        describe(prepared, session.built.model, session.progress, session.console)
        session.console.entry("run", session.run.path)
        evaluator = Evaluator(prepared.cluster, session.built.model, source, prepared.config.batch_size)
    with naming_bad_images(source, session.console.note):
        best_step = _train(session, evaluator)
        store = CheckpointStore(session.run)
        if len(splits.test):
            with session.stopwatch.measure("evaluate"):
                store.restore(best_step, session.built.model)
                test = evaluator(splits.test)
                session.status.update(test=TestResult(test.accuracy, test.loss, test.examples))
    with session.stopwatch.measure("export"):
        with tf.device("/cpu:0"):
            published = _classifier(prepared)
            store.restore(best_step, published)
        path = export_model(published, source.class_names, _probe_images(prepared), session.run)
    session.status.update(state="done", export=path, seconds=session.stopwatch.seconds())
    session.status.write(session.run)
    _say_result(session)


def _train(session: Session, evaluator: Evaluator) -> int:
    """Trains from the start to the last epoch; gives the step of the best checkpoint."""
    prepared, built, progress = session.prepared, session.built, session.progress
    config, store = prepared.config, CheckpointStore(session.run)
    with session.stopwatch.measure("startup"):
        dataset = training_input(prepared, built.model, first_step=progress.step, last_step=prepared.steps_total)
        step = TrainStep(built.model, built.optimizer, config, prepared.cluster.replicas)
        loop = TrainLoop(prepared.cluster.strategy, step, dataset, session.stopwatch)
    with open_writers(session.run, progress.step) as writer:
        fingerprints = (session.status.config_fingerprint, session.status.data_fingerprint)
        save = SaveCheckpoint(store, built.model, built.optimizer, fingerprints, session.best, session.stopwatch)
        actions: list[Action] = [StopOnNonFinite(store, built.model), WriteMetrics(writer, built.optimizer.schedule)]
        if len(prepared.splits.validation):
            actions.append(Validate(lambda: evaluator(prepared.splits.validation), writer, session.stopwatch))
        actions += [save, WriteStatus(session.status, session.run, save, session.stopwatch, config.batch_size)]
        actions.append(ShowProgress(session.console, session.status, config.epochs))
        loop.run(progress, prepared.epoch_ends, config.steps_per_loop, actions)
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


def _check_apart(run: RunDirectory, source: Source) -> None:
    """Refuses a run directory among the class folders, where the next run would take it for a class."""
    if isinstance(source, FileSource) and f"{run.path}/".startswith(f"{source.root}/"):
        raise UserError(
            f"The run directory {run.path} would lie among the images of {source.name}: give another --run_dir."
        )


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


def _classifier(prepared: Prepared) -> Classifier:
    backbone = build_backbone(prepared.config, prepared.source.native_size)
    return Classifier(backbone, len(prepared.source.class_names), prepared.config)


def _probe_images(prepared: Prepared) -> list[bytes]:
    """Some training images, spread over the classes' names, as a client would send them."""
    source = prepared.source
    places = np.linspace(0, len(prepared.train) - 1, PROBE_IMAGES).astype(int)
    return [source.encoded(int(index)) for index in prepared.train[np.unique(places)]]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parameters(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _new_run_dir(config: Config) -> str:
    """The suggested folder, numbered if it is taken."""
    path = config.suggested_run_dir(datetime.datetime.now())
    attempt = 1
    while os.path.exists(path if attempt == 1 else f"{path}-{attempt}"):
        attempt += 1
    return path if attempt == 1 else f"{path}-{attempt}"


def _write_ending(run: RunDirectory, status: Status, state: State, error: str) -> None:
    """Notes how the run ended; where even that cannot be written, the error that ended the run is the news."""
    status.update(state=state, error=error)
    with contextlib.suppress(UserError):
        status.write(run)


def _say_result(session: Session) -> None:
    console, status, config = session.console, session.status, session.prepared.config
    if status.test:
        test = status.test
        chosen = f", checkpoint of epoch {status.best.epoch}" if status.best else ""
        console.entry("test", f"accuracy {test.accuracy:.4f}, loss {test.loss:.4f} on {test.examples} images{chosen}")
    console.entry("export", f"{status.export}")
    if config.data == "digits" and not config.uses_hub_module:
        console.note(SAMPLE_NOTE)
