"""Writers of metrics: one interface, JSON lines for scripts and TensorBoard for eyes.

    with open_writers(run, resumed_step=0) as writer:
        writer.write_steps("train", steps, epoch=1, values={"loss": losses})
        writer.write("validation", 43, epoch=1, values={"accuracy": 0.9})
        writer.flush()
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.storage import RunDirectory, reading_or_writing

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricWriter(Protocol):
    """Takes metrics as they come up; nothing is sure to be on disk before `flush`."""

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of one step.

        Args:
          split: "train" or "validation".
          step: steps done, from 1.
          epoch: epochs completed.
          values: by metric name.
        """

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Writes the metrics of consecutive steps: `steps` and every metric are vectors of one length."""

    def flush(self) -> None:
        """Brings what was written to disk.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """


class JsonLinesWriter:
    """metrics.jsonl: one object a line, such as {"split": "train", "step": 7, "epoch": 0, "loss": 1.2}."""

    def __init__(self, run: RunDirectory, resumed_step: int) -> None:
        """Opens the file.

        Args:
          run: the run directory.
          resumed_step: lines of later steps, which a killed run left and this one writes again, are dropped.
        """
        self._run = run
        self._lines: list[str] = []
        if run.exists(METRICS_FILE):
            kept = _lines_up_to(run.read_text(METRICS_FILE), resumed_step)
            run.write_text(METRICS_FILE, kept)

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricWriter.write`."""
        line = {"split": split, "step": step, "epoch": epoch} | {name: _finite(value) for name, value in values.items()}
        self._lines.append(json.dumps(line, allow_nan=False) + "\n")

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """See `MetricWriter.write_steps`."""
        columns = {name: vector.tolist() for name, vector in values.items()}
        for place, step in enumerate(steps.tolist()):
            self.write(split, step, epoch=epoch, values={name: column[place] for name, column in columns.items()})

    def flush(self) -> None:
        """See `MetricWriter.flush`."""
        if self._lines:
            self._run.append_text(METRICS_FILE, "".join(self._lines))
            self._lines.clear()


class TensorBoardWriter:
    """tensorboard/train and tensorboard/validation: a curve for each metric, the same name in both."""

    def __init__(self, run: RunDirectory) -> None:
        """Names the folder; event files are made when something is written."""
        self._run = run
        self._writers: dict[str, Any] = {}

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricWriter.write`."""
        import tensorflow as tf

        with reading_or_writing(self._run.path), self._writer(split).as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """See `MetricWriter.write_steps`; writes the mean of the steps at the last one, as a curve needs no more."""
        means = {name: float(np.mean(vector, dtype=np.float64)) for name, vector in values.items()}
        self.write(split, int(steps[-1]), epoch=epoch, values=means)

    def flush(self) -> None:
        """See `MetricWriter.flush`."""
        with reading_or_writing(self._run.path):
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        """Flushes and closes the event files."""
        with reading_or_writing(self._run.path):
            for writer in self._writers.values():
                writer.close()

    def _writer(self, split: str) -> Any:
        import tensorflow as tf

        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(self._run.join(TENSORBOARD_FOLDER, split))
        return self._writers[split]


class MultiWriter:
    """Several writers as one."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        """`writers` are called in order."""
        self._writers = writers

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricWriter.write`."""
        for writer in self._writers:
            writer.write(split, step, epoch=epoch, values=values)

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """See `MetricWriter.write_steps`."""
        for writer in self._writers:
            writer.write_steps(split, steps, epoch=epoch, values=values)

    def flush(self) -> None:
        """See `MetricWriter.flush`."""
        for writer in self._writers:
            writer.flush()


@contextmanager
def open_writers(run: RunDirectory, resumed_step: int) -> Iterator[MetricWriter]:
    """All writers of a run, flushed and closed at the end, whatever ends it.

    Args:
      run: the run directory.
      resumed_step: steps that were done before; 0 for a new run.
    """
    tensorboard = TensorBoardWriter(run)
    writer = MultiWriter([JsonLinesWriter(run, resumed_step), tensorboard])
    try:
        yield writer
    finally:
        writer.flush()
        tensorboard.close()


def _lines_up_to(text: str, step: int) -> str:
    """The lines of steps up to `step`; a last line that a crash cut off is dropped too."""
    kept = []
    for line in text.splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(f"{line}\n")
        except (ValueError, KeyError, TypeError):
            continue
    return "".join(kept)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
