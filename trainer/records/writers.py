"""Writers of metrics: one interface, JSON lines for scripts and TensorBoard for eyes.

with open_writers(run, resumed_step=0) as writer:
    writer.write_steps("train", steps, epoch=1, values={"loss": losses})
    writer.write("validation", 43, epoch=1, values={"accuracy": 0.9})
    writer.flush()
"""

from __future__ import annotations

import json
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.record_framing import frame
from trainer.storage import RunDirectory, reading_or_writing

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricWriter(Protocol):
    """Takes metrics as they come up; nothing is sure to be on disk before `flush`.

    Flush before the checkpoint of a step is saved: a run that resumes there expects the lines up to it.
    """

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of one step.

        Args:
          split: "train" or "validation".
          step: steps done, from 1.
          epoch: epochs completed.
          values: by metric name.
        """

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.floating]]
    ) -> None:
        """Writes the metrics of consecutive steps: `steps` and every metric are vectors of one length."""

    def flush(self) -> None:
        """Brings what was written to disk.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """


class JsonLinesWriter:
    """metrics.jsonl: one object a line, such as {"split": "train", "step": 7, "epoch": 0, "loss": 1.2}.

    Values have nine significant digits, which is all of a float32; what is not finite is null.
    """

    def __init__(self, run: RunDirectory, resumed_step: int) -> None:
        """Opens the file.

        Args:
          run: the run directory.
          resumed_step: lines of later steps, which a killed run left and this one writes again, are dropped.
        """
        self._run = run
        self._lines: list[str] = []
        if run.exists(METRICS_FILE):
            found = run.read_text(METRICS_FILE)
            kept = _lines_up_to(found, resumed_step)
            if kept != found:
                run.write_text(METRICS_FILE, kept)

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricWriter.write`."""
        self._write_lines(split, [step], epoch, {name: [float(value)] for name, value in values.items()})

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.floating]]
    ) -> None:
        """See `MetricWriter.write_steps`."""
        self._write_lines(split, steps.tolist(), epoch, {name: vector.tolist() for name, vector in values.items()})

    def flush(self) -> None:
        """See `MetricWriter.flush`."""
        if self._lines:
            self._run.append_text(METRICS_FILE, "".join(self._lines))
            self._lines.clear()

    def _write_lines(
        self, split: str, steps: Sequence[int], epoch: int, columns: Mapping[str, Sequence[float]]
    ) -> None:
        # By hand: a call of json.dumps for every step would take longer than many a step.
        names = "".join(f", {_in_template(name)}: %s" for name in columns)
        template = f'{{"split": {_in_template(split)}, "step": %d, "epoch": {epoch}{names}}}\n'
        shown = [[_number(value) for value in column] for column in columns.values()]
        self._lines.extend(template % row for row in zip(steps, *shown, strict=True))


class TensorBoardWriter:
    """tensorboard/train and tensorboard/validation: a curve for each metric, the same name in both.

    Writes event files itself: `tf.summary.scalar` takes a hundred times as long and needs the tensorboard package, and
    has no way to say that a run was resumed; `tf.io.TFRecordWriter` (TensorFlow 2.21) lets no other Python thread run
    while it waits for gs://. Every file begins with a START event; from the second on, it makes
    TensorBoard forget the points at its step and after, which the killed run left and this one writes again.
    """

    def __init__(self, run: RunDirectory, resumed_step: int, clock: Callable[[], float] = time.time) -> None:
        """Opens event files next to those that are there; without any, when something is written.

        Args:
          run: the run directory.
          resumed_step: points of later steps are dropped from the curves.
          clock: seconds since 1970, for the points' wall time.
        """
        self._run = run
        self._resumed_step = resumed_step
        self._clock = clock
        self._files: dict[str, Any] = {}
        for split in run.list(TENSORBOARD_FOLDER):
            self._file(split)

    def write(self, split: str, step: int, *, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricWriter.write`."""
        from tensorflow.compat.v1 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write_event(split, step=step, summary=Summary(value=points))

    def write_steps(
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.floating]]
    ) -> None:
        """See `MetricWriter.write_steps`; writes the mean of the steps at the last one, as a curve needs no more."""
        means = {name: float(np.mean(vector, dtype=np.float64)) for name, vector in values.items()}
        self.write(split, int(steps[-1]), epoch=epoch, values=means)

    def flush(self) -> None:
        """See `MetricWriter.flush`."""
        with reading_or_writing(self._run.path):
            for file in self._files.values():
                file.flush()

    def close(self) -> None:
        """Flushes and closes the event files."""
        with reading_or_writing(self._run.path):
            for file in self._files.values():
                file.close()

    def _file(self, split: str) -> Any:
        import tensorflow as tf

        if split not in self._files:
            folder = self._run.make_folder(TENSORBOARD_FOLDER, split)
            # Files are read in the order of their names.
            name = f"events.out.tfevents.{self._clock():017.6f}.{socket.gethostname()}.{secrets.token_hex(4)}"
            with reading_or_writing(self._run.path):
                self._files[split] = tf.io.gfile.GFile(f"{folder}/{name}", "wb")
            log = tf.compat.v1.SessionLog
            self._write_event(split, file_version="brain.Event:2")
            self._write_event(split, step=self._resumed_step + 1, session_log=log(status=log.START))
        return self._files[split]

    def _write_event(self, split: str, **fields: Any) -> None:
        from tensorflow.compat.v1 import Event

        with reading_or_writing(self._run.path):
            self._file(split).write(frame(Event(wall_time=self._clock(), **fields).SerializeToString()))


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
        self, split: str, steps: NDArray[np.int64], *, epoch: int, values: Mapping[str, NDArray[np.floating]]
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
    with ExitStack() as at_the_end:
        lines = JsonLinesWriter(run, resumed_step)
        at_the_end.callback(lines.flush)
        tensorboard = TensorBoardWriter(run, resumed_step)
        at_the_end.callback(tensorboard.close)
        yield MultiWriter([lines, tensorboard])


@contextmanager
def no_writers() -> Iterator[MetricWriter]:
    """In place of `open_writers` on a worker that is not the chief."""
    yield MultiWriter([])


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


def _in_template(name: str) -> str:
    """A JSON string that stands for itself in a %-template."""
    return json.dumps(name).replace("%", "%%")


def _number(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else "null"
