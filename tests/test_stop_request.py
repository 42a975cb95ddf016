"""Requests to stop: at a boundary where there are some, at once elsewhere, and by force when patience ends."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer.errors import EXIT_PREEMPTED
from trainer.stop_request import Preempted, StopRequest, keeping_handlers


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def wait_for(happened: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    request = StopRequest(within_seconds=60.0)
    with request.listening():
        yield request


def test_outside_of_training_a_signal_interrupts_at_once(stop: StopRequest) -> None:
    with pytest.raises(Preempted, match=r"asked to end \(SIGTERM\)"):
        send(signal.SIGTERM)
        time.sleep(5)
    with pytest.raises(Preempted, match="SIGTERM"), stop.at_boundaries(lambda _: None):
        pytest.fail("it must not begin")


def test_while_steps_run_a_signal_waits_for_the_boundary(stop: StopRequest) -> None:
    with stop.at_boundaries(lambda _: None):
        send(signal.SIGTERM)
        wait_for(lambda: stop.reason)
        assert stop.reason == "asked to end (SIGTERM)"


def test_ctrl_c_for_the_second_time_interrupts_at_once(stop: StopRequest) -> None:
    with stop.at_boundaries(lambda _: None):
        send(signal.SIGINT)
        wait_for(lambda: stop.reason)
        assert stop.reason == "interrupted from the keyboard"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
            time.sleep(5)


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_handler_that_somebody_else_replaced_comes_back(stop: StopRequest) -> None:
    with keeping_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        send(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"):
        send(signal.SIGTERM)
        time.sleep(5)


def test_another_thread_leaves_handlers_alone() -> None:
    def enter() -> bool:
        with keeping_handlers():
            return True

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(enter).result()


def test_a_notice_from_another_thread_interrupts_the_main_one(stop: StopRequest) -> None:
    threading.Timer(0.05, stop.interrupt, ["the cloud takes this machine back"]).start()
    with pytest.raises(Preempted, match="the cloud takes this machine back"):
        time.sleep(5)


def test_patience_ends_with_last_words_and_exit_code_75() -> None:
    left: list[int] = []
    said: list[str] = []
    request = StopRequest(within_seconds=0.05, leave=left.append)
    with request.at_boundaries(said.append):
        request.ask("told")
        wait_for(lambda: left)
    assert (left, said) == ([EXIT_PREEMPTED], ["told"])


def test_last_words_that_hang_do_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.stop_request._SECONDS_FOR_LAST_WORDS", 0.05)
    left: list[int] = []
    request = StopRequest(within_seconds=0.1, leave=left.append)
    forever = threading.Event()
    with request.at_boundaries(lambda _: print(forever.wait(20))):
        request.ask("told")
        wait_for(lambda: left, 2.0)
    forever.set()


def test_a_signal_starts_the_clock_while_the_main_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own handlers wait until a call of TensorFlow comes back; what counts the seconds must not."""
    monkeypatch.setattr("trainer.stop_request._SECONDS_FOR_LAST_WORDS", 0.01)
    left: list[float] = []
    request = StopRequest(within_seconds=0.05, leave=lambda _: left.append(time.monotonic()))
    with request.listening(), request.at_boundaries(lambda _: None):
        threading.Timer(0.05, send, [signal.SIGTERM]).start()
        # One call that lets other threads run and no handler, as a call of compiled steps is.
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 3_000_000)
        call_ended = time.monotonic()
        wait_for(lambda: left)
    assert left[0] < call_ended - 0.1


def test_minutes_that_are_over_are_a_reason_by_the_clock_alone() -> None:
    now = [0.0]
    request = StopRequest(max_minutes=2.0, clock=lambda: now[0])
    now[0] = 119.9
    assert request.reason == ""
    now[0] = 120.0
    assert request.reason == "--max_minutes=2 are over"
