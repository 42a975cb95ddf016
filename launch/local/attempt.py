"""One start of all workers, to the end of all.

Workers that train together need each other: when one dies, the others wait for it in vain, so they are ended. It all
happens in one loop that waits for output, for signals and for the next deadline, whichever comes first; there are no
threads and no polling.
"""

from __future__ import annotations

import enum
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from launch.local.guard import Guard
from launch.local.signals import SignalInbox
from launch.local.worker_logs import Console, WorkerOutput
from launch.local.worker_processes import WorkerProcess
from trainer.errors import EXIT_PREEMPTED, EXIT_USER, UserError

_SECONDS_TO_DRAIN = 1.0
"""How long the rest of the output is waited for after the last worker has ended: a process that left its worker's
session may hold a pipe open for ever."""


class _Stage(enum.Enum):
    RUNNING = "all is well"
    SETTLING = "one has failed; the others may end by themselves"
    ENDING = "all were asked to end"
    KILLED = "all were killed"


@dataclass(frozen=True)
class Ending:
    """How it ended.

    Attributes:
      codes: exit codes of all workers, in their order, negative for a signal.
      first_failed: the worker that failed first; None where none did before it was asked to end.
      interrupted: whether the launcher was asked to end.
    """

    codes: list[int]
    first_failed: int | None
    interrupted: bool

    @property
    def preempted(self) -> bool:
        """Whether the workers ended by themselves to go on another time."""
        return not self.interrupted and EXIT_PREEMPTED in self.codes and set(self.codes) <= {0, EXIT_PREEMPTED}


class Patience(NamedTuple):
    """Seconds that workers get; see the fields of the same names of `launch.local.supervise.Launch`."""

    settle_seconds: float
    grace_seconds: float
    save_seconds: float


class Attempt:
    """Starts workers, shows what they print, and ends all when one fails or the launcher is to end."""

    def __init__(
        self,
        inbox: SignalInbox,
        guard: Guard,
        console: Console,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing yet.

        Args:
          inbox: tells of signals, and that a process has ended.
          guard: is told which sessions to kill should this process vanish.
          console: shows what the workers print.
          patience: how long workers may take to end.
          clock: seconds.
        """
        self._inbox = inbox
        self._guard = guard
        self._console = console
        self._patience = patience
        self._clock = clock
        self._workers: list[WorkerProcess] = []
        self._stage = _Stage.RUNNING
        self._deadline: float | None = None
        self._first_failed: int | None = None
        self._interrupted = False

    def run(self, command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> Ending:
        """Does it all; once only.

        Args:
          command: of every worker.
          environments: one for each worker.

        Raises:
          UserError: the system starts no further process.
        """
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._inbox, selectors.EVENT_READ)
            try:
                self._start(command, environments)
                while self._running():
                    self._wait()
                self._drain()
            finally:
                self._kill_all()
        return Ending([worker.process.returncode for worker in self._workers], self._first_failed, self._interrupted)

    def _start(self, command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> None:
        said: dict[str, str] = {}
        for index, environment in enumerate(environments):
            try:
                worker = WorkerProcess(index, command, environment)
            except OSError as error:
                raise UserError(f"Worker {index} could not be started ({error}): are --workers too many?") from None
            self._workers.append(worker)
            self._guard.watch(worker.process.pid)
            for pipe, printer in (
                (worker.process.stdout, self._console.out),
                (worker.process.stderr, self._console.err),
            ):
                assert pipe
                output = WorkerOutput(pipe, printer, worker.name, index, said)
                self._selector.register(output, selectors.EVENT_READ)
            self._console.note(f"{worker.name} is process {worker.process.pid}")

    def _running(self) -> bool:
        return any(worker.code is None for worker in self._workers)

    def _wait(self) -> None:
        """Waits until something happens, and does what it asks for."""
        self._read_output(self._deadline)
        for number in self._inbox.read():
            self._interrupt(number)
        for worker in self._workers:
            if worker.ended():
                self._guard.forget(worker.process.pid)
                if worker.code:
                    self._worker_failed(worker)
        if self._deadline is not None and self._clock() >= self._deadline:
            self._send(signal.SIGTERM if self._stage is _Stage.SETTLING else signal.SIGKILL)

    def _read_output(self, deadline: float | None) -> None:
        """Passes on what workers print, once something has come; returns at a signal or the deadline, too."""
        timeout = None if deadline is None else max(0.0, deadline - self._clock())
        for key, _ in self._selector.select(timeout):
            if isinstance(key.fileobj, WorkerOutput) and not key.fileobj.pass_on():
                self._close(key.fileobj)

    def _worker_failed(self, worker: WorkerProcess) -> None:
        if self._stage is _Stage.RUNNING:
            self._first_failed = worker.index
            # Who stops for now has left the chief saving.
            preempted = worker.code == EXIT_PREEMPTED
            seconds = self._patience.save_seconds if preempted else self._patience.settle_seconds
            self._stage, self._deadline = _Stage.SETTLING, self._clock() + seconds
        if self._stage is _Stage.SETTLING and worker.code == EXIT_USER:  # It has told what is wrong.
            self._deadline = self._clock()

    def _interrupt(self, number: signal.Signals) -> None:
        """Hands the first signal on; at the second, patience is at its end."""
        if self._interrupted:
            self._send(signal.SIGKILL)
            return
        self._interrupted = True
        self._send(signal.SIGTERM if number == signal.SIGHUP else number)

    def _send(self, number: signal.Signals) -> None:
        """Sends a signal to all that run, and waits for its effect."""
        for worker in self._workers:
            worker.send(number)
        if number == signal.SIGKILL:
            self._stage, self._deadline = _Stage.KILLED, None
        else:
            seconds = self._patience.save_seconds if self._interrupted else self._patience.grace_seconds
            self._stage, self._deadline = _Stage.ENDING, self._clock() + seconds

    def _outputs(self) -> list[WorkerOutput]:
        keys = self._selector.get_map().values()
        return [key.fileobj for key in keys if isinstance(key.fileobj, WorkerOutput)]

    def _drain(self) -> None:
        """Shows the rest of the output."""
        deadline = self._clock() + _SECONDS_TO_DRAIN
        while self._outputs() and self._clock() < deadline:
            self._read_output(deadline)

    def _kill_all(self) -> None:
        """Leaves nothing behind, whatever happened."""
        for worker in self._workers:
            worker.send(signal.SIGKILL)
            worker.process.wait()
            self._guard.forget(worker.process.pid)
        for output in self._outputs():
            self._close(output)

    def _close(self, output: WorkerOutput) -> None:
        self._selector.unregister(output)
        output.close()
