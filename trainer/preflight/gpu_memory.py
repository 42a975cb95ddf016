"""What the steps of a run take of a GPU's memory, asked of `trainer.preflight.gpu_process`. No TensorFlow."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config import Config
from trainer.preflight.bounded_process import last_line, run_bounded, whole_lines

COMMAND = (sys.executable, "-m", "trainer.preflight.gpu_process")

TRIAL_BYTES = 2**30
"""What a batch that is run may take: a few seconds on two cores, and room for it everywhere."""


class MeasuringError(Exception):
    """There is no estimate. The message is a clause that says why, as in "it had not answered after 900 s"."""


@dataclass(frozen=True)
class StepBytes:
    """What a step takes beside weights and optimizer state; see `trainer.preflight.step_memory`.

    Attributes:
      name: of the step.
      batch: examples on a GPU.
      trials: batches that were run, and the bytes that they took.
      compiled: bytes by XLA.
      seconds: that it took to find out.
    """

    name: str
    batch: int
    trials: tuple[tuple[int, int], ...]
    compiled: int
    seconds: float

    @property
    def run(self) -> int:
        """Bytes of the whole batch by what was run: in a straight line, and never less than what was seen."""
        *before, (batch, size) = self.trials
        if not before:
            return -(-size * self.batch // batch)
        slope = (size - before[0][1]) / (batch - before[0][0])
        return max(size, round(size + slope * (self.batch - batch)))


def measure(
    config: Config, seconds: float, command: Sequence[str] = COMMAND, trial_bytes: int = TRIAL_BYTES
) -> list[StepBytes]:
    """Finds out in a process of its own.

    Args:
      config: the run, with the batch of one GPU.
      seconds: that it may take.
      command: of the process.
      trial_bytes: what a batch that is run may take.

    Raises:
      MeasuringError: it came to nothing.
    """
    # What takes float16 takes as much in bfloat16, in which CPUs are not slower by orders of magnitude.
    precision = {"mixed_float16": "mixed_bfloat16"}.get(config.precision, config.precision)
    package = Path(__file__).resolve().parents[2]
    search_path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": search_path}
    with tempfile.TemporaryDirectory(prefix="hub-trainer-preflight-") as name:
        folder = Path(name)
        (folder / "dump").mkdir()
        request = {
            "config": config.model_dump(mode="json") | {"precision": precision},
            "folder": str(folder / "dump"),
            "trial_bytes": trial_bytes,
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        ended = run_bounded(
            [*command, str(folder / "request.json"), str(folder / "results.jsonl")],
            folder=folder,
            seconds=seconds,
            environment=environment,
        )
        results = whole_lines(folder / "results.jsonl")
    if ended.failure:
        raise MeasuringError(ended.failure)
    refused = [
        f"XLA cannot compile {result['name']} ({last_line(result['refusal'])})"
        for result in results
        if "refusal" in result
    ]
    if refused or not results:
        raise MeasuringError("; ".join(refused) or f"its process ended early: {last_line(ended.said)}")
    return [
        StepBytes(
            name=result["name"],
            batch=result["batch"],
            trials=tuple((trial["batch"], trial["bytes"]) for trial in result["trials"]),
            compiled=result["compiled"],
            seconds=result["seconds"],
        )
        for result in results
    ]
