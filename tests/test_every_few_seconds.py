"""Long work says now and then how far it is."""

from __future__ import annotations

from trainer.every_few_seconds import EveryFewSeconds


def test_it_is_due_again_and_again_and_never_early() -> None:
    now = [100.0]
    reports = EveryFewSeconds(lambda: now[0])
    due = []
    for now[0] in (100.0, 104.9, 105.0, 109.9, 117.0, 121.9, 122.0):
        due.append(reports.due())
    assert due == [False, False, True, False, True, False, True]


def test_short_work_was_never_due() -> None:
    now = [0.0]
    reports = EveryFewSeconds(lambda: now[0])
    assert not reports.due() and not reports.was_due
    now[0] = 5.0
    assert reports.due() and reports.was_due
