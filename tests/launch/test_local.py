"""Several workers together: what they are told, what is shown, how they are ended, and when they start again.

The workers are small programs that print, sleep, fail and die; `WHO` is which of them one is.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from processes import assert_gone

from launch.local import supervise as local
from launch.local.attempt import Ending
from launch.local.supervise import Launch, exit_code, supervise
from launch.local.worker_logs import Console
from launch.local.worker_processes import free_ports, how_it_ended
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER

WORKER = """
import json, os, signal, socket, subprocess, sys, time
TF_CONFIG = json.loads(os.environ["TF_CONFIG"])
WHO = TF_CONFIG["task"]["index"]

def meet(folder):
    "Waits until every worker is here."
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, str(WHO)), "w").close()
    while len(os.listdir(folder)) < len(TF_CONFIG["cluster"]["worker"]):
        time.sleep(0.01)
"""

SLEEPER = "subprocess.Popen(['sleep', '60'], {})"
"""A child that outlives its worker; what stands in the braces are arguments of its Popen."""


class Result(NamedTuple):
    code: int
    out: list[str]
    err: list[str]
    seconds: float


def stand_in(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", WORKER + textwrap.dedent(program)]


def run(program: str, *, environment: Mapping[str, str] = os.environ, quiet: bool = True, **fields: Any) -> Result:
    """Supervises two workers that run `program`, with little patience."""
    command = stand_in(program)
    given: dict[str, Any] = {"workers": 2, "settle_seconds": 0.5, "grace_seconds": 0.5, "restart_command": command}
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    launch = Launch(command, **(given | fields))
    code = supervise(launch, Console(out, err, {}, quiet=quiet), environment)
    seconds = time.monotonic() - start
    return Result(code, out.getvalue().splitlines(), err.getvalue().splitlines(), seconds)


def numbers(lines: list[str]) -> list[int]:
    """The last word of each line."""
    return [int(line.split()[-1]) for line in lines]


def test_each_line_has_its_worker_in_front_and_goes_to_its_stream() -> None:
    done = run("print('out', WHO); print('end', WHO, end=''); print('err', WHO, end='', file=sys.stderr)")
    assert done.code == EXIT_DONE
    assert sorted(done.out) == [f"[worker {who}] {text} {who}" for who in (0, 1) for text in ("end", "out")]
    assert sorted(done.err) == ["[worker 0] err 0", "[worker 1] err 1"]


def test_processes_are_named_unless_it_is_to_be_quiet() -> None:
    done = run("print(WHO, os.getpid())", quiet=False)
    pids = {line.split()[2]: line.split()[3] for line in done.out if line.startswith("[worker")}
    announced = [line for line in done.out if line.startswith("[launch]")]
    assert announced == [f"[launch] worker {who} is process {pids[who]}" for who in ("0", "1")]


def test_workers_know_each_other() -> None:
    program = """
    address, port = TF_CONFIG["cluster"]["worker"][WHO].split(":")
    socket.create_server((address, int(port)))
    print(os.environ["TF_CONFIG"])
    """
    done = run(program, workers=3)
    assert done.code == EXIT_DONE, done.err
    told = [json.loads(line.split("] ", 1)[1]) for line in sorted(done.out)]
    assert [each["task"] for each in told] == [{"type": "worker", "index": who} for who in range(3)]
    (addresses,) = {tuple(each["cluster"]["worker"]) for each in told}
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert all(each["cluster"].keys() == {"worker"} for each in told)


def test_one_worker_is_fine_and_reads_nothing() -> None:
    done = run("print(sys.stdin.read() == '', len(TF_CONFIG['cluster']['worker']))", workers=1)
    assert (done.code, done.out) == (EXIT_DONE, ["[worker 0] True 1"])


@pytest.mark.parametrize(
    ("given", "excepted"),
    [
        ({}, "localhost,127.0.0.1"),
        ({"NO_PROXY": "a.b"}, "a.b,localhost,127.0.0.1"),
        ({"no_proxy": "c"}, "c,localhost,127.0.0.1"),
    ],
)
def test_no_proxy_and_no_other_cluster_come_between_the_workers(given: dict[str, str], excepted: str) -> None:
    names = "CLUSTER_SPEC", "TF_CONFIG"
    environment = dict.fromkeys(names, "the launcher's own") | {"no_grpc_proxy": "d", "KEPT": "yes"} | given
    program = "print(*map(os.environ.get, ('no_proxy', 'no_grpc_proxy', 'CLUSTER_SPEC', 'KEPT')))"
    done = run(program, workers=1, environment=environment)
    assert done.out == [f"[worker 0] {excepted} d,localhost,127.0.0.1 None yes"]


def test_much_output_arrives_whole() -> None:
    program = "for line in range(30_000): print(line, 'x' * 50); print(line, file=sys.stderr)"
    done = run(program)
    assert done.code == EXIT_DONE
    for who in ("0", "1"):
        mine = f"[worker {who}]"
        assert [line.split()[2] for line in done.out if line.startswith(mine)] == [str(line) for line in range(30_000)]
        assert sum(line.startswith(mine) for line in done.err) == 30_000


def test_what_a_worker_said_before_it_was_killed_is_shown() -> None:
    done = run("print('last words'); os.kill(os.getpid(), signal.SIGKILL)", workers=1, environment={})
    assert done.out == ["[worker 0] last words"]


def test_what_a_worker_said_at_its_end_is_shown_by_a_slow_terminal_too() -> None:
    class SlowTerminal(io.StringIO):
        def write(self, text: str) -> int:
            time.sleep(0 if self.getvalue() else 0.5)  # The worker has ended before its second line is looked for.
            return super().write(text)

    command = stand_in("print('first'); time.sleep(0.1); print('x' * 60_000)")
    out = SlowTerminal()
    supervise(Launch(command, command, 1), Console(out, io.StringIO(), {}, quiet=True), os.environ)
    assert [len(line) for line in out.getvalue().splitlines()] == [len("[worker 0] first"), len("[worker 0] ") + 60_000]


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("", EXIT_DONE, ""),
        ("sys.exit(3 if WHO else 0)", 3, "worker 1 ended with exit code 3"),
        ("sys.exit(EXIT_USER if WHO else 0)".replace("EXIT_USER", str(EXIT_USER)), EXIT_USER, ""),
        (f"sys.exit(0 if WHO else {EXIT_PREEMPTED})", EXIT_PREEMPTED, "worker 0 ended with exit code 75"),
        ("if WHO: os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, "worker 1 was killed by SIGKILL"),
        ("time.sleep(0.3 * WHO); sys.exit(4 + WHO)", 4, "worker 0 ended with exit code 4"),
        # The other one dies of the same cause and is faster.
        (f"time.sleep(0.3 * WHO); sys.exit({EXIT_USER} if WHO else 1)", EXIT_USER, ""),
    ],
)
def test_one_exit_code(program: str, code: int, words: str) -> None:
    done = run(program, settle_seconds=10)
    assert done.code == code
    assert len(done.err) == bool(words)
    assert words in "".join(done.err)


def test_a_worker_that_is_done_waits_for_nobody() -> None:
    done = run("time.sleep(0.5 * WHO); print(WHO)")
    assert (done.code, done.out) == (EXIT_DONE, ["[worker 0] 0", "[worker 1] 1"])


def test_when_one_fails_the_others_are_asked_to_end(tmp_path: Path) -> None:
    program = f"""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    meet({str(tmp_path)!r})
    if WHO == 0: sys.exit(3)
    try: signal.sigtimedwait([signal.SIGTERM], 30) and print("was asked", flush=True)
    finally: time.sleep(60 * (WHO - 1))
    """
    done = run(program, workers=3)
    assert done.code == 3
    assert sorted(done.out) == ["[worker 1] was asked", "[worker 2] was asked"]
    assert done.seconds < 8
    assert done.err == [
        "[launch] worker 0 ended with exit code 3; the others were ended, and --max_restarts=3 would start all again "
        "from the last checkpoint."
    ]


def test_one_that_does_not_listen_is_killed_with_all_it_started(tmp_path: Path) -> None:
    program = f"""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if WHO == 0:
        print(os.getpid()); print({SLEEPER.format("")}.pid)
    meet({str(tmp_path)!r})
    time.sleep(0 if WHO else 60)
    sys.exit(3)
    """
    done = run(program)
    assert done.code == 3
    assert done.seconds < 8
    assert len(done.out) == 2
    assert_gone(numbers(done.out))


def test_standard_patience_is_below_ten_seconds() -> None:
    standard = Launch([], [], 1)
    assert 0 < standard.settle_seconds + standard.grace_seconds <= 8


@pytest.mark.parametrize("end", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_worker_leaves_running_is_killed(end: str) -> None:
    done = run(f"print({SLEEPER.format('')}.pid); sys.stdout.flush(); {end}", workers=1)
    assert done.seconds < 5
    assert_gone(numbers(done.out))


def test_a_process_that_left_its_worker_holds_nothing_up() -> None:
    done = run(f"print({SLEEPER.format('start_new_session=True')}.pid)", workers=1)
    (stray,) = numbers(done.out)
    os.kill(stray, signal.SIGKILL)
    assert done.code == EXIT_DONE
    assert done.seconds < 5


def test_all_start_again_until_they_are_done(tmp_path: Path) -> None:
    program = f"""
    attempt = sum(os.path.exists(f"{tmp_path}/{{before}}/{{WHO}}") for before in range(3))
    print(attempt, WHO)
    meet(f"{tmp_path}/{{attempt}}")
    if attempt == 2: sys.exit(0)
    if WHO: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)
    """
    done = run(program, max_restarts=3)
    assert done.code == EXIT_DONE
    assert done.err == [
        f"[launch] worker 1 was killed by SIGKILL; restart {restart} of 3 from the last checkpoint"
        for restart in (1, 2)
    ]
    assert sorted(done.out) == [f"[worker {who}] {attempt} {who}" for who in range(2) for attempt in range(3)]


def test_restarts_have_a_limit_and_a_command_of_their_own() -> None:
    done = run("print('first'); sys.exit(5)", workers=1, max_restarts=2, restart_command=stand_in("sys.exit(6)"))
    assert (done.code, done.out) == (6, ["[worker 0] first"])
    assert [line.partition("; ")[2].strip() for line in done.err] == [
        "restart 1 of 2 from the last checkpoint",
        "restart 2 of 2 from the last checkpoint",
        "all 2 restarts are used up.",
    ]
    assert [line.partition("; ")[0] for line in done.err] == [
        f"[launch] worker 0 ended with exit code {code}" for code in (5, 6, 6)
    ]


def test_workers_that_were_asked_to_stop_for_now_start_again_uncounted(tmp_path: Path) -> None:
    program = f"""
    attempt = sum(os.path.exists(f"{tmp_path}/{{before}}/{{WHO}}") for before in range(3))
    meet(f"{tmp_path}/{{attempt}}")
    if attempt == 2: sys.exit(0)
    time.sleep(0.3 * (WHO == 0))  # The chief saves while the other has already left.
    print(attempt, WHO)
    sys.exit({EXIT_PREEMPTED})
    """
    done = run(program, max_restarts=0, settle_seconds=0.05, save_seconds=20.0, shortest_seconds=0.0)
    assert done.code == EXIT_DONE
    assert done.err == ["[launch] the workers were asked to stop for now and have saved; all start again"] * 2
    assert sorted(done.out) == [f"[worker {who}] {attempt} {who}" for who in range(2) for attempt in range(2)]


def test_a_stop_that_comes_too_soon_is_counted() -> None:
    """A run that is stopped before its first step whenever it starts must not start for ever."""
    done = run(f"sys.exit({EXIT_PREEMPTED})", workers=1, max_restarts=1)
    assert done.code == EXIT_PREEMPTED
    assert "restart 1 of 1" in done.err[0] and "the one restart is used up" in done.err[1]


def test_a_lost_worker_is_counted_though_the_others_end_with_75() -> None:
    assert Ending([EXIT_PREEMPTED, 0], 0, False).preempted
    assert not Ending([EXIT_PREEMPTED, -9], 1, False).preempted
    assert not Ending([EXIT_PREEMPTED, EXIT_PREEMPTED], 0, True).preempted


def test_what_the_user_must_change_is_said_once_and_not_tried_again(tmp_path: Path) -> None:
    program = f"print('error: no such flag', file=sys.stderr); meet({str(tmp_path)!r}); sys.exit({EXIT_USER})"
    done = run(program, max_restarts=3)
    assert done.code == EXIT_USER
    assert len(done.err) == 1
    assert done.err[0].endswith("] error: no such flag")


@pytest.mark.parametrize(
    ("codes", "first_failed", "interrupted", "code"),
    [
        ([0, 0], None, True, EXIT_DONE),
        ([0, -15], None, True, EXIT_PREEMPTED),
        ([1, -2], 0, True, EXIT_PREEMPTED),
        ([EXIT_USER, -2], None, True, EXIT_USER),
        ([-6, 1], 1, False, 1),
    ],
)
def test_the_exit_code_says_whether_the_same_command_goes_on(
    codes: list[int], first_failed: int | None, interrupted: bool, code: int
) -> None:
    assert exit_code(Ending(codes, first_failed, interrupted)) == code


def test_ports_are_new_at_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[int]] = []

    def noted(count: int, taken_before: list[int]) -> list[int]:
        taken.append(list(taken_before))
        return free_ports(count, taken_before)

    monkeypatch.setattr(local, "free_ports", lambda count, taken: noted(count, taken))
    program = "print(*TF_CONFIG['cluster']['worker']); sys.exit(1)"
    done = run(program, workers=1, max_restarts=2)
    used = [[int(line.rpartition(":")[2])] for line in done.out]
    assert taken == [[], *used[:-1]]


def test_free_ports_are_free_different_and_not_those_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not set(free_ports(200, taken=ports)) & set(ports)


def test_a_signal_without_a_name_has_a_number() -> None:
    assert how_it_ended(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert how_it_ended(-(signal.SIGRTMIN + 5)) == f"was killed by signal {signal.SIGRTMIN + 5}"
    assert how_it_ended(1) == "ended with exit code 1"


def test_signal_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    handlers = [lambda *_: None for _ in numbers]
    before = [signal.signal(number, handler) for number, handler in zip(numbers, handlers)]
    try:
        run("")
        assert [signal.getsignal(number) for number in numbers] == handlers
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
