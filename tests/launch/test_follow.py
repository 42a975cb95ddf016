"""Following a job: what is shown, when it ends, and what does not end it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from memory_service import JOB, MemoryLog, MemoryService, Time, unavailable

from launch.google.api_errors import ApiError
from launch.local.worker_logs import Console, Printer
from launch.records.follow import LATE_SECONDS, PATIENCE_SECONDS, Follower, described, print_new, watched
from launch.services.service import JobStatus, State
from trainer.errors import UserError

QUEUED, RUNNING, SUCCEEDED, FAILED = State.QUEUED, State.RUNNING, State.SUCCEEDED, State.FAILED


class Watcher:
    """A follower of a service in memory, and what it prints."""

    def __init__(self, service: MemoryService, *, quiet: bool = False) -> None:
        self.service = service
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console = Console(self.out, self.err, {}, quiet=quiet)

    def follow(self, log: MemoryLog | None = None, **options: object) -> JobStatus:
        time = self.service.time
        follower = Follower(
            self.service.get,
            self.console,
            open_lines=None if log is None else lambda status: log,
            sleep=time.sleep,
            clock=time.clock,
            **options,  # type: ignore[arg-type]
        )
        return follower.follow(JOB)

    @property
    def notes(self) -> list[str]:
        lines = self.out.getvalue().splitlines()
        return [line.removeprefix("[launch] ") for line in lines if line.startswith("[launch] ")]

    @property
    def lines(self) -> list[str]:
        return [line for line in self.out.getvalue().splitlines() if not line.startswith("[launch] ")]


def test_lines_and_states_until_the_end() -> None:
    service = MemoryService()
    service.add(QUEUED, QUEUED, RUNNING, RUNNING, SUCCEEDED)
    log = MemoryLog([], ["workerpool0-0: step 1", "workerpool1-0: step 1"], ["workerpool0-0: done"])
    watcher = Watcher(service)
    status = watcher.follow(log)
    assert (status.state, status.launcher_exit_code) == (SUCCEEDED, 0)
    assert watcher.lines == ["[workerpool0-0] step 1", "[workerpool1-0] step 1", "[workerpool0-0] done"]
    assert watcher.notes == [
        "flowers is queued (JOB_STATE_QUEUED) for 0.0 s.",
        "flowers is running (JOB_STATE_RUNNING) for 0.0 s.",
        "flowers succeeded (JOB_STATE_SUCCEEDED) after 10.0 s.",
    ]


class Terminal(io.StringIO):
    """A terminal that shows colors."""

    def isatty(self) -> bool:
        return True


def test_each_worker_has_its_color() -> None:
    terminal = Terminal()
    log = MemoryLog(["w0: a", "w1: b", "w0: c"])
    colors: dict[str, int] = {}
    assert print_new(log, Printer(terminal, {"TERM": "xterm"}), colors)
    assert not print_new(log, Printer(terminal, {"TERM": "xterm"}), colors)
    cyan, yellow = "\x1b[36m[w0]\x1b[0m", "\x1b[33m[w1]\x1b[0m"
    assert terminal.getvalue() == f"{cyan} a\n{yellow} b\n{cyan} c\n"


def test_a_quiet_one_prints_lines_and_warnings_alone() -> None:
    service = MemoryService()
    service.add(RUNNING, FAILED, error="worker 0 exited with 3", exit_code=3)
    watcher = Watcher(service, quiet=True)
    assert watcher.follow(MemoryLog(["w: line"])).launcher_exit_code == 3
    assert watcher.out.getvalue() == "[w] line\n"
    assert watcher.err.getvalue() == "[launch] worker 0 exited with 3\n"


def test_late_lines_are_waited_for_and_not_for_ever() -> None:
    service = MemoryService()
    service.add(RUNNING, SUCCEEDED)
    late = MemoryLog([], [], [], ["w: late"], [], ["w: later"])
    watcher = Watcher(service)
    watcher.follow(late)
    assert watcher.lines == ["[w] late", "[w] later"]

    endless = MemoryLog(*[[f"w: {number}"] for number in range(1000)])
    service.add(RUNNING, SUCCEEDED)
    before = service.time.seconds
    watcher.follow(endless)
    assert service.time.seconds - before <= LATE_SECONDS + 10
    assert watcher.lines[-1] == f"[w] {endless.looks - 1}"


def test_lines_of_a_job_that_ended_long_ago_are_not_waited_for() -> None:
    service = MemoryService()
    service.add(SUCCEEDED)
    service.get(JOB)
    service.time.sleep(3600)
    before = service.time.seconds
    watcher = Watcher(service)
    watcher.follow(MemoryLog(["w: first"], ["w: kept back"]))
    assert watcher.lines == ["[w] first", "[w] kept back"]
    assert service.time.seconds == before


def test_states_alone() -> None:
    service = MemoryService()
    service.add(RUNNING, *[RUNNING] * 70, SUCCEEDED)
    watcher = Watcher(service)
    before = service.time.seconds
    assert watcher.follow().state is SUCCEEDED
    assert watcher.notes[1] == "flowers is still running (JOB_STATE_RUNNING) for 5 min 00 s."
    assert len(watcher.notes) == 3
    assert service.time.seconds - before == 71 * 5


def test_an_api_that_fails_for_a_while() -> None:
    service = MemoryService()
    service.add(RUNNING, unavailable(), unavailable(), SUCCEEDED)
    watcher = Watcher(service)
    log = MemoryLog(["w: a"], unavailable(429), ["w: b"])
    assert watcher.follow(log).state is SUCCEEDED
    assert watcher.lines == ["[w] a", "[w] b"]
    assert watcher.err.getvalue().count("It is asked again for up to 10 min 00 s") == 2
    assert watcher.notes.count("It answers again.") == 2


def test_an_api_that_fails_for_good() -> None:
    service = MemoryService()
    service.add(RUNNING, *[unavailable()] * 1000)
    watcher = Watcher(service)
    before = service.time.seconds
    with pytest.raises(ApiError):
        watcher.follow(MemoryLog())
    assert PATIENCE_SECONDS <= service.time.seconds - before <= PATIENCE_SECONDS + 20

    service.add(RUNNING, unavailable(403))
    before = service.time.seconds
    with pytest.raises(ApiError):
        watcher.follow(MemoryLog())
    assert service.time.seconds - before <= 5


def test_a_log_that_may_not_be_read_leaves_the_states() -> None:
    service = MemoryService()
    service.add(RUNNING, RUNNING, SUCCEEDED)
    watcher = Watcher(service)
    log = MemoryLog(unavailable(403, "logging.logEntries.list denied"), ["w: never"])
    assert watcher.follow(log).state is SUCCEEDED
    assert log.looks == 1
    assert "[launch] The log: that is not permitted (logging.logEntries.list denied)" in watcher.err.getvalue()


def test_hostile_lines_do_not_act_on_the_terminal() -> None:
    service = MemoryService()
    service.add(RUNNING, FAILED, name="a\x1b[2J", error="b\x1b]0;title\x07")
    watcher = Watcher(service)
    watcher.follow(MemoryLog(["w\x1b[1m: \x1b[31mred\nnext"]))
    assert watcher.lines == ["[w\\x1b[1m] \\x1b[31mred", "[w\\x1b[1m] next"]
    assert "\x1b" not in watcher.out.getvalue() + watcher.err.getvalue()


def test_a_preempted_job_is_requested_again_where_that_is_allowed() -> None:
    service = MemoryService()
    service.add(RUNNING, State.PREEMPTED)
    again = f"{JOB}-r2"
    asked: list[str] = []

    def request_again(preempted: JobStatus) -> JobStatus | None:
        asked.append(preempted.resource)
        return service.add(QUEUED, RUNNING, State.PREEMPTED, resource=again) if len(asked) == 1 else None

    watcher = Watcher(service)
    opened: list[str] = []

    def open_lines(status: JobStatus) -> MemoryLog:
        opened.append(status.resource)
        return MemoryLog([f"w: {len(opened)}"])

    assert watcher.follow(request_again=request_again).state is State.PREEMPTED
    assert asked == [JOB, again]
    assert "flowers was preempted (JOB_STATE_PREEMPTED) after 5.0 s." in watcher.notes
    assert f"flowers is requested again, as {again}." in watcher.notes

    asked.clear()
    service.add(RUNNING, State.PREEMPTED)
    follower = Follower(
        service.get, watcher.console, open_lines=open_lines, sleep=service.time.sleep, clock=service.time.clock
    )
    assert follower.follow(JOB).state is State.PREEMPTED
    assert (opened, asked) == ([JOB], [])


def test_requesting_again_is_tried_until_it_is_answered() -> None:
    service = MemoryService()
    service.add(RUNNING, State.PREEMPTED)
    answers: Iterator[Exception | JobStatus] = iter([unavailable(), service.add(SUCCEEDED, resource="again")])

    def request_again(_: JobStatus) -> JobStatus:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Watcher(service).follow(request_again=request_again).resource == "again"


def test_a_bound_on_the_wait() -> None:
    service = MemoryService()
    service.add(State.STOPPING, *[State.STOPPING] * 1000)
    watcher = Watcher(service)
    before = service.time.seconds
    assert watcher.follow(most_seconds=600, heartbeat_seconds=60).state is State.STOPPING
    assert service.time.seconds - before == 600
    assert len(watcher.notes) == 11


def test_interrupting_ends_the_following_alone() -> None:
    service = MemoryService()
    service.add(RUNNING, RUNNING, KeyboardInterrupt)
    watcher = Watcher(service)
    assert watched(watcher.follow, watcher.console, ["python -m launch cancel flowers"]) is None
    assert service.cancelled == []
    assert watcher.err.getvalue().splitlines() == [
        "[launch] Interrupted: it is not followed any more, and the job goes on.",
        "[launch]   python -m launch cancel flowers",
    ]


def test_giving_up_is_said_and_a_refusal_is_an_error() -> None:
    service = MemoryService()
    watcher = Watcher(service)

    def fail(status: int) -> JobStatus:
        raise unavailable(status)

    assert watched(lambda: fail(503), watcher.console, ["again"]) is None
    assert "tells of outages. It is not followed any more, and the job goes on." in watcher.err.getvalue()
    with pytest.raises(UserError, match="does not accept the Google credentials .* and the job goes on."):
        watched(lambda: fail(401), watcher.console, [])


def test_how_a_state_is_described() -> None:
    time = Time()
    status = JobStatus("r", "n", RUNNING, "ACTIVE", started=time.moment())
    assert described(status, time.seconds + 125) == "running (ACTIVE) for 2 min 05 s"
    assert described(JobStatus("r", "n", QUEUED, ""), 0) == "queued"
    ended = JobStatus("r", "n", FAILED, "", created=time.moment(), ended=time.moment())
    assert described(ended, time.seconds + 5) == "failed"
