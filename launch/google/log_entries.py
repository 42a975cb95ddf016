"""What workers printed, out of Cloud Logging.

    log = LogReader(api, project).open(service.log_filter(status))
    log.new_lines()    again and again: each line once

Cloud Logging shows an entry seconds after it was printed, some of them later than others, and has no way to ask for
"what came since". So each read goes back behind the newest line that was seen, and leaves out what it has had already.
"""

from __future__ import annotations

import datetime
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from launch.google.google_api import ApiError, GoogleApi
from launch.google.timestamps import as_timestamp, in_nanoseconds, parse_moment
from launch.services.service import ApiRequest, LogLine

PAGE_SIZE = 1000
"""The most entries that one answer has (entries.list, 2026-11)."""

READS_A_MINUTE = 30
"""Half of the 60 that a project has for all who read (cloud.google.com/logging/quotas gave that number until 2026, and
refers to the project's own list of quotas now), so that two people can follow their jobs."""

_MINUTE = 60.0

OVERLAP = datetime.timedelta(seconds=60)
"""How far a read goes back behind the newest line. What comes later than that is not seen any more; Google names no
bound, and gcloud's own `stream-logs` (528) goes back by nothing at all."""

SETTLED = datetime.timedelta(seconds=5)
"""A line that is younger waits for the next read, so that those which come late can be put in front of it. The same
time as gcloud's."""

WORKER_LABEL = "hub-trainer-worker"
"""The container's label by which `launch.services.tpu_startup` tells the hosts of a slice apart."""

_NEVER = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)

_Key = tuple[str, str, str]
"""Which entry it is, in their order: moment in nanoseconds, insertId, log's name."""


def utc_now() -> datetime.datetime:
    """The moment, by the clock of this machine."""
    return datetime.datetime.now(datetime.timezone.utc)


class LogReader:
    """Reads a project's entries, no faster than its quota lets several people read."""

    def __init__(
        self,
        api: GoogleApi,
        project: str,
        *,
        now: Callable[[], datetime.datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Asks nothing yet.

        Args:
          api: the way to Cloud Logging.
          project: id of the project that the jobs belong to.
          now: gives the moment, to tell young lines from settled ones; that it is exact matters to their order alone.
          clock: seconds from anywhere, to count requests by.
          sleep: pauses.
        """
        self._api = api
        self._project = project
        self._clock = clock
        self._sleep = sleep
        self._reads: deque[float] = deque(maxlen=READS_A_MINUTE)
        self.now = now

    def open(self, log_filter: str) -> JobLog:
        """The lines that fit a filter, from the first.

        Args:
          log_filter: in Cloud Logging's language, without a condition that ends before the job does.
        """
        return JobLog(self, log_filter)

    def pages(self, log_filter: str) -> Iterator[list[dict[str, Any]]]:
        """The entries that fit a filter, the oldest first, page by page; a page may be empty.

        Raises:
          ApiError: the log may not be read, or not now; or a page names one that was there before as the next.
        """
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._project}"],
            "filter": log_filter,
            "orderBy": "timestamp asc",
            "pageSize": PAGE_SIZE,
        }
        seen = set()
        while True:
            request = ApiRequest("logging", "POST", "v2/entries:list", body=body)
            self._wait_for_quota()
            answer = self._api.send(request)
            yield answer.get("entries", [])
            token = answer.get("nextPageToken", "")
            if not token:
                return
            if token in seen:
                raise ApiError(0, "", "its list of entries goes round in circles", request)
            seen.add(token)
            body = {**body, "pageToken": token}

    def _wait_for_quota(self) -> None:
        if len(self._reads) == READS_A_MINUTE:
            since_first = self._clock() - self._reads[0]
            if since_first < _MINUTE:
                self._sleep(_MINUTE - since_first)
        self._reads.append(self._clock())


class JobLog:
    """The log of one job, as it comes."""

    def __init__(self, reader: LogReader, log_filter: str) -> None:
        """Asks nothing yet; `LogReader.open` makes one."""
        self._reader = reader
        self._filter = log_filter
        self._newest = _NEVER
        self._start = _NEVER
        self._known: set[_Key] = set()
        self._waiting: dict[_Key, LogLine] = {}

    def new_lines(self) -> Iterator[LogLine]:
        """The lines that have come since the last call, in their order, page by page as they are read.

        A line that comes late is put in its place if the one behind it still waits, and otherwise given late. Lines of
        the last `SETTLED` come with the next call.

        Raises:
          ApiError: they cannot be read now. Where some could be, these are given, and the next call raises it if it
            is still so.
        """
        now = self._reader.now()
        # What waited since the last call has waited long enough, whatever this machine's clock says.
        settled = max([now - SETTLED, *(line.moment for line in self._waiting.values())])
        gave_some = False
        try:
            for page in self._reader.pages(self._filter_of_read(now)):
                for entry in page:
                    self._take(entry)
                if page:  # Those behind are younger than the last one here.
                    for line in self._released(min(settled, _moment(page[-1]))):
                        gave_some = True
                        yield line
        except ApiError:
            if not gave_some:
                raise
            return
        yield from self._released(settled)

    def _filter_of_read(self, now: datetime.datetime) -> str:
        """The filter, from a little before the newest line on; lines that claim to come from the future don't count."""
        if self._newest == _NEVER:
            return self._filter
        self._start = max(self._start, min(self._newest, now) - OVERLAP)
        self._known = {key for key in self._known if parse_moment(key[0]) >= self._start}
        return f'({self._filter}) AND timestamp>="{as_timestamp(self._start)}"'

    def _take(self, entry: Mapping[str, Any]) -> None:
        key = (in_nanoseconds(entry["timestamp"]), str(entry.get("insertId", "")), str(entry.get("logName", "")))
        if key in self._known:
            return
        self._known.add(key)
        self._waiting[key] = line_of(entry)
        self._newest = max(self._newest, _moment(entry))

    def _released(self, until: datetime.datetime) -> Iterator[LogLine]:
        for key in sorted(self._waiting):
            if self._waiting[key].moment > until:
                return
            yield self._waiting.pop(key)


def line_of(entry: Mapping[str, Any]) -> LogLine:
    """A log entry of Vertex AI, Cloud Build or docker's gcplogs driver as the line that somebody printed.

    Args:
      entry: LogEntry of Cloud Logging's API (v2).
    """
    return LogLine(
        moment=_moment(entry),
        insert_id=str(entry.get("insertId", "")),
        worker=_worker(entry),
        severity=str(entry.get("severity", "DEFAULT")),
        text=_text(entry).rstrip("\r\n"),
    )


def _moment(entry: Mapping[str, Any]) -> datetime.datetime:
    return parse_moment(entry["timestamp"])


def _text(entry: Mapping[str, Any]) -> str:
    if "textPayload" in entry:
        return str(entry["textPayload"])
    payload = _within(entry, "jsonPayload")
    return str(payload["message"]) if "message" in payload else json.dumps(payload, sort_keys=True)


def _worker(entry: Mapping[str, Any]) -> str:
    """Who printed it: of Vertex AI its task, as in "workerpool0-0"; of Cloud TPU its host; of Cloud Build its step."""
    task = _within(entry, "resource", "labels").get("task_name") or _within(entry, "labels").get("build_step")
    if task:
        return str(task)
    number = _within(entry, "jsonPayload", "container", "metadata").get(WORKER_LABEL)
    if number is not None:
        return f"worker {number}"
    return str(_within(entry, "jsonPayload", "instance").get("name") or _within(entry, "resource").get("type", ""))


def _within(values: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """What lies there, {} if nothing does or it is no object: workers choose what they log."""
    for key in keys:
        found = values.get(key)
        if not isinstance(found, Mapping):
            return {}
        values = found
    return values
