"""Moments as Google's APIs write them: RFC 3339 in UTC, with none to nine digits behind the second."""

from __future__ import annotations

import datetime
import re

_PATTERN = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


def parse_moment(text: str) -> datetime.datetime:
    """The moment that a timestamp names, in UTC; what is below a microsecond is cut off.

    Raises:
      ValueError: it is none, or not in UTC, which is what Google's APIs answer in.
    """
    parts = _PATTERN.fullmatch(text)
    if not parts:
        raise ValueError(f"{text!r} is no timestamp in UTC")
    microseconds = int((parts[2] or "").ljust(9, "0")[:6])
    return datetime.datetime.fromisoformat(parts[1]).replace(microsecond=microseconds, tzinfo=datetime.timezone.utc)


def optional_moment(text: str) -> datetime.datetime | None:
    """As `parse_moment`, or None for "", which stands for a moment that a service does not tell.

    Raises:
      ValueError: as `parse_moment`.
    """
    return parse_moment(text) if text else None


def in_nanoseconds(text: str) -> str:
    """A timestamp with all nine digits, so that two of them are in order as texts.

    Raises:
      ValueError: it is none that `parse_moment` takes.
    """
    parts = _PATTERN.fullmatch(text)
    if not parts:
        raise ValueError(f"{text!r} is no timestamp in UTC")
    return f"{parts[1]}.{(parts[2] or '').ljust(9, '0')}Z"


def as_timestamp(moment: datetime.datetime) -> str:
    """A moment as Google's APIs read it.

    Args:
      moment: with a time zone.
    """
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
