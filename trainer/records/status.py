"""status.json: how a run is doing or how it ended, for people, scripts and the next run."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal, Protocol, get_args

import numpy as np

import trainer
from trainer.errors import UserError
from trainer.records.goodput import Attempt, goodput
from trainer.storage import RunDirectory

FILE_NAME = "status.json"

State = Literal["running", "done", "failed", "preempted"]
"""running: it goes on, or it was killed without warning. preempted: it was stopped and can be started again."""


@dataclass(frozen=True)
class TestResult:
    """Metrics of the best checkpoint on the test split, every example counted once."""

    accuracy: float
    loss: float
    examples: int


@dataclass(frozen=True)
class BestResult:
    """Validation metrics of the best checkpoint so far, and where it was taken."""

    step: int
    epoch: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class ExportResult:
    """One of the forms that the best checkpoint was exported in.

    Attributes:
      path: full path of the folder or file; None where it was not published.
      bytes: its size, a SavedModel's without the modules and files beside it; None where it could not be made.
      accuracy: share of right predictions, in [0, 1]; None where there are no images to test on.
      examples: how many images that is of.
      split: "test", or "validation" where the test split is empty; "" where both are.
      refused: why it was not published, a sentence; "" where it was.
    """

    path: str | None
    bytes: int | None
    accuracy: float | None
    examples: int
    split: str
    refused: str = ""


class Skipped(Protocol):
    """An image that was left out of the data, and why, such as the `SkippedImage` of trainer.data."""

    @property
    def key(self) -> str:
        """What the image is called in its source."""

    @property
    def reason(self) -> str:
        """Why it was left out."""


@dataclass
class Status:
    """What status.json says. Set fields, one by one or with `update`, then `write`.

    Every field is written each time, unset ones as null or empty, in the order below.
    """

    state: State = "running"
    step: int = 0
    """Training steps done."""
    epoch: int = 0
    """Epochs done."""
    steps_total: int | None = None
    """Steps the run will have done in the end; None until it is planned."""
    train: Mapping[str, float] = field(default_factory=dict)
    """Newest metrics of the training batches, by name."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """Newest metrics of the whole validation split, by name."""
    test: TestResult | None = None
    best: BestResult | None = None
    export: str | None = None
    """Full path of the exported model, once it stands there."""
    exports: Mapping[str, ExportResult] = field(default_factory=dict)
    """Its forms, by "saved_model", "tflite_float16" and "tflite_int8"; a form that was refused is there too."""
    examples_per_second: float | None = None
    """Training speed, over all replicas."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of this start by phase, as `Stopwatch.seconds` gives it."""
    attempts: list[Attempt] = field(default_factory=list)
    """All starts of the run; the last one is going on, or is the one that ended."""
    goodput: Mapping[str, float] = field(default_factory=dict)
    """Where the time of all starts went, as `trainer.records.goodput.goodput` gives it."""
    config_fingerprint: str = ""
    data_fingerprint: str = ""
    versions: Mapping[str, str | None] = field(default_factory=lambda: installed_versions())
    error: str | None = None
    """Why the run failed; whatever is given becomes one line."""
    skipped_images: Iterable[Skipped] = ()
    warnings: list[str] = field(default_factory=list)

    def update(self, **changes: Any) -> None:
        """Sets fields by name.

        Raises:
          TypeError: there is no such field.
          ValueError: there is no such state.
        """
        known = {each.name for each in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise TypeError(f"status has no field {name}")
            if name == "state" and value not in get_args(State):
                raise ValueError(f"no state {value!r}: one of {', '.join(get_args(State))}")
            setattr(self, name, value)

    def to_json(self) -> str:
        """All fields as an indented JSON object in UTF-8; numbers that are not finite become null."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        values["error"] = None if self.error is None else " ".join(self.error.split())
        values["skipped_images"] = [{"key": image.key, "reason": image.reason} for image in self.skipped_images]
        text = json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A file name that is no UTF-8 comes as lone surrogates, which only JSON's own escapes can carry.
        return text.encode(errors="backslashreplace").decode()

    def write(self, directory: RunDirectory) -> None:
        """Replaces status.json in the run directory in one move.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """
        directory.write_text(FILE_NAME, self.to_json())

    def take_time(self, seconds: Mapping[str, float]) -> None:
        """Takes in how much time went where in this start, which must be among the `attempts`, and how far it came."""
        attempt = self.attempts[-1]
        attempt.seconds, attempt.to_step = seconds, self.step
        self.update(seconds=seconds, goodput=goodput(self.attempts))


def earlier_attempts(directory: RunDirectory, resumed_step: int) -> list[Attempt]:
    """The starts that a run has behind it.

    Args:
      directory: of the run; it need not exist.
      resumed_step: where it goes on.

    Raises:
      UserError: its status.json is damaged.
    """
    if not directory.exists(FILE_NAME):
        return []
    try:
        attempts = [Attempt.from_json(values) for values in json.loads(directory.read_text(FILE_NAME))["attempts"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(directory) from None
    if attempts:
        attempts[-1].lose(resumed_step)
    return attempts


def earlier_exports(directory: RunDirectory) -> dict[str, ExportResult]:
    """What `exports` says of a run that has ended; empty where it says nothing.

    Raises:
      UserError: its status.json is damaged.
    """
    if not directory.exists(FILE_NAME):
        return {}
    try:
        values = json.loads(directory.read_text(FILE_NAME)).get("exports", {})
        return {form: ExportResult(**result) for form, result in values.items()}
    except (ValueError, TypeError, AttributeError):
        raise _damaged(directory) from None


def _damaged(directory: RunDirectory) -> UserError:
    path = directory.join(FILE_NAME)
    return UserError(f"{path} is damaged: delete it, and the run goes on from its last checkpoint.")


def installed_versions() -> dict[str, str | None]:
    """Versions of what the result may depend on, without importing it; None for what is not installed."""
    return {
        "python": platform.python_version(),
        "tensorflow": _version("tensorflow", "tensorflow-tpu", "tensorflow-cpu"),
        "keras": _version("keras"),
        "tensorflow_hub": _version("tensorflow-hub"),
        "numpy": _version("numpy"),
        "trainer": trainer.__version__,
    }


def _version(*distributions: str) -> str | None:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _plain(value: Any) -> Any:
    """What JSON can say of a value: dataclasses as objects, NumPy numbers as numbers, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
