"""Log lines: each once and in order, however late, doubled and torn into pages they come."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fakes.cloud import Answer, FakeCloud, Fault, serving
from jobs import api_at

from launch.google.google_api import ApiError
from launch.google.log_entries import PAGE_SIZE, READS_A_MINUTE, JobLog, LogReader, line_of

PROJECT = "project-1"
FILTER = 'resource.type="ml_job" AND resource.labels.job_id="7"'
START = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)


class World:
    """A fake cloud, a clock that stands still unless somebody sleeps or waits, and a log of job 7."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.seconds = 100.0
        self.slept: list[float] = []
        self.reader = LogReader(
            api_at(cloud, self.sleep), PROJECT, now=self.now, clock=lambda: self.seconds, sleep=self.sleep
        )
        self.log: JobLog = self.reader.open(FILTER)

    def now(self) -> datetime.datetime:
        return START + datetime.timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    def print(self, text: str, at: float, *, job: str = "7", unseen_lists: int = 0, insert_id: str = "") -> None:
        """A worker prints a line, `at` seconds after the start."""
        self.cloud.logs.write(
            PROJECT,
            job,
            text,
            {"type": "ml_job", "labels": {"job_id": job, "task_name": "workerpool0-0"}},
            when=START + datetime.timedelta(seconds=at),
            insert_id=insert_id,
            unseen_lists=unseen_lists,
        )

    def new(self, wait: float = 0.0) -> list[str]:
        """The texts that are new after so many seconds."""
        self.seconds += wait
        return [line.text for line in self.log.new_lines()]


@pytest.fixture
def world() -> Iterator[World]:
    with serving() as cloud:
        yield World(cloud)


def test_each_line_comes_once(world: World) -> None:
    world.print("one", 10)
    world.print("other job", 11, job="8")
    world.print("two", 20)
    assert world.new() == ["one", "two"]
    assert world.new() == []
    world.print("three", 30)
    assert world.new() == ["three"]
    assert world.new() == []


def test_lines_of_one_moment_are_all_there_in_the_order_of_their_ids(world: World) -> None:
    for name in ("b", "a", "c"):
        world.print(name, 10, insert_id=name)
    assert world.new() == ["a", "b", "c"]
    world.print("d", 10, insert_id="d")
    assert world.new() == ["d"]


def test_a_line_that_comes_a_little_late_is_put_in_its_place(world: World) -> None:
    world.print("first", 97, unseen_lists=1)
    world.print("second", 98)
    assert world.new() == []
    assert world.new(wait=5) == ["first", "second"]


def test_a_line_that_comes_later_is_given_late(world: World) -> None:
    world.print("late", 50, unseen_lists=2)
    world.print("early", 60)
    assert world.new() == ["early"]
    assert world.new(wait=5) == []
    assert world.new(wait=5) == ["late"]
    assert world.new(wait=5) == []


def test_a_line_waits_for_one_call_whatever_the_clock_says(world: World) -> None:
    world.seconds = -1000.0
    world.print("one", 10)
    assert world.new() == []
    assert world.new() == ["one"]


def test_a_line_from_the_future_hides_none(world: World) -> None:
    world.print("from the future", 80_000)
    assert [world.new(), world.new(wait=5)] == [[], ["from the future"]]
    world.print("now", 101)
    assert world.new(wait=10) == ["now"]
    assert world.new(wait=10) == []


def test_a_clock_that_is_set_back_doubles_no_line(world: World) -> None:
    world.print("one", 10)
    world.print("two", 99)
    assert world.new() == ["one"]
    assert world.new() == ["two"]
    assert [world.new(wait=-95), world.new()] == [[], []]


def test_a_line_that_waited_is_not_put_before_older_ones_of_a_further_page(world: World) -> None:
    world.print("youngest", 99)
    assert world.new() == []
    texts = [f"line {number}" for number in range(PAGE_SIZE + 1)]
    for number, text in enumerate(texts):
        world.print(text, 90 + number / 200)
    assert world.new(wait=5) == [*texts, "youngest"]


def test_what_was_seen_long_ago_is_not_asked_for_again(world: World) -> None:
    world.print("old", 10)
    world.print("new", 90)
    world.new()
    world.new()
    bodies = [request.body for request in world.cloud.sent("logging")]
    assert [body["filter"] for body in bodies] == [FILTER, f'({FILTER}) AND timestamp>="2026-11-22T12:00:30.000000Z"']
    assert {body["orderBy"] for body in bodies} == {"timestamp asc"}


def test_all_pages_are_read_and_empty_ones_passed_over(world: World) -> None:
    texts = [f"line {number}" for number in range(2 * PAGE_SIZE + 1)]
    for number, text in enumerate(texts):
        world.print(text, number / 100)
    world.cloud.logs.empty_pages = 2
    assert world.new() == texts
    assert len(world.cloud.sent("logging")) == 5
    assert world.new() == []


def test_lines_are_given_while_further_pages_are_to_come(world: World) -> None:
    for number in range(PAGE_SIZE + 1):
        world.print(f"line {number}", number / 100)
    lines = world.log.new_lines()
    assert next(iter(lines)).text == "line 0"
    assert len(world.cloud.sent("logging")) == 1


def test_a_page_that_fails_loses_no_line_and_doubles_none(world: World) -> None:
    texts = [f"line {number}" for number in range(PAGE_SIZE + 1)]
    for number, text in enumerate(texts):
        world.print(text, number / 100)
    world.cloud.faults.append(Fault("entries:list", 403, first=2, times=1))
    assert world.new() == texts[:PAGE_SIZE]
    assert world.new() == texts[PAGE_SIZE:]


def test_a_log_that_may_not_be_read_is_said(world: World) -> None:
    world.print("one", 10)
    world.cloud.faults.append(Fault("entries:list", 403, times=1))
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        world.new()
    assert world.new() == ["one"]


def test_a_busy_service_is_asked_again(world: World) -> None:
    world.print("one", 10)
    world.cloud.faults.append(Fault("entries:list", 429, times=2))
    assert world.new() == ["one"]
    assert world.slept == [1.0, 2.0]


def test_pages_that_go_round_in_circles_end(world: World) -> None:
    world.cloud.faults.append(Fault("entries:list", Answer(body=b'{"nextPageToken": "again"}')))
    with pytest.raises(ApiError, match="round in circles"):
        world.new()
    assert len(world.cloud.sent("logging")) == 2


def test_no_more_reads_in_a_minute_than_the_quota_has_for_us(world: World) -> None:
    for _ in range(READS_A_MINUTE):
        world.new(wait=1)
    assert world.slept == []
    world.new()
    assert world.slept == [60.0 - (READS_A_MINUTE - 1)]
    world.new(wait=1)
    assert len(world.slept) == 1


def test_logs_of_one_reader_share_the_quota_and_nothing_else(world: World) -> None:
    world.print("seven", 10)
    world.print("eight", 10, job="8")
    other = world.reader.open(FILTER.replace("7", "8"))
    assert world.new() == ["seven"]
    assert [line.text for line in other.new_lines()] == ["eight"]


VERTEX = {"resource": {"type": "ml_job", "labels": {"job_id": "7", "task_name": "workerpool1-0"}}}
GCPLOGS = {
    "resource": {"type": "gce_instance", "labels": {"instance_id": "1"}},
    "jsonPayload": {
        "message": "hello",
        "container": {"name": "/trainer", "metadata": {"hub-trainer-worker": "3"}},
        "instance": {"name": "t1v-n-1-w-3"},
    },
}
BUILD = {"resource": {"type": "build", "labels": {"build_id": "u"}}, "labels": {"build_step": 'Step #1 - "test"'}}


@pytest.mark.parametrize(
    ("entry", "worker", "text"),
    [
        ({**VERTEX, "textPayload": "hello\n"}, "workerpool1-0", "hello"),
        ({**VERTEX, "jsonPayload": {"message": "two\nlines\r\n"}}, "workerpool1-0", "two\nlines"),
        ({**VERTEX, "jsonPayload": {"b": 1, "a": [2]}}, "workerpool1-0", '{"a": [2], "b": 1}'),
        ({**VERTEX, "jsonPayload": {"message": 5}}, "workerpool1-0", "5"),
        (GCPLOGS, "worker 3", "hello"),
        ({**GCPLOGS, "jsonPayload": {"message": "x", "instance": {"name": "vm-1"}}}, "vm-1", "x"),
        ({**GCPLOGS, "jsonPayload": {"message": "x", "container": "none", "instance": 1}}, "gce_instance", "x"),
        ({**BUILD, "textPayload": "hello"}, 'Step #1 - "test"', "hello"),
        ({"resource": {"type": "build"}, "textPayload": ""}, "build", ""),
        ({"jsonPayload": "no object"}, "", "{}"),
    ],
)
def test_an_entry_of_each_service_is_a_line(entry: Mapping[str, Any], worker: str, text: str) -> None:
    line = line_of({"timestamp": "2026-11-22T12:00:00.123456789Z", "insertId": "i", "severity": "ERROR", **entry})
    assert (line.worker, line.text) == (worker, text)
    assert (line.insert_id, line.severity) == ("i", "ERROR")
    assert line.moment == START.replace(microsecond=123456)


def test_an_entry_without_severity_has_the_default_one() -> None:
    assert line_of({"timestamp": "2026-11-22T12:00:00Z", "textPayload": ""}).severity == "DEFAULT"
