"""A run as its directory tells it: finished, interrupted or going on, local or on gs://."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import Config
from trainer.errors import UserError
from trainer.records.examples import ShownExample, read_examples
from trainer.records.facts import Facts
from trainer.records.predictions import Predictions
from trainer.records.status import FILE_NAME as STATUS_FILE
from trainer.records.writers import METRICS_FILE
from trainer.storage import RunDirectory

CONFIG_FILE = "config.json"

STATE_WORDS = {"done": "done", "failed": "failed", "preempted": "interrupted", "running": "running"}
"""What a person reads for the states of status.json."""

TRAIN_METRICS = ("loss", "accuracy", "learning_rate")
VALIDATION_METRICS = ("loss", "accuracy")


@dataclass(frozen=True)
class Series:
    """Metrics over the steps of a run, one row a line of metrics.jsonl.

    Attributes:
      steps: int64 `[n]`, ascending.
      epochs: int64 `[n]`, in which epoch, from 1.
      values: by metric, float64 `[n]`; NaN where it was not finite.
    """

    steps: NDArray[np.int64]
    epochs: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds, read at one moment.

    Attributes:
      path: of the run directory.
      config: the run's settings.
      status: status.json as it stands there; a field may be missing in one of an earlier version.
      facts: classes, sizes, devices; None where an earlier version made the run.
      train: every training step.
      validation: every validation.
      test_predictions: of the best checkpoint on the test split; None before the run has ended, or without one.
      validation_predictions: of the newest weights, or, at the end of a run without a test split, the best ones.
      examples: a few predictions with pictures.
    """

    path: str
    config: Config
    status: Mapping[str, Any]
    facts: Facts | None
    train: Series
    validation: Series
    test_predictions: Predictions | None
    validation_predictions: Predictions | None
    examples: Sequence[ShownExample]

    @classmethod
    def read(cls, run: RunDirectory) -> RunRecord:
        """Reads all of it.

        Raises:
          UserError: there is no run, or one of its files is damaged.
        """
        if not (run.exists(CONFIG_FILE) and run.exists(STATUS_FILE)):
            raise UserError(f"{run.path} is no run directory: give one that has {CONFIG_FILE} and {STATUS_FILE}.")
        train, validation = _metrics(run)
        return cls(
            path=run.path,
            config=Config.from_json(run.read_text(CONFIG_FILE), origin=run.join(CONFIG_FILE)),
            status=_status(run),
            facts=Facts.read(run),
            train=train,
            validation=validation,
            test_predictions=Predictions.read(run, "test"),
            validation_predictions=Predictions.read(run, "validation"),
            examples=read_examples(run),
        )

    @property
    def state(self) -> str:
        """As status.json has it: running, done, failed or preempted."""
        return str(self.status.get("state", "running"))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.state == "done"


def _status(run: RunDirectory) -> Mapping[str, Any]:
    try:
        status = json.loads(run.read_text(STATUS_FILE))
        if not isinstance(status, dict):
            raise ValueError(status)
    except ValueError:
        raise UserError(f"{run.join(STATUS_FILE)} is damaged: delete it; a run that goes on writes it again.") from None
    return status


def _metrics(run: RunDirectory) -> tuple[Series, Series]:
    lines = run.read_text(METRICS_FILE).split("\n") if run.exists(METRICS_FILE) else [""]
    rows: dict[str, list[Mapping[str, Any]]] = {"train": [], "validation": []}
    try:
        for line in lines[:-1]:  # What has no line end is being written.
            row = json.loads(line)
            rows[row["split"]].append(row)
        return _series(rows["train"], TRAIN_METRICS), _series(rows["validation"], VALIDATION_METRICS)
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{run.join(METRICS_FILE)} is damaged: delete the lines that are no metrics, and the curves have a gap."
        ) from None


def _series(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Series:
    return Series(
        np.array([row["step"] for row in rows], np.int64),
        np.array([row["epoch"] for row in rows], np.int64),
        {name: np.array([row[name] for row in rows], np.float64) for name in metrics},
    )
