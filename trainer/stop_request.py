"""Somebody wants the run to stop for now: a signal, the cloud, or `--max_minutes`. No TensorFlow.

While steps run, a request waits for the next boundary, where the run saves and leaves (`StopRequest.at_boundaries`).
Otherwise there is nothing to save that is not saved already, and it interrupts at once. Either way the process is gone
some seconds after it was asked: a cloud gives 30 before it pulls the plug.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from trainer.deadline import attempt
from trainer.errors import EXIT_PREEMPTED

_SECONDS_FOR_LAST_WORDS = 3.0
"""Of those in which the process must be gone, what noting its end may take."""


class Preempted(KeyboardInterrupt):
    """The run is to stop for now and can be started again; the message says why.

    Like Ctrl-C it is no error of the program, and passes where errors are caught.
    """


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Puts back, at the end, whatever takes SIGTERM and SIGINT now.

    TensorFlow takes SIGTERM for itself when the workers connect, and does nothing with it that a run would notice
    (2.21: the coordination service's notice of preemption). Does nothing in another thread than the main one, which has
    no say in it.
    """
    before = {number: signal.getsignal(number) for number in _REASONS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: it was set by no Python program.
                    signal.signal(number, handler)


class StopRequest:
    """Whether and why the run is to stop. Without `listening` nobody asks but `ask` and the clock."""

    def __init__(
        self,
        *,
        max_minutes: float = 0.0,
        within_seconds: float = 25.0,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Begins to count.

        Args:
          max_minutes: from now on; 0: no limit.
          within_seconds: how long after `ask` the process ends in any case.
          clock: seconds.
          leave: ends the process with an exit code, whatever its threads are doing.
        """
        self._clock = clock
        self._deadline = clock() + 60 * max_minutes if max_minutes else None
        self._max_minutes = max_minutes
        self._within_seconds = within_seconds
        self._leave = leave
        self._reason = ""
        self._interrupts = 0
        self._timer: threading.Timer | None = None
        self._waits_for_boundary = False
        self._last_words: Callable[[str], None] = lambda reason: None

    @property
    def reason(self) -> str:
        """Why the run is to stop; "" as long as it is not."""
        if not self._reason and self._deadline is not None and self._clock() >= self._deadline:
            return f"--max_minutes={self._max_minutes:g} are over"
        return self._reason

    def ask(self, reason: str) -> None:
        """Asks the run to stop, from any thread; from now on the seconds count. Only the first time matters."""
        if self._reason:
            return
        self._reason = reason
        patience = max(0.0, self._within_seconds - _SECONDS_FOR_LAST_WORDS)
        self._timer = threading.Timer(patience, self._leave_in_any_case)
        self._timer.daemon = True
        self._timer.start()

    def interrupt(self, reason: str) -> None:
        """As `ask`, and interrupts the main thread, which must be `listening`, where nothing runs at boundaries."""
        self.ask(reason)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    @contextlib.contextmanager
    def at_boundaries(self, last_words: Callable[[str], None]) -> Iterator[None]:
        """While it lasts, nothing is interrupted: who is inside asks for `reason` again and again, and stops itself.

        Args:
          last_words: called, in another thread, should that take too long: notes why the run ended.

        Raises:
          Preempted: the run was asked to stop before.
        """
        if self._reason:
            raise Preempted(self._reason)
        self._waits_for_boundary, self._last_words = True, last_words
        try:
            yield
        finally:
            self._waits_for_boundary = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGTERM and SIGINT as requests. To be called in the main thread.

        A signal is seen within a moment even while TensorFlow computes, when Python's own handlers have to wait. Ctrl-C
        for the second time interrupts at once.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before = {number: signal.signal(number, self._interrupt) for number in _REASONS}
        wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            writer.close()
            if self._timer:
                self._timer.cancel()

    def _listen(self, reader: socket.socket) -> None:
        with reader:
            while received := reader.recv(1):
                number = received[0]
                if number in _REASONS:
                    self.ask(_REASONS[signal.Signals(number)])

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        """Python's handler, between two instructions of the main thread."""
        self._interrupts += number == signal.SIGINT
        self.ask(_REASONS[signal.Signals(number)])
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if not self._waits_for_boundary:
            raise Preempted(self._reason)

    def _leave_in_any_case(self) -> None:
        attempt(lambda: self._last_words(self._reason), _SECONDS_FOR_LAST_WORDS)
        print(
            f"warning: {self._reason}; the run was not ready to stop within {self._within_seconds:g} seconds. The same "
            "command goes on from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        self._leave(EXIT_PREEMPTED)


_REASONS = {
    signal.SIGTERM: "asked to end (SIGTERM)",
    signal.SIGINT: "interrupted from the keyboard",
}
