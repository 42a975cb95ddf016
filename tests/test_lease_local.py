"""The lease of a local run directory: one of 16 processes has it, and one of them takes it from a dead holder."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import UserError
from trainer.lease import LeaseLostError, Standing, take
from trainer.lease_holder import Holder, Verdict
from trainer.lease_local import FILE_NAME, LocalPlace

CONTEND = """
import json, sys
from trainer.errors import UserError
from trainer.lease import take
from trainer.lease_local import LocalPlace
assert "tensorflow" not in sys.modules
print("ready", flush=True)
lease = None
for line in sys.stdin:
    order, _, path = line.rstrip().partition(" ")
    answer = {"taken": False, "said": ""}
    if order == "take":
        try:
            lease = take(LocalPlace(path), path, print)
            answer["taken"] = True
        except UserError as error:
            answer["said"] = str(error)
    elif order == "fork":
        import os, subprocess, time
        # Two children that outlive this process: of a program, and of this program itself.
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
        forked = os.fork()
        if not forked:
            lease.release()  # Not its to give back.
            time.sleep(30)
            os._exit(0)
        answer["children"] = [program.pid, forked]
    elif lease:
        lease.release()
        lease = None
    print(json.dumps(answer), flush=True)
"""


class Contender:
    """A process that takes leases and gives them back as it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTEND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def do(self, text: str) -> dict[str, Any]:
        self.order(text)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[[int], list[Contender]]]:
    """Starts contenders; they are gone after the test."""
    started: list[Contender] = []

    def start_some(count: int) -> list[Contender]:
        new = [Contender() for _ in range(count)]
        started.extend(new)
        for contender in new:
            assert contender.process.stdout and contender.process.stdout.readline() == "ready\n"
        return new

    yield start_some
    for contender in started:
        contender.kill()


def dead_holder() -> Holder:
    """A process of this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return dataclasses.replace(Holder.this_process(0.0), pid=process.pid, token="dead")


def leave(folder: Path, holder: Holder, silent_seconds: float = 0.0) -> None:
    """A lease as a killed holder leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_bytes(holder.to_json())
    last_seen = time.time() - silent_seconds
    os.utime(folder / FILE_NAME, (last_seen, last_seen))


def test_of_16_processes_one_takes_a_lease_also_a_dead_holders(
    tmp_path: Path, start: Callable[[int], list[Contender]]
) -> None:
    contenders = start(16)
    for round_number in range(20):
        folder = tmp_path / str(round_number)
        if round_number % 2:
            leave(folder, dead_holder())
        for contender in contenders:
            contender.order(f"take {folder}")
        answers = [contender.answer() for contender in contenders]
        assert [answer["taken"] for answer in answers].count(True) == 1
        winner = next(contender for contender, answer in zip(contenders, answers) if answer["taken"])
        refusal = f"--run_dir={folder} is held by process {winner.process.pid} on {socket.gethostname()} since 20"
        for answer in answers:
            assert answer["taken"] or answer["said"].startswith(refusal)
        winner.do("release")
        assert not (folder / FILE_NAME).exists()


def test_a_killed_holders_lease_is_free_at_once_whatever_children_it_left(
    tmp_path: Path, start: Callable[[int], list[Contender]]
) -> None:
    first, second, third = start(3)
    assert first.do(f"take {tmp_path}")["taken"]
    children = first.do("fork")["children"]
    try:
        assert not second.do(f"take {tmp_path}")["taken"]
        os.kill(first.process.pid, signal.SIGKILL)  # Its parent, this process, has not asked about it.
        os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
        began = time.monotonic()
        assert second.do(f"take {tmp_path}")["taken"]
        assert time.monotonic() - began < 1.0
        for child in children:
            os.kill(child, 0)  # Still there.
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    assert not third.do(f"take {tmp_path}")["taken"]


def test_a_lease_given_back_while_another_process_opens_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(LocalPlace(str(tmp_path / "run")), "", pytest.fail)
    lock = fcntl.flock

    def give_back_and_lock(descriptor: int, operation: int) -> None:
        first.release()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", give_back_and_lock)
    second = LocalPlace(str(tmp_path / "run"))
    me = Holder.this_process(0.0)
    assert second.try_to_take(me) is None
    assert Holder.parse((tmp_path / "run" / FILE_NAME).read_bytes()) == me
    second.release(me)


def test_whoever_only_looks_at_a_dead_holder_is_not_taken_for_one(tmp_path: Path) -> None:
    leave(tmp_path, holder_on("other"), 70.0)
    with (tmp_path / FILE_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        looked = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        looked.start()
        place = LocalPlace(str(tmp_path))
        assert place.try_to_take(Holder.this_process(0.0)) is None
        looked.join()
        place.close()


@pytest.mark.parametrize(
    ("silent_seconds", "verdict"),
    [(3.0, Verdict.HELD), (31.0, Verdict.LATE), (70.0, Verdict.LATE), (121.0, Verdict.HELD)],
)
def test_a_file_server_may_keep_the_lock_of_a_machine_that_is_gone(
    silent_seconds: float, verdict: Verdict, tmp_path: Path
) -> None:
    leave(tmp_path, holder_on("other"), silent_seconds)
    with (tmp_path / FILE_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        standing = LocalPlace(str(tmp_path)).try_to_take(Holder.this_process(0.0))
    assert standing and standing.verdict is verdict
    assert standing.dead_seconds == (60.0 if silent_seconds < 60.0 else 120.0)


def test_a_lock_of_this_machine_counts_whatever_its_file_says(tmp_path: Path) -> None:
    leave(tmp_path, dead_holder(), 70.0)
    with (tmp_path / FILE_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        place = LocalPlace(str(tmp_path), now=lambda: pytest.fail("who is refused makes no files there"))
        standing = place.try_to_take(Holder.this_process(0.0))
    assert standing and standing.verdict is Verdict.HELD


def holder_on(machine: str) -> Holder:
    return dataclasses.replace(Holder.this_process(0.0), host=machine, boot=f"boot of {machine}", token=machine)


def test_a_holder_on_another_machine_counts_by_the_time_of_its_file(tmp_path: Path) -> None:
    me, other = Holder.this_process(0.0), holder_on("other")
    for silent_seconds, verdict in ((3.0, Verdict.HELD), (31.0, Verdict.LATE), (70.0, None)):
        leave(tmp_path / "run", other, silent_seconds)
        place = LocalPlace(str(tmp_path / "run"))
        standing = place.try_to_take(me)
        if verdict:
            assert standing and (standing.verdict, standing.holder) == (verdict, other)
            assert abs(standing.silent_seconds - silent_seconds) < 2.0
        else:
            assert standing is None
        assert os.listdir(tmp_path / "run") == [FILE_NAME]
        place.close()
    assert Holder.parse((tmp_path / "run" / FILE_NAME).read_bytes()) == me


def test_a_heartbeat_renews_the_time_of_the_file(tmp_path: Path) -> None:
    me, place = Holder.this_process(0.0), LocalPlace(str(tmp_path))
    assert place.try_to_take(me) is None
    os.utime(tmp_path / FILE_NAME, (1.0, 1.0))
    place.renew(me)
    assert time.time() - (tmp_path / FILE_NAME).stat().st_mtime < 2.0
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(LeaseLostError) as lost:
        place.renew(me)
    assert lost.value.holder is None
    place.release(me)


def test_where_machines_do_not_see_each_others_locks_the_last_who_took_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.lease_local._lock", lambda descriptor: True)
    mine, theirs = holder_on("mine"), holder_on("theirs")
    ours, others = LocalPlace(str(tmp_path)), LocalPlace(str(tmp_path))
    look = LocalPlace._look

    def look_and_let_the_other_take(self: LocalPlace, descriptor: int, me: Holder, locked: bool | None) -> Standing:
        standing = look(self, descriptor, me, locked)
        if me is mine:
            assert others.try_to_take(theirs) is None
        return standing

    monkeypatch.setattr(LocalPlace, "_look", look_and_let_the_other_take)
    assert ours.try_to_take(mine) is None, "both have found it free"
    ours.renew(mine)
    with pytest.raises(LeaseLostError) as lost:
        others.renew(theirs)
    assert lost.value.holder == mine
    others.release(theirs)
    assert (tmp_path / FILE_NAME).exists(), "it is no longer its to delete"
    ours.release(mine)
    assert not (tmp_path / FILE_NAME).exists()


def test_where_there_are_no_locks_one_of_those_who_write_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    places = [LocalPlace(str(tmp_path)) for _ in range(8)]
    holders = [dataclasses.replace(Holder.this_process(0.0), token=str(index)) for index in range(8)]
    standings: list[Standing | None] = [None] * 8

    together = threading.Barrier(8)
    look = LocalPlace._look

    def look_together(self: LocalPlace, *arguments: Any) -> Standing:
        standing = look(self, *arguments)
        together.wait(10.0)
        return standing

    def contend(index: int) -> None:
        standings[index] = places[index].try_to_take(holders[index])

    with monkeypatch.context() as patched:
        patched.setattr(LocalPlace, "_look", look_together)
        threads = [threading.Thread(target=contend, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
    winner = standings.index(None)
    assert standings.count(None) == 1
    assert {standing.holder for standing in standings if standing} == {holders[winner]}
    places[winner].renew(holders[winner])
    later = places[winner - 1].try_to_take(holders[winner - 1])
    assert later and later.verdict is Verdict.HELD
    leave(tmp_path, dead_holder())
    assert places[winner - 1].try_to_take(holders[winner - 1]) is None
    places[winner - 1].release(holders[winner - 1])


def test_other_errors_of_locking_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        LocalPlace(str(tmp_path)).try_to_take(Holder.this_process(0.0))


def test_giving_back_leaves_what_others_put_there(tmp_path: Path) -> None:
    with take(LocalPlace(str(tmp_path / "a" / "b")), "", pytest.fail):
        (tmp_path / "a" / "mine").touch()
        assert os.listdir(tmp_path / "a" / "b") == [FILE_NAME]
    assert os.listdir(tmp_path / "a") == ["mine"]


def test_a_damaged_lease_that_nobody_has_is_free(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\0" * 500)
    with take(LocalPlace(str(tmp_path)), "", pytest.fail):
        assert Holder.parse((tmp_path / FILE_NAME).read_bytes()) is not None


def test_a_lease_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=f"The disk of {tmp_path}/run is full"):
        take(LocalPlace(str(tmp_path / "run")), "", pytest.fail)
    assert not (tmp_path / "run").exists()
