"""Where a run starts: at the beginning, where its own directory stopped, or where another one stopped.

In order of precedence:
1. `--run_dir` holds a run of another configuration or of other data: refused, saying what differs.
2. `--run_dir` holds a run and `--resume=never`: refused.
3. `--run_dir` has a checkpoint: from there.
4. `--resume=PATH`: from the last checkpoint of that run directory, position and optimizer included.
5. Otherwise: from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from trainer.config import Config
from trainer.errors import UserError
from trainer.layout import DEFAULT_LAYOUT
from trainer.lease_bucket import OBJECT_NAME as LEASE_OBJECT
from trainer.records.status import FILE_NAME as STATUS_FILE
from trainer.storage import RunDirectory
from trainer.training.checkpoint import Checkpoint, CheckpointStore, Position

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Start:
    """Where to begin.

    Attributes:
      checkpoint: to restore; None: from the beginning.
      own: whether it is the run directory's own, not that of `--resume=PATH`.
      finished: the run directory holds this very run, done to the end.
    """

    checkpoint: Checkpoint | None
    own: bool = True
    finished: bool = False

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.checkpoint.position.step if self.checkpoint else 0


def choose_start(
    config: Config, run: RunDirectory, data_fingerprint: str, report: Callable[[str], None] = lambda sentence: None
) -> Start:
    """Decides by the list above. Writes nothing.

    Args:
      config: the run that is asked for.
      run: its directory, which need not exist.
      data_fingerprint: of the images that are there now.
      report: is told of damaged checkpoints that were passed over.

    Raises:
      UserError: cases 1 and 2, a folder that holds something else, `--resume=PATH` without a checkpoint, or checkpoints
        of which none can be used.
    """
    own = CheckpointStore(run)
    there = config_of_run(run)
    if there:
        _check_same_run(config, there, run)
        if config.resume == "never":
            raise UserError(f"--run_dir={run.path} holds a run; give another, or --resume=auto to go on with it.")
        checkpoint = own.newest(report)
        if checkpoint:
            _check_same_data(checkpoint.position, data_fingerprint, run)
        if checkpoint or _is_finished(run):
            return Start(checkpoint, finished=_is_finished(run))
    else:
        _check_free(run)
    if config.resume in ("auto", "never"):
        return Start(None)
    checkpoint = CheckpointStore(RunDirectory(config.resume, "--resume")).newest(report)
    if checkpoint is None:
        raise UserError(f"--resume={config.resume} has no checkpoint; give a run directory that has.")
    return Start(checkpoint, own=False)


def with_layout_of_run(config: Config, run_dir: str, report: Callable[[str], None]) -> Config:
    """The same with the layout that the run in this directory began with, if there is one.

    Args:
      config: the run that is asked for.
      run_dir: its directory, which need not exist.
      report: is told where another layout than the default was asked for and cannot be had.

    Raises:
      UserError: the directory's config.json is damaged.
    """
    there = config_of_run(RunDirectory(run_dir))
    if there is None or there.run_dir_layout == config.run_dir_layout:
        return config
    if config.run_dir_layout != DEFAULT_LAYOUT:
        report(
            f"The run in {run_dir} keeps the --run_dir_layout={there.run_dir_layout} that it began with, not "
            f"{config.run_dir_layout}: only in a new directory Vertex AI would find its model and its curves."
        )
    return config.model_copy(update={"run_dir_layout": there.run_dir_layout})


def config_of_run(run: RunDirectory) -> Config | None:
    """What the run in a directory was started with; None where there is no run.

    Raises:
      UserError: that is damaged.
    """
    if not run.exists(CONFIG_FILE):
        return None
    text = run.read_text(CONFIG_FILE)
    try:
        return Config.from_json(text, origin=run.join(CONFIG_FILE))
    except UserError as error:
        raise UserError(f"{error} It is damaged or of another version: give another --run_dir.") from None


def _check_same_run(config: Config, there: Config, run: RunDirectory) -> None:
    differences = config.differences(there)
    if differences:
        raise UserError(
            f"--run_dir={run.path} holds another run: {'; '.join(differences)}. Give another --run_dir, or the "
            "configuration that is there."
        )


def _check_same_data(position: Position, data_fingerprint: str, run: RunDirectory) -> None:
    if position.data_fingerprint != data_fingerprint:
        raise UserError(
            f"The examples are not those that the run in {run.path} was started with: some were added, removed or "
            "changed since. Give another --run_dir, or put the examples back."
        )


def _check_free(run: RunDirectory) -> None:
    """Refuses a folder that holds something other than a run, where our files would mix with its."""
    lease = LEASE_OBJECT if run.is_remote else None  # This job's own: the local one begins with a dot.
    found = [name for name in run.list() if not name.startswith(".") and name != lease]
    if found:
        raise UserError(
            f"--run_dir={run.path} is not empty and not a run directory (it holds {found[0]}); give a new folder."
        )


def _is_finished(run: RunDirectory) -> bool:
    if not run.exists(STATUS_FILE):
        return False
    try:
        return bool(json.loads(run.read_text(STATUS_FILE))["state"] == "done")
    except (ValueError, TypeError, KeyError):
        path = run.join(STATUS_FILE)
        raise UserError(f"{path} is damaged: delete it, and the run goes on from its last checkpoint.") from None
