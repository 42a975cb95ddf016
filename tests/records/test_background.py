"""The background writer: order, errors, and who waits for whom."""

from __future__ import annotations

import threading

import pytest

from trainer.records.background import BackgroundWriter


def test_jobs_are_done_in_order_and_all_are_done_at_the_end() -> None:
    done: list[int] = []
    with BackgroundWriter() as background:
        for number in range(50):
            background.append("x", lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == list(range(50))


def test_the_thread_that_hands_over_goes_on_meanwhile() -> None:
    go, done = threading.Event(), []
    with BackgroundWriter() as background:
        background.append("slow", lambda: done.append(go.wait(10)))
        assert background.busy("slow") and not background.busy("other")
        go.set()
        background.wait_for("slow")
        assert done == [True] and not background.busy("slow")


def test_only_the_newest_of_a_kind_is_done() -> None:
    go = threading.Event()
    done: list[object] = []
    with BackgroundWriter() as background:
        background.append("slow", lambda: done.append(go.wait(10)))
        for number in range(3):
            background.submit("status", lambda number=number: done.append(number))  # type: ignore[misc]
        background.append("other", lambda: done.append("other"))
        go.set()
    assert done == [True, 2, "other"]


def test_an_error_comes_back_where_the_next_job_is_handed_over_and_what_waited_is_dropped() -> None:
    error, go, done = ValueError("disk"), threading.Event(), []

    def fail() -> None:
        go.wait(10)
        raise error

    with BackgroundWriter() as background:
        background.append("bad", fail)
        background.append("later", lambda: done.append(1))
        go.set()
        with pytest.raises(ValueError, match="disk") as raised:
            background.wait_for("later")
        assert raised.value is error and not done
        background.append("next", lambda: done.append(2))
    assert done == [2]


def test_an_error_of_the_last_job_is_not_lost() -> None:
    def fail() -> None:
        raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"), BackgroundWriter() as background:
        background.append("bad", fail)


def test_the_error_that_ends_the_block_is_the_news() -> None:
    def fail() -> None:
        raise ValueError("disk")

    with pytest.raises(KeyError, match="news"), BackgroundWriter() as background:
        background.append("bad", fail)
        raise KeyError("news")
