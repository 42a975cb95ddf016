"""A process that ends the workers when the launcher is gone and could not do it itself, as after SIGKILL.

Its standard input is a pipe from the launcher. It reads there which workers run, and when the pipe ends it kills those
that still do, with all processes of their sessions. Unlike Linux's parent-death signal it works on macOS too and
reaches the workers' own children; a worker that was started less than a millisecond before the launcher's end it
may not know yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import BinaryIO

_SECONDS_TO_END = 5.0


class Guard:
    """The launcher's end of the pipe."""

    def __init__(self) -> None:
        """Starts the process, in a session of its own, so that a terminal's Ctrl-C does not reach it."""
        # Isolated and without site-packages, because it needs nothing but to be there soon.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self, session: int) -> None:
        """Has all processes of a session killed if the launcher ends before `forget`."""
        self._say(f"+{session}\n")

    def forget(self, session: int) -> None:
        """Takes back `watch`: the session is over, and its number may come again."""
        self._say(f"-{session}\n")

    def close(self) -> None:
        """Ends the process; kills what is still watched."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        # Somebody may have killed it; the workers are still the launcher's own to end.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def stand_guard(commands: BinaryIO) -> None:
    """Reads what `Guard` writes; at its end, kills the sessions that are watched."""
    sessions: set[int] = set()
    for line in commands:
        session = int(line[1:])
        (sessions.add if line.startswith(b"+") else sessions.discard)(session)
    for session in sessions:
        # It is over, or, on macOS, none of its processes is more than a name that waits to be read.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)


if __name__ == "__main__":
    stand_guard(sys.stdin.buffer)
