"""The launcher as a program: how it is interrupted, killed, watched on a terminal and through a pipe."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import assert_gone, is_running

from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER

REPOSITORY = Path(__file__).resolve().parents[2]

SUPERVISE = """
import os, sys
import launch.local.supervise
from launch.local.guard import Guard
from launch.local.supervise import Launch, supervise
from launch.local.worker_logs import Console

class TellingGuard(Guard):
    def __init__(self):
        super().__init__()
        print("[guard] pids", self.pid, flush=True)

launch.local.supervise.Guard = TellingGuard
command = [sys.executable, "-S", "-c", sys.argv[1]]
plan = Launch(command, command, 2, max_restarts=3, how_to_go_on="Go on.", save_seconds=float(sys.argv[2]))
sys.exit(supervise(plan, Console(sys.stdout, sys.stderr, os.environ), os.environ))
"""

SLEEPING = """
import os, signal, subprocess, time
child = subprocess.Popen(["sleep", "60"])
print("pids", os.getpid(), child.pid, flush=True)
time.sleep(60)
"""

LISTENING = """
import os, signal, sys, time
def tell(number, frame):
    print("got", signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, tell)
print("pids", os.getpid(), flush=True)
time.sleep(60)
"""

DEAF = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("pids", os.getpid(), flush=True)
time.sleep(60)
"""


@contextmanager
def launcher(
    worker: str,
    *,
    save_seconds: float = 5.0,
    ignore_hangup: bool = False,
    out: int = subprocess.PIPE,
    err: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """A launcher with two workers, in a session of its own; it is ended with all it started, whatever happens."""

    def prepare() -> None:
        # What ignores them, as a shell's background jobs and nohup do, hands that on to what it starts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore_hangup else signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, worker, str(save_seconds)],
        cwd=REPOSITORY,
        text=True,
        preexec_fn=prepare,
        stdout=out,
        stderr=err,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            finally:
                process.kill()


def pids_of(process: subprocess.Popen[str]) -> list[int]:
    """What the guard and both workers print of themselves and their children, once all have."""
    assert process.stdout
    pids: list[int] = []
    speakers: set[str] = set()
    while len(speakers) < 3:
        line = process.stdout.readline()
        assert line, "the launcher has ended"
        speaker, said, numbers = line.partition("] pids")
        if said:
            speakers.add(speaker)
            pids += map(int, numbers.split())
    return pids


@pytest.mark.parametrize(
    ("sent", "heard"),
    [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGTERM")],
)
def test_a_signal_is_handed_on_and_ends_all(sent: signal.Signals, heard: str) -> None:
    with launcher(LISTENING) as process:
        pids = pids_of(process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=15)
    assert process.returncode == EXIT_PREEMPTED
    assert sorted(out.splitlines()) == [f"[worker {who}] got {heard}" for who in (0, 1)]
    assert err == "[launch] interrupted. Go on.\n"
    assert_gone(pids)


def test_ctrl_c_leaves_no_child_of_a_worker() -> None:
    with launcher(SLEEPING) as process:
        pids = pids_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == EXIT_PREEMPTED
    assert len(pids) == 5
    assert_gone(pids)


def test_workers_that_do_not_listen_are_killed_after_the_grace() -> None:
    with launcher(DEAF, save_seconds=0.5) as process:
        pids = pids_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == EXIT_PREEMPTED
    assert_gone(pids)


def test_a_second_ctrl_c_kills_at_once() -> None:
    with launcher(DEAF, save_seconds=60) as process:
        pids = pids_of(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == EXIT_PREEMPTED
    assert_gone(pids)


def test_a_signal_that_is_to_be_ignored_stays_ignored() -> None:
    with launcher(LISTENING, ignore_hangup=True) as process:
        pids_of(process)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)


def test_a_launcher_that_is_killed_leaves_no_process() -> None:
    with launcher(SLEEPING) as process:
        pids = pids_of(process)
        process.kill()
        process.wait()
    assert len(pids) == 5
    assert_gone(pids)


def test_the_guard_does_not_hear_the_terminals_ctrl_c() -> None:
    with launcher(DEAF, save_seconds=60) as process:
        pids = pids_of(process)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        assert all(map(is_running, pids))
        process.kill()
        process.wait()
    assert len(pids) == 3
    assert_gone(pids)


def test_the_guard_ends_with_the_launcher() -> None:
    with launcher("print('pids')") as process:
        pids = pids_of(process)
        assert process.wait(15) == EXIT_DONE
    assert len(pids) == 1
    assert_gone(pids)


def test_a_run_outlives_its_reader() -> None:
    worker = "print('pids', flush=True)\nimport time\nfor each in range(20): print(each); time.sleep(0.02)"
    with launcher(worker) as process:
        pids_of(process)
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.wait(15) == EXIT_DONE
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("variables", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal_prefixes_are_colored(
    variables: Mapping[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    terminal, its_end = pty.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        launcher("print('hello')", out=its_end, err=its_end) as process,
    ):
        os.close(its_end)
        shown = b""
        while shown.count(b"hello") < 2:
            shown += screen.read(1000)
        assert process.wait(15) == EXIT_DONE
    for prefix in (b"\x1b[36m[worker 0]\x1b[0m hello\r\n", b"\x1b[33m[worker 1]\x1b[0m hello\r\n"):
        assert (prefix in shown) == colored
    assert (b"\x1b" in shown) == colored


def test_help_is_fast_and_nothing_imports_tensorflow() -> None:
    command = [sys.executable, "-m", "launch", "run", "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert "--max_restarts" in done.stdout
    assert min(seconds) < 0.5


def test_a_whole_command_is_checked_without_tensorflow() -> None:
    program = (
        "import sys; from launch.__main__ import main; import launch.local.supervise, launch.local.worker_logs\n"
        "code = main(['run', '--workers=2', '--', '--epochs=x'])\n"
        "print(code, *{'tensorflow', 'keras', 'numpy', 'rich'} & set(sys.modules), 'trainer.config' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(EXIT_USER), "True"]
    assert done.stderr == "error: --epochs=x: must be a whole number.\n"
