"""What has not come back for many minutes will not come back: show where it hangs, and end.

Collective operations wait without end for a worker that hangs itself, and a cloud's bill goes on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from trainer.deadline import attempt
from trainer.records.worker_states import WorkerStates

EXIT_STALLED = 1
"""A fault, and nothing that the user must change: whoever supervises may start the run again."""

_LOOKS_A_LIMIT = 20
"""How often the time is looked at within `--stall_minutes`."""

_LONGEST_BETWEEN_LOOKS_SECONDS = 30.0

_SECONDS_FOR_LAST_WORDS = 10.0


class StallDetector:
    """Ends the process when what is `watched` takes too long. For one thread that is watched."""

    def __init__(
        self,
        minutes: float,
        states: WorkerStates,
        note_failure: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Prepares to watch.

        Args:
          minutes: what a call may take; 0: any time.
          states: how far each worker is; this worker's is kept up to date.
          note_failure: writes down why the run ended, as in status.json.
          clock: seconds.
          leave: ends the process with an exit code, whatever its threads are doing.
        """
        self._seconds = 60 * minutes
        self._states = states
        self.step = 0
        """Steps that this worker has done."""
        self._note_failure = note_failure
        self._clock = clock
        self._leave = leave
        self._what = ""
        self._since = 0.0
        self._closed = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Looks at the time, in a thread, while it lasts."""
        thread = threading.Thread(target=self._look_again_and_again, name="stall detector", daemon=True)
        if self._seconds:
            thread.start()
        try:
            yield
        finally:
            self._closed.set()
            if self._seconds:
                thread.join()

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Watches a call: `what` it is, such as "training steps"."""
        self._what, self._since = what, self._clock()
        try:
            yield
        finally:
            self._what = ""

    def look(self) -> None:
        """Ends the process if it is time; otherwise brings this worker's state up to date."""
        what, seconds = self._what, self._clock() - self._since
        self._states.write(self.step, f"in {what} for {seconds:.0f} seconds" if what else "between calls")
        if what and seconds > self._seconds:
            self._end(f"{what} did not come back for {seconds / 60:.1f} minutes (--stall_minutes)")

    def _look_again_and_again(self) -> None:
        while not self._closed.wait(min(_LONGEST_BETWEEN_LOOKS_SECONDS, self._seconds / _LOOKS_A_LIMIT)):
            self.look()

    def _end(self, reason: str) -> None:
        sentence = f"{reason}, after step {self.step}."
        print(f"error: {sentence}\nThreads of this worker:\n{_stacks()}", file=sys.stderr, flush=True)
        attempt(self._print_states, _SECONDS_FOR_LAST_WORDS)
        attempt(lambda: self._note_failure(sentence), _SECONDS_FOR_LAST_WORDS)
        self._leave(EXIT_STALLED)

    def _print_states(self) -> None:
        for line in self._states.read():
            print(line, file=sys.stderr, flush=True)


def _stacks() -> str:
    """Where every thread of this process is, the innermost call first."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().rstrip("\n")
