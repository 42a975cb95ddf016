"""Signals as something to wait for beside pipes: no handler runs in the middle of other work."""

from __future__ import annotations

import signal
import socket
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks the launcher to end: Ctrl-C, a polite kill, a terminal that was closed."""


class SignalInbox:
    """Collects `ENDING` and SIGCHLD while it is entered, which must be in the main thread.

    A signal that was ignored when the program started, as `nohup` and shells do for background jobs, stays ignored.
    """

    def __enter__(self) -> SignalInbox:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._handlers: dict[signal.Signals, Any] = {}
        for number in (*ENDING, signal.SIGCHLD):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN or number == signal.SIGCHLD:
                self._handlers[number] = handler
                signal.signal(number, _leave_to_the_inbox)
        self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._previous)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader.fileno()

    def read(self) -> list[signal.Signals]:
        """Those of `ENDING` that have come since the last call, in their order."""
        try:
            numbers = self._reader.recv(4096)
        except BlockingIOError:
            return []
        return [number for number in map(signal.Signals, numbers) if number in ENDING]


def _leave_to_the_inbox(number: int, frame: FrameType | None) -> None:
    """Python calls it after it has written the number into the inbox; without a handler it would not."""
