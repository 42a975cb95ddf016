"""`--init_from`: the weights of another run, as far as this model has the same."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.errors import UserError
from trainer.model.classifier import Classifier
from trainer.storage import RunDirectory
from trainer.training.checkpoint import CheckpointStore
from trainer.training.state import by_path, weights
from trainer.wording import counted

_SHOWN = 3
"""How many of the variables that did not fit are named."""


@dataclass(frozen=True)
class WarmStart:
    """What came of it.

    Attributes:
      run_dir: of the other run.
      step: of its best checkpoint.
      matched: paths of the variables that got its weights.
      unmatched: what else its checkpoint has, each with the reason, for a person.
    """

    run_dir: str
    step: int
    matched: list[str]
    unmatched: list[str]

    @property
    def summary(self) -> str:
        """One sentence or two."""
        text = f"{counted(len(self.matched), 'variable')} of {self.run_dir}, step {self.step}"
        if not self.unmatched:
            return text
        rest = len(self.unmatched) - _SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        return f"{text}; not {', '.join(self.unmatched[:_SHOWN])}{more}"


def warm_start(run_dir: str, model: Classifier) -> WarmStart:
    """Gives `model` the weights of another run's best checkpoint wherever path and shape are the same.

    Args:
      run_dir: of the other run, local or gs://.
      model: complete, with weights of its own that stay where nothing fits.

    Raises:
      UserError: there is no checkpoint that can be used, or nothing in it fits.
    """
    store = CheckpointStore(RunDirectory(run_dir, "--init_from"))
    passed_over: list[str] = []
    checkpoint = store.newest(passed_over.append)
    if checkpoint is None:
        raise UserError(f"--init_from={run_dir} has no checkpoint; give a run directory that has.")
    if checkpoint.position.best_step != checkpoint.position.step:
        checkpoint = store.load(checkpoint.position.best_step)
    variables, found = by_path(model.variables), weights(checkpoint)
    matched, unmatched = [], []
    for path, value in found.items():
        if path not in variables:
            unmatched.append(f"{path} (not in this model)")
        elif tuple(variables[path].shape) != value.shape:
            unmatched.append(f"{path} ({_size(value.shape)} there, {_size(variables[path].shape)} here)")
        else:
            variables[path].assign(value.astype(variables[path].dtype))
            matched.append(path)
    if not matched:
        raise UserError(
            f"--init_from={run_dir}: none of its {counted(len(found), 'variable')} is in this model; the first is "
            f"{unmatched[0]}. Give a run with the same --backbone."
        )
    return WarmStart(run_dir, checkpoint.position.step, matched, unmatched)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
