"""Timestamps of Google's APIs."""

from __future__ import annotations

import datetime

import pytest

from launch.google.timestamps import as_timestamp, in_nanoseconds, optional_moment, parse_moment

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("text", "microsecond", "nine_digits"),
    [
        ("2026-11-22T17:00:09Z", 0, "2026-11-22T17:00:09.000000000Z"),
        ("2026-11-22T17:00:09.5Z", 500000, "2026-11-22T17:00:09.500000000Z"),
        ("2026-11-22T17:00:09.123456789Z", 123456, "2026-11-22T17:00:09.123456789Z"),
    ],
)
def test_a_timestamp_is_a_moment(text: str, microsecond: int, nine_digits: str) -> None:
    moment = datetime.datetime(2026, 11, 22, 17, 0, 9, microsecond, tzinfo=UTC)
    assert parse_moment(text) == optional_moment(text) == moment
    assert in_nanoseconds(text) == nine_digits
    assert parse_moment(as_timestamp(moment)) == moment


def test_a_moment_of_another_zone_is_written_in_utc() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert as_timestamp(datetime.datetime(2026, 11, 22, 1, 30, tzinfo=zone)) == "2026-11-21T23:30:00.000000Z"


def test_nothing_is_no_moment() -> None:
    assert optional_moment("") is None


@pytest.mark.parametrize("text", ["", "now", "2026-11-22T17:00:09", "2026-11-22T17:00:09+02:00", "2026-11-22T17:00Z"])
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no timestamp in UTC"):
        parse_moment(text)
    with pytest.raises(ValueError, match="is no timestamp in UTC"):
        in_nanoseconds(text)
