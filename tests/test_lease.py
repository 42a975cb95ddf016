"""Who holds a run directory: whether the holder lives, what the others are told, and when a holder must stop."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.lease import Lease, LeaseLostError, Standing, take
from trainer.lease_holder import Holder, Verdict, judge

ME = Holder.this_process(1_800_000_000.0)
ELSEWHERE = dataclasses.replace(ME, host="other", pid=4711, boot="another machine", token="0123456789abcdef")
WHO = "process 4711 on other since 2027-01-15 08:00:00 UTC"


@pytest.mark.parametrize(
    ("silent_seconds", "verdict"),
    [
        (-5.0, Verdict.HELD),
        (0.0, Verdict.HELD),
        (24.9, Verdict.HELD),
        (25.0, Verdict.LATE),
        (59.9, Verdict.LATE),
        (60.0, Verdict.DEAD),
    ],
)
def test_a_holder_on_another_machine_is_judged_by_its_silence(silent_seconds: float, verdict: Verdict) -> None:
    assert judge(ELSEWHERE, silent_seconds, ME) is verdict


@contextmanager
def sleeping_process() -> Iterator[Holder]:
    """A process that holds something, until the block ends; it is not asked about before."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        yield dataclasses.replace(ME, pid=process.pid, started=int(fields[19]), token="")
    finally:
        process.kill()
        process.communicate()


def test_a_holder_on_this_machine_is_judged_by_its_process() -> None:
    with sleeping_process() as holder:
        assert judge(holder, 1000.0, ME) is Verdict.HELD
        assert judge(dataclasses.replace(holder, started=holder.started + 1), 0.0, ME) is Verdict.DEAD, "another one"
        in_container = dataclasses.replace(holder, pid_namespace="pid:[1]", pid=4_000_000)
        assert judge(in_container, 0.0, ME) is Verdict.HELD and judge(in_container, 60.0, ME) is Verdict.DEAD
        os.kill(holder.pid, 9)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert judge(holder, 0.0, ME) is Verdict.DEAD, "it has ended, though its parent has not asked yet"
    assert judge(holder, 0.0, ME) is Verdict.DEAD


def test_an_earlier_process_with_this_number_is_dead_and_this_one_is_not() -> None:
    assert judge(dataclasses.replace(ME, started=ME.started - 1), 0.0, ME) is Verdict.DEAD
    assert judge(dataclasses.replace(ME, token="of another lease"), 1000.0, ME) is Verdict.HELD


def test_what_a_lease_says_can_be_read_again() -> None:
    assert Holder.parse(ME.to_json() + b"rest of a longer one") == ME
    for damaged in (b"", b"{}", ME.to_json()[:-10], b"[1]", ME.to_json().replace(str(ME.pid).encode(), b"0")):
        assert Holder.parse(damaged) is None


class FakePlace:
    """A lease that is refused as told, and whose renewals fail as told.

    Attributes:
      standings: what keeps it from being taken, one time after the other.
      error: what renewing it raises.
      renewals: how often that was tried.
      released: how often it was given back.
    """

    path = "/runs/a"
    flag = "--run_dir"

    def __init__(self, *standings: Standing) -> None:
        self.standings = list(standings)
        self.error: Exception | None = None
        self.renewals = 0
        self.released = 0

    def try_to_take(self, me: Holder) -> Standing | None:
        return self.standings.pop(0) if self.standings else None

    def renew(self, me: Holder) -> None:
        self.renewals += 1
        if self.error:
            raise self.error

    def release(self, me: Holder) -> None:
        self.released += 1


def test_a_lease_that_is_held_is_refused_with_the_holder_and_the_way_out() -> None:
    with pytest.raises(UserError) as refused:
        take(FakePlace(Standing(Verdict.HELD, ELSEWHERE)), "a", pytest.fail)
    assert str(refused.value) == (
        f"--run_dir=/runs/a is held by {WHO}: wait until that run has ended, or give another --run_dir."
    )
    with pytest.raises(UserError, match="is held by another process: "):
        take(FakePlace(Standing(Verdict.HELD, None)), "a", pytest.fail)


def test_a_holder_that_is_probably_dead_is_waited_for_once_it_is_said() -> None:
    said: list[str] = []
    slept: list[float] = []
    late = [Standing(Verdict.LATE, ELSEWHERE, 31.4), Standing(Verdict.LATE, ELSEWHERE, 58.0)]
    with take(FakePlace(*late), "a", said.append, sleep=slept.append) as lease:
        assert lease.run_dir == "a"
    assert said == [
        f"/runs/a is held by {WHO}, which has not shown itself for 31 s: waiting until it has been silent for 60 s"
    ]
    assert slept == [2.0, 2.0]
    with pytest.raises(UserError, match=f"is held by {WHO}"):
        take(FakePlace(late[0], Standing(Verdict.HELD, ELSEWHERE)), "a", said.append, sleep=slept.append)
    assert len(slept) == 3


class Clocks:
    """Seconds, with and without those in which the machine sleeps."""

    def __init__(self) -> None:
        self.all = 1000.0
        self.waking = 500.0

    def work(self, seconds: float) -> None:
        self.all += seconds
        self.waking += seconds

    def sleep(self, seconds: float) -> None:
        self.all += seconds


@contextmanager
def held(place: FakePlace, clocks: Clocks, heartbeat_seconds: float = 1000.0) -> Iterator[Lease]:
    lease = Lease(
        place,
        ME,
        "a",
        heartbeat_seconds=heartbeat_seconds,
        clock=lambda: clocks.all,
        waking_clock=lambda: clocks.waking,
    )
    with lease:
        yield lease


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_holder_shows_itself_until_it_gives_the_lease_back() -> None:
    place = FakePlace()
    with held(place, Clocks(), 0.001) as lease:
        wait_for(lambda: place.renewals >= 3)
        lease.check()
    assert place.released == 1
    renewals = place.renewals
    lease.release()
    time.sleep(0.02)
    assert (place.released, place.renewals) == (1, renewals)


@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        (ELSEWHERE, f"/runs/a was taken over by {WHO} while this machine did not answer"),
        (None, "The lease of /runs/a is gone, so the directory was deleted or moved: start again."),
    ],
)
def test_a_heartbeat_that_finds_another_holder_ends_the_run(holder: Holder | None, sentence: str) -> None:
    place = FakePlace()
    with held(place, Clocks(), 0.001) as lease:
        assert lease.lost is None
        place.error = LeaseLostError(holder)
        wait_for(lambda: lease.lost is not None)
        with pytest.raises(UserError, match=sentence):
            lease.check()
        renewals = place.renewals
        time.sleep(0.02)
        assert place.renewals == renewals, "what is another's is left alone"


def test_a_lease_that_cannot_be_renewed_is_lost_before_others_may_take_it() -> None:
    place, clocks = FakePlace(), Clocks()
    with held(place, clocks, 0.001) as lease:
        place.error = OSError(5, "Input/output error")
        clocks.work(10.0)
        tried = place.renewals
        wait_for(lambda: place.renewals > tried + 1)
        clocks.work(34.9)
        assert lease.lost is None
        clocks.work(0.2)
        with pytest.raises(UserError, match=r"lease of /runs/a could not be renewed for 45 s \(.*Input/output error\)"):
            lease.check()
        place.error = None
        wait_for(lambda: lease.lost is None)
        lease.check()


def test_a_heartbeat_that_hangs_loses_the_lease_too(monkeypatch: pytest.MonkeyPatch) -> None:
    place, clocks, answered = FakePlace(), Clocks(), threading.Event()
    place.renew = lambda me: answered.wait(10.0) and None  # type: ignore[method-assign, assignment]
    with held(place, clocks, 0.001) as lease:
        wait_for(lambda: lease._failing_since is not None)
        clocks.sleep(3600.0)
        monkeypatch.setattr("trainer.lease.time.sleep", lambda seconds: clocks.work(40.0))
        with pytest.raises(UserError, match=r"could not be renewed for 45 s \(no answer\)"):
            lease.check()
        answered.set()


def test_after_a_sleep_of_the_machine_the_lease_is_looked_at_before_all_else() -> None:
    place, clocks = FakePlace(), Clocks()
    with held(place, clocks) as lease:
        lease.check()
        assert place.renewals == 0
        clocks.sleep(3600.0)
        lease.check()
        lease.check()
        assert place.renewals == 1
        clocks.sleep(3600.0)
        place.error = LeaseLostError(ELSEWHERE)
        with pytest.raises(UserError, match=f"taken over by {WHO}"):
            lease.check()


def test_after_a_sleep_the_network_may_take_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    place, clocks = FakePlace(), Clocks()
    with held(place, clocks) as lease:

        def network_comes_back(seconds: float) -> None:
            clocks.work(seconds)
            if place.renewals == 20:
                place.error = None

        monkeypatch.setattr("trainer.lease.time.sleep", network_comes_back)
        clocks.sleep(3600.0)
        place.error = OSError(101, "Network is unreachable")
        lease.check()
        assert place.renewals == 21


def test_confirming_looks_in_any_case() -> None:
    place = FakePlace()
    with held(place, Clocks()) as lease:
        lease.confirm()
        assert place.renewals == 1
        place.error = LeaseLostError(ELSEWHERE)
        with pytest.raises(UserError, match=f"taken over by {WHO}"):
            lease.confirm()
