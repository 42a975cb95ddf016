"""A thread that writes while the devices compute: checkpoints, metrics, status.json, in the order of their coming."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

Job = Callable[[], None]


@dataclass(frozen=True)
class _Entry:
    kind: str
    job: Job


class BackgroundWriter:
    """Carries out jobs one after the other. What a job raises is raised again where the next one is handed over.

    A context manager: at its end all jobs are done. For one thread that hands over.
    """

    def __init__(self) -> None:
        """Starts nothing: the thread comes with the first job."""
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._running: str | None = None
        self._error: BaseException | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for all jobs; where the block ended in an error, that is the news, and not one of a job's."""
        self._finish()
        if error is None:
            self._raise_error()

    def submit(self, kind: str, job: Job) -> None:
        """Hands over a job; one of the same kind that still waits is not carried out any more.

        For jobs whose newest says all, such as `status`; others need kinds of their own, see `append`.

        Raises:
          whatever an earlier job raised.
        """
        with self._changed:
            self._waiting = deque(entry for entry in self._waiting if entry.kind != kind)
        self.append(kind, job)

    def append(self, kind: str, job: Job) -> None:
        """Hands over a job that must be carried out.

        Raises:
          whatever an earlier job raised.
        """
        self._raise_error()
        with self._changed:
            self._waiting.append(_Entry(kind, job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="background writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def busy(self, kind: str) -> bool:
        """Whether a job of this kind waits or is being carried out."""
        with self._changed:
            return self._running == kind or any(entry.kind == kind for entry in self._waiting)

    def wait_for(self, kind: str) -> None:
        """Waits until no job of this kind is left.

        Raises:
          whatever an earlier job raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._running != kind and all(entry.kind != kind for entry in self._waiting))
        self._raise_error()

    def _finish(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def _raise_error(self) -> None:
        with self._changed:
            error, self._error = self._error, None
        if error:
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                entry = self._waiting.popleft()
                self._running = entry.kind
            try:
                entry.job()
            except BaseException as error:
                with self._changed:
                    # What was handed over after it may rest on it, as a status on a checkpoint.
                    self._waiting.clear()
                    self._error = self._error or error
