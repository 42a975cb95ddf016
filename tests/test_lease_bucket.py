"""The lease of a run directory on gs://: one of 16 has it, and an answer that is lost changes nothing."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from fakes.gcs import FakeStorage, Fault, serving

from trainer.errors import UserError
from trainer.lease import LeaseLostError, Standing, take
from trainer.lease_bucket import BucketPlace
from trainer.lease_holder import Holder, Verdict
from trainer.storage_bucket import Bucket

RUN = "gs://runs/flowers/1"
NAME = "flowers/1/lease"
WRITES = r"^POST /upload/"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStorage]:
    with serving() as server:
        server.bucket("runs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        yield server


def bucket_place(**arguments: Any) -> BucketPlace:
    return BucketPlace(RUN, bucket=Bucket("runs", "--run_dir", 2.0, writes=True), **arguments)


def holder(token: str, machine: str = "") -> Holder:
    me = dataclasses.replace(Holder.this_process(0.0), token=token)
    return dataclasses.replace(me, host=machine, boot=machine) if machine else me


def leave(storage: FakeStorage, left: Holder, silent_seconds: float) -> None:
    """A lease as a killed holder leaves it."""
    objects = storage.bucket("runs")
    objects.put(NAME, left.to_json())
    last_seen = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=silent_seconds)
    objects.updated[NAME] = last_seen.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def stored(storage: FakeStorage) -> Holder | None:
    content = storage.bucket("runs").content(NAME)
    return Holder.parse(content) if content else None


@pytest.mark.parametrize("left_by", [None, "other"])
def test_of_16_threads_one_takes_a_lease_also_a_dead_holders(left_by: str | None, storage: FakeStorage) -> None:
    if left_by:
        leave(storage, holder("dead", left_by), 61.0)
    holders = [holder(str(index)) for index in range(16)]
    places = [bucket_place() for _ in range(16)]
    together = threading.Barrier(16)

    def contend(index: int) -> Standing | None:
        together.wait(10.0)
        return places[index].try_to_take(holders[index])

    with ThreadPoolExecutor(16) as threads:
        standings = list(threads.map(contend, range(16), timeout=30.0))
    assert standings.count(None) == 1
    winner = standings.index(None)
    assert {standing.holder for standing in standings if standing} == {holders[winner]}
    assert {standing.verdict for standing in standings if standing} == {Verdict.HELD}
    places[winner].renew(holders[winner])
    places[winner].release(holders[winner])
    assert storage.bucket("runs").names() == []


@pytest.mark.parametrize(("silent_seconds", "verdict"), [(3.0, Verdict.HELD), (31.0, Verdict.LATE), (61.0, None)])
def test_a_holder_on_another_machine_counts_by_the_time_of_its_object(
    silent_seconds: float, verdict: Verdict | None, storage: FakeStorage
) -> None:
    left = holder("left", "other")
    leave(storage, left, silent_seconds)
    standing = bucket_place().try_to_take(holder("me"))
    if verdict:
        assert standing and (standing.verdict, standing.holder) == (verdict, left)
        assert abs(standing.silent_seconds - silent_seconds) < 2.0
    else:
        assert standing is None
    assert stored(storage) == (left if verdict else holder("me"))


def test_the_clock_of_the_server_counts(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    an_hour = 3600.0
    leave(storage, holder("left", "other"), an_hour + 3.0)
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "date_time_string",
        lambda *_: email.utils.formatdate(time.time() - an_hour, usegmt=True),
    )
    standing = bucket_place().try_to_take(holder("me"))
    assert standing and standing.verdict is Verdict.HELD and abs(standing.silent_seconds - 3.0) < 3.0


def test_a_killed_holders_lease_is_free_at_once_on_its_machine(storage: FakeStorage) -> None:
    earlier = dataclasses.replace(holder("earlier"), started=1)
    leave(storage, earlier, 0.0)
    assert bucket_place().try_to_take(holder("me")) is None


def test_a_heartbeat_finds_who_took_the_lease_over(storage: FakeStorage) -> None:
    mine, theirs = holder("mine"), holder("theirs", "other")
    place = bucket_place()
    assert place.try_to_take(mine) is None
    generation = storage.bucket("runs").generations[NAME]
    place.renew(mine)
    assert storage.bucket("runs").generations[NAME] > generation
    leave(storage, theirs, 0.0)
    with pytest.raises(LeaseLostError) as lost:
        place.renew(mine)
    assert lost.value.holder == theirs
    place.release(mine)
    assert stored(storage) == theirs, "it is no longer its to delete"
    storage.bucket("runs").delete(NAME)
    with pytest.raises(LeaseLostError) as lost:
        place.renew(mine)
    assert lost.value.holder is None


def test_a_lost_answer_is_not_another_holder(storage: FakeStorage) -> None:
    mine, place = holder("mine"), bucket_place()
    storage.faults.append(Fault(WRITES, "lost answer", times=1))
    assert place.try_to_take(mine) is None
    storage.faults.append(Fault(WRITES, "lost answer", times=1))
    place.renew(mine)
    generation = storage.bucket("runs").generations[NAME]
    place.renew(mine)
    assert storage.bucket("runs").generations[NAME] > generation
    leave(storage, holder("dead", "other"), 61.0)
    storage.faults.append(Fault(WRITES, "lost answer", times=1, first=len(storage.requests) + 2))
    assert place.try_to_take(mine) is None
    assert [fault.times for fault in storage.faults] == [0, 0, 0]
    place.release(mine)
    assert storage.bucket("runs").names() == []


def test_an_object_of_that_name_that_is_no_lease_is_left_alone(storage: FakeStorage) -> None:
    storage.bucket("runs").put(NAME, b"of a flat")
    with pytest.raises(UserError, match=f"gs://runs/{NAME} is not the lease of a run: give another --run_dir"):
        bucket_place().try_to_take(holder("me"))
    assert storage.bucket("runs").content(NAME) == b"of a flat"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, f"No permission for gs://runs/{NAME} .*log in with an account that may read and write the objects there"),
        (404, "There is no bucket gs://runs: give another --run_dir."),
        (503, f"gs://runs/{NAME} cannot be read or written .*: try again later."),
    ],
)
def test_what_is_wrong_with_the_bucket_is_a_sentence(status: int, sentence: str, storage: FakeStorage) -> None:
    storage.faults.append(Fault(WRITES, status))
    with pytest.raises(UserError, match=sentence):
        take(bucket_place(), RUN, pytest.fail)


def test_a_bucket_that_does_not_answer_leaves_the_lease_to_be_found_dead(storage: FakeStorage) -> None:
    lease = take(bucket_place(), RUN, pytest.fail)
    storage.faults.append(Fault("^DELETE ", 503))
    lease.release()
    assert stored(storage) is not None


def test_a_lease_in_a_whole_bucket(storage: FakeStorage) -> None:
    place = BucketPlace("gs://runs")
    assert place.try_to_take(holder("me")) is None
    assert storage.bucket("runs").names() == ["lease"]
