"""The filters of Google's list methods and of Cloud Logging: comparisons joined by AND, OR, NOT and parentheses.

As documented at google.aip.dev/160 and cloud.google.com/logging/docs/view/logging-query-language, 2026-11: OR binds
tighter than AND, and a value that has other characters than letters, digits, "_", "-", "." or "/" must be quoted. What
the services offer beyond (functions, regular expressions, text without a field) is refused.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes.rest import GoogleError

Predicate = Callable[[Mapping[str, Any]], bool]

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""Of log entries, the mildest first."""

_TOKEN = re.compile(r'\s*(?:(?P<sign>[()]|>=|<=|!=|[=<>:])|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[\w./*-]+))')
_COMPARISONS = ("=", "!=", ">", ">=", "<", "<=", ":")


def predicate(text: str) -> Predicate:
    """What tells whether a filter lets a resource through; an empty one lets all.

    Raises:
      GoogleError: 400, as the service answers to a filter that it cannot read.
    """
    if not text.strip():
        return lambda item: True
    parser = _Parser(_tokens(text))
    found = parser.conjunction()
    if parser.next is not None:
        raise GoogleError(400, f"Unparseable filter: unexpected {parser.next} in {text}")
    return found


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise GoogleError(400, f"Unparseable filter: syntax error at column {place + 1} of {text}")
        tokens.append(match[match.lastgroup or 0])
        place = match.end()
        # A quoted part of a field's path follows its dot at once.
        while tokens[-1].endswith(".") and place < len(text) and (more := _TOKEN.match(text, place)):
            tokens[-1] += more[0].strip()
            place = more.end()
            if place < len(text) and text[place] == "." and (more := _TOKEN.match(text, place)):
                tokens[-1] += more[0]
                place = more.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    @property
    def next(self) -> str | None:
        return self._tokens[0] if self._tokens else None

    def conjunction(self) -> Predicate:
        """What stands side by side is joined by AND as well."""
        parts = [self._disjunction()]
        while self.next is not None and self.next != ")":
            if self.next == "AND":
                self._tokens.pop(0)
            parts.append(self._disjunction())
        return lambda item: all(part(item) for part in parts)

    def _disjunction(self) -> Predicate:
        parts = [self._factor()]
        while self.next == "OR":
            self._tokens.pop(0)
            parts.append(self._factor())
        return lambda item: any(part(item) for part in parts)

    def _factor(self) -> Predicate:
        if self.next == "NOT":
            self._tokens.pop(0)
            negated = self._factor()
            return lambda item: not negated(item)
        if self.next == "(":
            self._tokens.pop(0)
            inner = self.conjunction()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        path = _path(self._take("a field"))
        comparison = self._take("a comparison")
        if comparison not in _COMPARISONS:
            raise GoogleError(400, f"Unparseable filter: {'.'.join(path)} is followed by {comparison}")
        value = self._take("a value")
        if value in ("(", ")", *_COMPARISONS):
            raise GoogleError(400, f"Unparseable filter: {'.'.join(path)}{comparison} is followed by {value}")
        return _compared(path, comparison, _unquoted(value))

    def _take(self, what: str) -> str:
        if self.next is None:
            raise GoogleError(400, f"Unparseable filter: it ends where {what} is expected")
        return self._tokens.pop(0)

    def _expect(self, sign: str) -> None:
        if self._take(sign) != sign:
            raise GoogleError(400, f"Unparseable filter: {sign} is missing")


def _path(text: str) -> list[str]:
    parts = re.findall(r'"(?:[^"\\]|\\.)*"|[^."]+', text)
    return [_unquoted(part) for part in parts]


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text)) if text.startswith('"') else text
    except ValueError:
        raise GoogleError(400, f"Unparseable filter: {text}") from None


def _compared(path: list[str], comparison: str, value: str) -> Predicate:
    def holds(item: Mapping[str, Any]) -> bool:
        found: Any = item
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, list):  # As in tags="a": one of them.
            return any(_holds(path, element, comparison, value) for element in found)
        return _holds(path, found, comparison, value)

    return holds


def _holds(path: list[str], found: Any, comparison: str, value: str) -> bool:
    if comparison == ":" and value == "*":
        return found is not None
    if found is None:
        return comparison == "!="
    if comparison == ":":
        return value.lower() in str(found).lower()
    left, right = _comparable(path, found), _comparable(path, value)
    return {
        "=": left == right,
        "!=": left != right,
        ">": left > right,
        ">=": left >= right,
        "<": left < right,
        "<=": left <= right,
    }[comparison]


def _comparable(path: list[str], value: Any) -> Any:
    """A value as it is ordered: moments as moments, severities by their weight, the rest as text."""
    name = path[-1]
    if name.lower().endswith(("timestamp", "time", "_time")):
        return moment(str(value))
    if name == "severity":
        if str(value).upper() not in SEVERITIES:
            raise GoogleError(400, f"Unparseable filter: there is no severity {value}")
        return SEVERITIES.index(str(value).upper())
    return str(value)


def moment(text: str) -> datetime.datetime:
    """A moment as the services write it (RFC 3339), to the microsecond."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise GoogleError(400, f"Unparseable filter: {text} is no timestamp of RFC 3339")
    fraction = (match[2] or "0")[:6].ljust(6, "0")
    return datetime.datetime.fromisoformat(f"{match[1]}.{fraction}{match[3].replace('Z', '+00:00')}")
