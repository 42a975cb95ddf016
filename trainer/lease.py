"""One run directory, one run: whoever comes second is told who has it, and since when. No TensorFlow.

A lease is a small file or object in the run directory that says who holds it. The holder shows itself every few
seconds. A holder that has ended without giving the lease back is known by its process number on its own machine, and
elsewhere by its silence; of all who find it dead, one takes the lease over. `trainer.lease_local` and
`trainer.lease_bucket` know the two places where a lease can lie.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trainer.errors import UserError
from trainer.lease_holder import DEAD_SECONDS, HEARTBEAT_SECONDS, Holder, Verdict

LOST_SECONDS = 45.0
"""A holder that could not show itself for so long stops: others are about to take it for dead (`DEAD_SECONDS`)."""

_LOOK_AGAIN_SECONDS = 2.0
"""How often to look after a holder that is probably dead."""

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Standing:
    """What keeps a lease from being taken.

    Attributes:
      verdict: `HELD` or `LATE`.
      holder: who has it; None where that cannot be read.
      silent_seconds: since the holder has shown itself.
      dead_seconds: after so long it is dead, if it stays silent.
    """

    verdict: Verdict
    holder: Holder | None
    silent_seconds: float = 0.0
    dead_seconds: float = DEAD_SECONDS


class LeaseLostError(Exception):
    """The lease is another's, or gone.

    Attributes:
      holder: who has it now; None: nobody that can be told.
    """

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder)
        self.holder = holder


class Place(Protocol):
    """Where a lease lies. What the user can mend is raised as `UserError`."""

    path: str
    """Of the run directory."""

    flag: str
    """Which one gave it."""

    def try_to_take(self, me: Holder) -> Standing | None:
        """Takes the lease if it is free or its holder is dead; None: it is taken. Of several callers one takes it."""

    def renew(self, me: Holder) -> None:
        """Shows that the holder lives.

        Raises:
          LeaseLostError: somebody else has the lease now, or it was deleted.
          OSError: the place does not answer; neither is then known.
        """

    def release(self, me: Holder) -> None:
        """Gives the lease back if it still is the holder's. Where the place does not answer, it is left there."""


def boot_time() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them (Linux)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """A run directory that is this process' own; a context manager that gives it back.

    A thread renews it. Whoever writes to the directory calls `check` now and then.
    """

    run_dir: str
    """The directory, as it was given or chosen."""

    def __init__(
        self,
        place: Place,
        me: Holder,
        run_dir: str,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        clock: Callable[[], float] = boot_time,
        waking_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to show that the holder lives. Use `take`.

        Args:
          place: where the lease lies; it has been taken there.
          me: the holder.
          run_dir: see the attribute.
          heartbeat_seconds: see `HEARTBEAT_SECONDS`.
          clock: seconds, those in which the machine sleeps included.
          waking_clock: seconds without those, for the patience with a place that does not answer: just after it has
            woken up, a machine has no network.
        """
        self.run_dir = run_dir
        self._place = place
        self._me = me
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._waking_clock = waking_clock
        self._renewed = clock()
        self._failing_since: float | None = None
        self._problem = "no answer"
        self._another_has_it: str | None = None
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def lost(self) -> str | None:
        """Why nothing may be written to the run directory any more, as a sentence; None: all is well."""
        if self._another_has_it:
            return self._another_has_it
        # The last heartbeat that succeeded was one interval before the first that did not.
        patience = LOST_SECONDS - HEARTBEAT_SECONDS
        failing_since = self._failing_since
        if failing_since is None or self._waking_clock() - failing_since <= patience:
            return None
        return (
            f"The lease of {self._place.path} could not be renewed for {LOST_SECONDS:g} s ({self._problem}), and "
            "another run may take the directory: start again, and this run goes on from its last checkpoint."
        )

    def check(self) -> None:
        """Makes sure that the run directory still is this process' own.

        Costs nothing, except after the machine has slept: then it looks.

        Raises:
          UserError: it is not; the sentence is `lost`.
        """
        while not self.lost and self._clock() - self._renewed > LOST_SECONDS:
            if not self._renew():
                time.sleep(_RETRY_SECONDS)
        self._raise_if_lost()

    def confirm(self) -> None:
        """The same, and looks in any case: some time after the lease was taken it shows who took it last.

        On a network file system where the machines do not see each other's locks two can take it in the same moment.

        Raises:
          UserError: it is another's.
        """
        while not self.lost and not self._renew():
            time.sleep(_RETRY_SECONDS)
        self._raise_if_lost()

    def release(self) -> None:
        """Ends the heartbeat and gives the lease back, once; later calls do nothing, nor those in a forked process."""
        if self._stop.is_set() or os.getpid() != self._me.pid:
            return
        self._stop.set()
        self._thread.join()
        self._place.release(self._me)

    def _raise_if_lost(self) -> None:
        lost = self.lost
        if lost:
            raise UserError(lost)

    def _beat(self) -> None:
        while not self._another_has_it and not self._stop.wait(self._heartbeat_seconds):
            self._renew()

    def _renew(self) -> bool:
        """Whether the place could be asked; who has the lease is known then."""
        # The other thread may wait for an answer that does not come.
        if not self._renewing.acquire(timeout=_RETRY_SECONDS):
            return False
        began = self._clock()
        if self._failing_since is None:
            self._failing_since = self._waking_clock()
        try:
            self._place.renew(self._me)
        except LeaseLostError as error:
            self._another_has_it = _lost_sentence(self._place, error.holder)
        except (OSError, UserError) as error:
            self._problem = str(error).rstrip(".")
            return False
        finally:
            self._renewing.release()
        self._renewed = began
        self._failing_since = None
        return True


def take(
    place: Place,
    run_dir: str,
    announce: Callable[[str], None],
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Takes a lease, if need be after waiting until its holder, which is probably dead, surely is.

    Args:
      place: where the lease lies.
      run_dir: the directory as it was given or chosen.
      announce: is told why it waits.
      now: seconds since 1970.
      sleep: waits that many seconds.

    Raises:
      UserError: another run holds it, or the place cannot be written.
    """
    me = Holder.this_process(now())
    announced = False
    while (standing := place.try_to_take(me)) is not None:
        who = str(standing.holder or "another process")
        if standing.verdict is Verdict.HELD:
            raise UserError(
                f"{place.flag}={place.path} is held by {who}: wait until that run has ended, or give another "
                f"{place.flag}."
            )
        if not announced:
            announce(
                f"{place.path} is held by {who}, which has not shown itself for {standing.silent_seconds:.0f} s: "
                f"waiting until it has been silent for {standing.dead_seconds:g} s"
            )
            announced = True
        sleep(_LOOK_AGAIN_SECONDS)
    return Lease(place, me, run_dir)


def _lost_sentence(place: Place, holder: Holder | None) -> str:
    if holder is None:
        return f"The lease of {place.path} is gone, so the directory was deleted or moved: start again."
    return f"{place.path} was taken over by {holder} while this machine did not answer: leave the run to that process."
