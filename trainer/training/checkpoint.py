"""Checkpoints: all that a run has to know at a step to go on as if nothing had happened.

    checkpoints/step-00000172.safetensors      weights, averages of the weights, optimizer, loss scale; and the
                                               position: step, epoch, metrics so far, best so far, fingerprints

One file is one checkpoint (`trainer.training.checkpoint_file`): complete or not there, and damaged if its digest says
so. Random state needs no saving: everything random is a function of (seed, step). Older ones are deleted only after a
newer one was read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.errors import UserError
from trainer.storage import RunDirectory
from trainer.training.checkpoint_file import DamagedFileError, Tensors, decode, encode

FOLDER = "checkpoints"
SUFFIX = ".safetensors"

_POSITION = "position"

_LOOKS = 2
"""How often a checkpoint that was just written is read before it is called damaged."""


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
      sums: of the training metrics over the steps of the epoch that is running, or has just ended.
      counted: how many steps these are.
      validation: the newest validation result, empty before the first.
      best: the best validation result so far; None where there is none.
      config_fingerprint, data_fingerprint: of the run that saved it.
      frozen_fingerprint: of the weights that training does not change, which are not in the checkpoint; "" where there
        are none.
    """

    step: int
    epoch: int
    sums: Mapping[str, float]
    counted: int
    validation: Mapping[str, float]
    best: Best | None
    config_fingerprint: str
    data_fingerprint: str
    frozen_fingerprint: str = ""

    @property
    def best_step(self) -> int:
        """The step whose weights are tested and exported: the best, or this one where nothing was validated."""
        return self.best.step if self.best else self.step

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Reads what `to_json` wrote.

        Raises:
          ValueError, TypeError, KeyError: it was not `to_json` that wrote it.
        """
        values: dict[str, Any] = json.loads(text)
        best = values.pop("best")
        return cls(best=Best(**best) if best else None, **values)


@dataclass(frozen=True)
class Checkpoint:
    """A position and the numbers that belong to it.

    Attributes:
      position: where the run stood.
      tensors: by the names of `trainer.training.state`.
      place: the file, for sentences.
    """

    position: Position
    tensors: Tensors = field(repr=False)
    place: str = ""


class DamagedCheckpointError(UserError):
    """A checkpoint is not what was written."""


class CheckpointStore:
    """The checkpoints of one run directory."""

    def __init__(self, run: RunDirectory, keep: int = 1) -> None:
        """Looks at `run`, which need not exist yet.

        Args:
          run: whose checkpoints they are.
          keep: how many of the newest stay when another is written, at least 1; the best one stays too.
        """
        self._run = run
        self._keep = keep

    def steps(self) -> list[int]:
        """The steps of the checkpoints, ascending; some may be damaged."""
        matches = [re.fullmatch(rf"step-(\d+){re.escape(SUFFIX)}", name) for name in self._run.list(FOLDER)]
        return sorted(int(match.group(1)) for match in matches if match)

    def load(self, step: int) -> Checkpoint:
        """Reads a checkpoint whole.

        Raises:
          DamagedCheckpointError: it is not what was written.
          UserError: it is not there, or cannot be read.
        """
        place = self._run.join(FOLDER, _name(step))
        try:
            tensors, metadata = self._decoded(step)
            position = Position.from_json(metadata[_POSITION])
            if position.step != step:
                raise DamagedFileError(f"it is of step {position.step}")
        except (DamagedFileError, ValueError, TypeError, KeyError) as error:
            raise DamagedCheckpointError(
                f"The checkpoint {place} is damaged ({error}): put back a copy of it, or give another --run_dir."
            ) from None
        return Checkpoint(position, tensors, place)

    def _decoded(self, step: int) -> tuple[Tensors, dict[str, str]]:
        """What a file holds; it is read once more where it seems damaged, as by a fault on the way from a bucket.

        Raises:
          DamagedFileError: it was the same the second time.
        """
        try:
            return decode(self._run.read_bytes(FOLDER, _name(step)))
        except DamagedFileError:
            return decode(self._run.read_bytes(FOLDER, _name(step)))

    def newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that a run can go on from, as it would have without a pause.

        A damaged one is passed over, and so is one whose best is damaged or gone: the run finds its best again.

        Args:
          report: is told of what was passed over.

        Raises:
          DamagedCheckpointError: there are some, and none of them can be used.
        """
        reasons: list[str] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step)
                if checkpoint.position.best_step != step:
                    self._load_best(checkpoint)
            except DamagedCheckpointError as error:
                reasons.append(str(error).partition(": ")[0])
                continue
            for reason in reasons:
                report(f"{reason}; going on from the one before.")
            return checkpoint
        if reasons:
            raise DamagedCheckpointError(
                f"{reasons[-1]}, and there is none before it: put back a copy, or give another --run_dir to start anew."
            )
        return None

    def _load_best(self, checkpoint: Checkpoint) -> None:
        best = checkpoint.position.best_step
        if best not in self.steps():
            raise DamagedCheckpointError(
                f"The checkpoint {checkpoint.place} names step {best} as the best, which is gone: see there."
            )
        self.load(best)

    def save(self, checkpoint: Checkpoint, *, settled: bool = True) -> None:
        """Writes a checkpoint; normally brings it to the disk, reads it back, and deletes those no longer needed.

        Args:
          checkpoint: to write.
          settled: False leaves the rest to the next one: a killed process finds it all the same, and after a loss of
            power it may be damaged, which is noticed.

        Raises:
          DamagedCheckpointError: what was read back is not what was written; earlier checkpoints are untouched.
          UserError: the disk is full or the place cannot be written; earlier checkpoints are untouched.
        """
        position, name = checkpoint.position, _name(checkpoint.position.step)
        parts = encode(checkpoint.tensors, {_POSITION: position.to_json()})
        self._run.write_bytes(f"{FOLDER}/{name}", *parts, synced=settled)
        if not settled:
            return
        if not any(_is_made_of(self._run.read_bytes(FOLDER, name), parts) for _ in range(_LOOKS)):
            place = self._run.join(FOLDER, name)
            raise DamagedCheckpointError(
                f"{place} is not what was written there: its disk, or what lies between, is failing; start again."
            )
        steps = self.steps()
        # Later ones are of a run that went on from an earlier checkpoint because they were damaged.
        newest = [step for step in steps if step <= position.step][-self._keep :]
        for step in steps:
            if step not in newest and step != position.best_step:
                self._run.delete_tree(FOLDER, _name(step))


def _is_made_of(content: bytes, parts: Sequence[bytes | memoryview]) -> bool:
    """Whether bytes are these parts, one behind the other."""
    end = 0
    for part in parts:
        begin, end = end, end + len(part)
        if content[begin:end] != bytes(part):
            return False
    return end == len(content)


def _name(step: int) -> str:
    return f"step-{step:08d}{SUFFIX}"
