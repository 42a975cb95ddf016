"""Checkpoints: the whole state of a run at a step, complete or not there at all.

    checkpoints/step-00000172/
      variables.index, variables.data-…    model, optimizer, loss scale, averages of the weights
      position.json                        step, epoch, validation, best so far, fingerprints; its presence says
                                           that the checkpoint is complete

The newest is the one to resume from and names the best; those two are kept, older ones are deleted only after a
newer one is complete. Random state needs no saving: everything random is a function of (seed, step).
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from trainer.errors import UserError
from trainer.model.averages import WeightAverages
from trainer.model.classifier import Classifier
from trainer.model.optimizer import Optimizer
from trainer.storage import RunDirectory, reading_or_writing

FOLDER = "checkpoints"
_POSITION_FILE = "position.json"
_VARIABLES = "variables"


@dataclass(frozen=True)
class Best:
    """The validation result that the best checkpoint was chosen for; accuracy in [0, 1], loss in nats."""

    step: int
    epoch: int
    accuracy: float
    loss: float

    def beats(self, other: Best | None) -> bool:
        """More accurate, or as accurate with a lower loss."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
      step: training steps done.
      epoch: epochs completed.
      train: mean training metrics of the last epoch.
      validation: validation result after the last epoch, empty where there is no validation split.
      best: the best validation result so far; None where there is no validation split.
      config_fingerprint, data_fingerprint: of the run that saved it.
    """

    step: int
    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    best: Best | None
    config_fingerprint: str
    data_fingerprint: str

    @property
    def best_step(self) -> int:
        """The step whose weights are tested and exported: the best, or this one where nothing was validated."""
        return self.best.step if self.best else self.step

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Reads what `to_json` wrote.

        Raises:
          ValueError, TypeError: it was not `to_json` that wrote it.
        """
        values: dict[str, Any] = json.loads(text)
        best = values.pop("best")
        return cls(best=Best(**best) if best else None, **values)


class CheckpointStore:
    """The checkpoints of one run directory."""

    def __init__(self, run: RunDirectory, *, writes: bool = True) -> None:
        """Looks at `run`, which need not exist yet.

        Args:
          run: whose checkpoints they are.
          writes: whether this process writes them. Where several workers train, the chief does; the others must save
            too, because reading a variable that each replica has for itself is a step of all workers together.
        """
        self._run = run
        self._writes = writes

    def belongs_to(self, run: RunDirectory) -> bool:
        """Whether these are the checkpoints of `run`."""
        return self._run.path == run.path

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending."""
        if not self._run.exists(FOLDER):
            return []
        matches = [re.fullmatch(r"step-(\d+)/?", name) for name in self._run.list(FOLDER)]
        steps = sorted(int(match.group(1)) for match in matches if match)
        return [step for step in steps if self._run.exists(FOLDER, _name(step), _POSITION_FILE)]

    def position(self, step: int) -> Position:
        """What the checkpoint of `step` says of itself.

        Raises:
          UserError: its position file is damaged.
        """
        path = self._run.join(FOLDER, _name(step), _POSITION_FILE)
        try:
            position = Position.from_json(self._run.read_text(FOLDER, _name(step), _POSITION_FILE))
            if position.step != step:
                raise ValueError(f"step is {position.step}")
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"The checkpoint file {path} is damaged ({error}): delete its folder to go on from the one before."
            ) from None
        return position

    def latest(self) -> Position | None:
        """The position of the newest complete checkpoint."""
        steps = self.steps()
        return self.position(steps[-1]) if steps else None

    def save(self, position: Position, model: Classifier, optimizer: Optimizer) -> None:
        """Writes the checkpoint of `position.step`, then deletes those that are neither it nor the best.

        Raises:
          UserError: the disk is full or the place cannot be written; earlier checkpoints are untouched.
        """
        if not self._writes:
            with tempfile.TemporaryDirectory() as folder:
                _state(model, optimizer).write(f"{folder}/{_VARIABLES}")
            return
        staging = self._run.staging(_name(position.step))
        with reading_or_writing(self._run.path):
            try:
                _state(model, optimizer).write(f"{staging}/{_VARIABLES}")
                self._run.publish_tree(staging, FOLDER, _name(position.step))
            except BaseException:
                tf.io.gfile.rmtree(staging)
                raise
            # Last, because on gs:// a folder is published object by object: only this says that all are there.
            self._run.write_text(f"{FOLDER}/{_name(position.step)}/{_POSITION_FILE}", position.to_json())
        for step in self.steps():
            if step not in (position.step, position.best_step):
                self._run.delete_tree(FOLDER, _name(step))

    def restore(
        self,
        step: int,
        model: Classifier,
        optimizer: Optimizer | None = None,
        averages: WeightAverages | None = None,
    ) -> None:
        """Reads the weights of `step` into `model`, and the optimizer's state where one is given.

        Works across strategies: what two replicas saved, one device restores.

        Args:
          step: of a complete checkpoint.
          model: takes the weights.
          optimizer: takes its state and that of its averages.
          averages: take theirs, where there is no optimizer.

        Raises:
          UserError: the checkpoint does not hold just the variables that `model` and `optimizer` have.
        """
        path = self._run.join(FOLDER, _name(step), _VARIABLES)
        state = _state(model, optimizer) if optimizer else _weights(model, averages)
        try:
            with reading_or_writing(path):
                status = state.read(path)
                (status.assert_consumed if optimizer else status.assert_existing_objects_matched)()
                if not optimizer:
                    status.expect_partial()
        except (AssertionError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"The checkpoint {path} does not fit this model or is damaged ({reason}): give the configuration that "
                "saved it, or delete its folder to go on from the one before."
            ) from error


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _state(model: Classifier, optimizer: Optimizer) -> tf.train.Checkpoint:
    state = _weights(model, optimizer.averages)
    state.optimizer = optimizer.rule
    state.loss_scale = optimizer.loss_scale
    return state


def _weights(model: Classifier, averages: WeightAverages | None) -> tf.train.Checkpoint:
    """Model and averages, under the names that they have in every checkpoint."""
    state = tf.train.Checkpoint(model=model)
    if averages:
        state.averages = averages.averages
    return state
