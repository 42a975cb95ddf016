"""How far each worker is, where all can read it: workers/0.json and so on in the run directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from trainer.errors import UserError
from trainer.storage import RunDirectory

FOLDER = "workers"


class WorkerStates:
    """The state of this worker, and what the others say of theirs. One worker alone writes nothing."""

    def __init__(self, run: RunDirectory, index: int, workers: int, clock: Callable[[], float] = time.time) -> None:
        """Names the files.

        Args:
          run: the run directory, which all workers see.
          index: of this worker.
          workers: how many there are.
          clock: seconds since 1970.
        """
        self._run = run
        self._index = index
        self._workers = workers
        self._clock = clock

    def write(self, step: int, doing: str) -> None:
        """Says how many steps this worker has done, and what it is doing.

        A place that cannot be written is no reason to end a run.
        """
        if self._workers == 1:
            return
        state = {"step": step, "doing": doing, "time": self._clock()}
        try:
            self._run.write_text(f"{FOLDER}/{self._index}.json", json.dumps(state) + "\n")
        except UserError:
            return  # Whatever else the run writes there will say so.

    def read(self) -> list[str]:
        """A line for each worker: how far it is, what it does, and how long ago it said so."""
        if self._workers == 1:
            return []
        return [self._line(index) for index in range(self._workers)]

    def _line(self, index: int) -> str:
        name = f"{FOLDER}/{index}.json"
        try:
            state = json.loads(self._run.read_text(name))
            age = self._clock() - float(state["time"])
            return f"worker {index}: {int(state['step'])} steps, {state['doing']}, said {age:.0f} seconds ago"
        except (UserError, ValueError, TypeError, KeyError):
            return f"worker {index}: says nothing"
