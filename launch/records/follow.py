"""Following a job from here: its states and its log lines, until it has ended and the last lines have come.

Following and the job are two things: Ctrl-C, a network that is gone and credentials that expire end the following, and
the job goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from launch.google.api_errors import ApiError, sentence
from launch.local.worker_logs import Console, Printer
from launch.services.service import JobStatus, LogLine, State
from trainer.errors import UserError
from trainer.wording import duration

POLL_SECONDS = 5.0
"""Between two looks: 12 requests a minute for log entries. Google's page of quotas used to give a project 60, and now
points to the project's own list (cloud.google.com/logging/quotas, 2026-11)."""

PATIENCE_SECONDS = 600.0
"""How long APIs may fail in a row before the following ends."""

HEARTBEAT_SECONDS = 300.0
"""How long nothing is said while a state stays as it is and no lines come."""

LATE_SECONDS = 60.0
"""How long after its end a job's lines are waited for: Cloud Logging shows them seconds after they were printed."""

SILENT_SECONDS = 15.0
"""After so long without a line nothing more is waited for, once the job has ended."""

_VERBS = {State.SUCCEEDED: "", State.FAILED: "", State.CANCELLED: "was ", State.PREEMPTED: "was "}
"""What stands before a state in a sentence, where it is not "is"."""

Answered = TypeVar("Answered")


class LineSource(Protocol):
    """A job's log, as it comes."""

    def new_lines(self) -> Iterable[LogLine]:
        """The lines that have come since the last call, in their order.

        Raises:
          ApiError: they cannot be read now.
        """


class Follower:
    """Looks at a job again and again."""

    def __init__(
        self,
        look: Callable[[str], JobStatus],
        console: Console,
        *,
        open_lines: Callable[[JobStatus], LineSource] | None = None,
        request_again: Callable[[JobStatus], JobStatus | None] | None = None,
        most_seconds: float = math.inf,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Asks nothing yet.

        Args:
          look: gives the status of a job by its full name.
          console: shows lines and what happens.
          open_lines: gives the log of a job; None where its states alone are wanted.
          request_again: requests the machines of a preempted job again, and gives what it made; None if it must not, or
            may not any more. Without it, a preempted job has ended.
          most_seconds: how long the end is waited for.
          heartbeat_seconds: how long nothing may be said while nothing happens.
          sleep: pauses.
          clock: seconds since 1970.
        """
        self._look = look
        self._console = console
        self._open_lines = open_lines
        self._reads_log = open_lines is not None
        self._request_again = request_again
        self._heartbeat_seconds = heartbeat_seconds
        self._deadline = clock() + most_seconds
        self._sleep = sleep
        self._clock = clock
        self._colors: dict[str, int] = {}
        self._last_news = clock()

    def follow(self, resource: str) -> JobStatus:
        """Follows a job to its end.

        Args:
          resource: its full name.

        Returns:
          How it ended, or how it stands after `most_seconds`.

        Raises:
          ApiError: an API refused, or failed for `PATIENCE_SECONDS`.
          UserError: there is no such job, or it may not be seen.
        """
        status = self._get(resource)
        while True:
            status = self._to_the_end(status)
            again = self._requested_again(status)
            if again is None:
                return status
            self._console.note(f"{status.name} is requested again, as {again.resource}.")
            status = again

    def _get(self, resource: str) -> JobStatus:
        return self._patiently(lambda: self._look(resource))

    def _requested_again(self, status: JobStatus) -> JobStatus | None:
        request_again = self._request_again
        if status.state is not State.PREEMPTED or request_again is None:
            return None
        return self._patiently(lambda: request_again(status))

    def _to_the_end(self, status: JobStatus) -> JobStatus:
        """Follows one request of the job."""
        self._tell(status)
        lines = self._open_lines(status) if self._open_lines else _NoLines()
        ended = status.ended.timestamp() if status.state.has_ended and status.ended else None
        while not status.state.has_ended:
            if self._clock() >= self._deadline:
                return status
            self._print(lines)
            self._sleep(POLL_SECONDS)
            before, status = status, self._get(status.resource)
            if status.state is not before.state:
                self._tell(status)
            elif self._clock() - self._last_news >= self._heartbeat_seconds:
                self._tell(status, "still ")
        self._print_late(lines, self._clock() if ended is None else ended)
        return status

    def _print_late(self, lines: LineSource, ended: float) -> None:
        """Prints what comes after the end, until nothing does; lines of a job that ended long ago are all there."""
        self._print(lines)
        self._print(lines)  # What a log keeps back until it is settled comes with the second look.
        last_line = self._clock()
        while self._reads_log and self._clock() < min(ended + LATE_SECONDS, last_line + SILENT_SECONDS):
            self._sleep(POLL_SECONDS)
            if self._print(lines):
                last_line = self._clock()

    def _print(self, lines: LineSource) -> bool:
        """Prints what has come; says whether that was anything."""
        if not self._reads_log:
            return False
        try:
            came = self._patiently(lambda: print_new(lines, self._console.out, self._colors))
        except ApiError as error:
            if error.status != 403:
                raise
            self._console.warning(f"{sentence(error, 'The log')} The states of the job are followed without it.")
            self._reads_log = False
            return False
        if came:
            self._last_news = self._clock()
        return came

    def _tell(self, status: JobStatus, still: str = "") -> None:
        self._last_news = self._clock()
        self._console.note(f"{status.name} {_VERBS.get(status.state, 'is ')}{still}{described(status, self._clock())}.")
        if status.error and status.state.has_ended:
            self._console.warning(status.error)

    def _patiently(self, ask: Callable[[], Answered]) -> Answered:
        """What `ask` gives, asked again while the API fails in a way that passes."""
        failing_since = None
        while True:
            try:
                answer = ask()
            except ApiError as error:
                if not error.passes or (failing_since and self._clock() - failing_since >= PATIENCE_SECONDS):
                    raise
                if failing_since is None:
                    failing_since = self._clock()
                    self._console.warning(
                        f"{sentence(error)} It is asked again for up to {duration(PATIENCE_SECONDS)}."
                    )
                self._sleep(POLL_SECONDS)
                continue
            if failing_since is not None:
                self._console.note("It answers again.")
            return answer


class _NoLines:
    """The log of a job whose states alone are wanted."""

    def new_lines(self) -> Iterable[LogLine]:
        return ()


def print_new(lines: LineSource, printer: Printer, colors: dict[str, int]) -> bool:
    """Prints the lines that have come, as they are read; says whether there were any.

    Args:
      lines: the job's log.
      printer: where to.
      colors: a number for each worker that has printed something; new ones are added.

    Raises:
      ApiError: they cannot be read now.
    """
    came = False
    for line in lines.new_lines():
        came = True
        printer.print(line.worker, colors.setdefault(line.worker, len(colors)), line.text.split("\n"))
    return came


def described(status: JobStatus, now: float) -> str:
    """How a job stands and for how long, as in "running (JOB_STATE_RUNNING) for 12 min 05 s".

    Args:
      status: of the job.
      now: seconds since 1970.
    """
    words = f"{status.state.value} ({status.said})" if status.said else status.state.value
    since = status.started or (None if status.state.has_ended else status.created)
    if since is None:
        return words
    until = status.ended.timestamp() if status.state.has_ended and status.ended else now
    return f"{words} {'after' if status.state.has_ended else 'for'} {duration(max(0.0, until - since.timestamp()))}"


def watched(follow: Callable[[], JobStatus], console: Console, commands: Iterable[str]) -> JobStatus | None:
    """Follows a job and takes leave properly where that ends before the job does.

    Args:
      follow: follows the job to its end.
      console: is told why it is followed no more.
      commands: what a person can do then.

    Returns:
      How the job ended; None if it goes on.

    Raises:
      UserError: an API refused, or the job may not be seen.
    """
    try:
        return follow()
    except KeyboardInterrupt:
        console.warning("Interrupted: it is not followed any more, and the job goes on.")
    except ApiError as error:
        said = f"{sentence(error)} It is not followed any more, and the job goes on."
        if not error.passes:
            raise UserError(said) from error
        console.warning(said)
    for command in commands:
        console.warning(f"  {command}")
    return None
