"""Log entries as Cloud Logging keeps and finds them (v2): they may arrive late, and a page may be empty.

As documented at cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list, 2026-11.
"""

from __future__ import annotations

import datetime
import itertools
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fakes.filters import SEVERITIES, moment, predicate
from fakes.rest import Clock, GoogleError, Route, body_of, first_of_page, page, page_token, routed, stamp
from fakes.server import Answer, Request

LONGEST_FILTER = 20_000

_FIELDS = {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}


@dataclass
class _Kept:
    entry: dict[str, Any]
    unseen_lists: int


class LoggingApi:
    """The service.

    Attributes:
      empty_pages: how many answers to come have no entries and another page behind them.
    """

    def __init__(self, lock: threading.RLock, clock: Clock) -> None:
        self._lock = lock
        self.empty_pages = 0
        self._kept: list[_Kept] = []
        self._clock = clock
        self._numbers = itertools.count(1)

    def write(
        self,
        project: str,
        log: str,
        payload: str | Mapping[str, Any],
        resource: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        when: datetime.datetime | None = None,
        severity: str = "DEFAULT",
        insert_id: str = "",
        unseen_lists: int = 0,
    ) -> dict[str, Any]:
        """Adds an entry, from whatever thread, and gives it as the API will.

        Args:
          project: that it belongs to.
          log: such as "ml_job" or "cloudbuild"; its slashes are quoted.
          payload: a line, or the fields of a jsonPayload.
          resource: with "type" and "labels".
          labels: of the entry.
          when: it happened; now if None.
          severity: of `SEVERITIES`.
          insert_id: tells entries of one moment apart; a new one if "".
          unseen_lists: how many first pages of lists do not know the entry yet.
        """
        assert severity in SEVERITIES, severity
        entry: dict[str, Any] = {
            "logName": f"projects/{project}/logs/{log.replace('/', '%2F')}",
            "resource": {"type": resource["type"], "labels": dict(resource["labels"])},
            "timestamp": stamp(when or self._clock()),
            "receiveTimestamp": stamp(self._clock()),
            "severity": severity,
            "insertId": insert_id or f"entry-{next(self._numbers):06d}",
            "textPayload" if isinstance(payload, str) else "jsonPayload": payload,
        }
        if labels:
            entry["labels"] = dict(labels)
        with self._lock:
            self._kept.append(_Kept(entry, unseen_lists))
        return entry

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is this API's own, from the version on."""
        return routed(request, path, (Route("POST", r"/v2/entries:list", self._list),))

    def _list(self, request: Request) -> dict[str, Any]:
        body = body_of(request)
        projects = _projects(body)
        fits = predicate(body.get("filter", ""))
        if self.empty_pages:
            self.empty_pages -= 1
            return {"nextPageToken": page_token(request, first_of_page(request), number=self.empty_pages + 1)}
        there = [
            kept.entry
            for kept in self._kept
            if not kept.unseen_lists and kept.entry["logName"].startswith(projects) and fits(kept.entry)
        ]
        if not body.get("pageToken"):
            for kept in self._kept:
                kept.unseen_lists = max(kept.unseen_lists - 1, 0)
        newest_first = body.get("orderBy", "timestamp asc") == "timestamp desc"
        there.sort(key=lambda entry: (moment(entry["timestamp"]), entry["insertId"]), reverse=newest_first)
        return page(request, there, "entries", default_size=50)


def _projects(body: Mapping[str, Any]) -> tuple[str, ...]:
    """What the names of the entries' logs begin with; refuses a body that the method does not take."""
    unknown = set(body) - _FIELDS
    if unknown:
        raise GoogleError(400, f'Invalid JSON payload received. Unknown name "{min(unknown)}": Cannot find field.')
    names = body.get("resourceNames", [])
    if not isinstance(names, list) or not names or not all(re.fullmatch(r"projects/[^/]+", name) for name in names):
        raise GoogleError(400, f"resource_names {names} are not projects")
    if len(body.get("filter", "")) > LONGEST_FILTER:
        raise GoogleError(400, f"The filter has more than {LONGEST_FILTER} characters")
    if body.get("orderBy", "timestamp asc") not in ("timestamp asc", "timestamp desc"):
        raise GoogleError(400, f"order_by {body['orderBy']!r} is not supported")
    return tuple(f"{name}/logs/" for name in names)
