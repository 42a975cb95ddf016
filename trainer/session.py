"""A run that has begun, as its parts see it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from trainer.errors import UserError
from trainer.lease import Lease
from trainer.preparation import Built, Prepared
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.records.status import State, Status
from trainer.stop_request import StopRequest
from trainer.storage import RunDirectory
from trainer.training.checkpoint import Best, CheckpointStore
from trainer.training.loop import Progress


@dataclass(frozen=True)
class Session:
    """What a run does, where it leaves it, and who is told.

    Attributes:
      prepared: devices, images, splits.
      built: model and optimizer, with the state of the checkpoint that the run goes on from.
      progress: where the run stands.
      best: the best of its checkpoints so far.
      run: the run directory.
      status: what status.json will say.
      stopwatch: where the time goes.
      console: the person's view.
      stop: whether the run is to stop for now.
      first_start: whether the run was never started before; all workers say the same.
      lease: of the run directory; None in a process that does not write there, or alone knows of it.
    """

    prepared: Prepared
    built: Built
    progress: Progress
    best: Best | None
    run: RunDirectory
    status: Status
    stopwatch: Stopwatch
    console: Console
    stop: StopRequest
    first_start: bool
    lease: Lease | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.prepared.cluster.is_chief

    @property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        return CheckpointStore(self.run, self.prepared.config.keep_checkpoints)

    def note_ending(self, state: State, error: str) -> None:
        """Notes how the run ended; where even that cannot be written, the error that ended the run is the news.

        May be called in another thread than the rest.
        """
        self.status.update(state=state, error=error)
        lost = self.lease.lost if self.lease else None  # Then the file is another run's.
        if self.is_chief and not lost:
            with contextlib.suppress(UserError):
                self.status.write(self.run)

    def leave(self, reason: str) -> None:
        """Notes that the run goes on another time, and lets others have its directory: the process ends after it."""
        self.note_ending("preempted", reason)
        if self.lease:
            self.lease.release()

    def check_lease(self) -> None:
        """Raises UserError where another run has taken the run directory over."""
        if self.lease:
            self.lease.check()
