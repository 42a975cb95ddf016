"""Records as objects of Cloud Storage. `launch.records.records` says what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from launch.jobs.job import NAME_PATTERN
from launch.records.record_rules import ENDING, LARGEST, as_bytes, check, check_is_earlier, newest_first, passed_over
from launch.records.records import Record
from launch.services.service import ApiRequest
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.google.api_errors import ApiError
    from launch.google.google_api import GoogleApi

_ATTEMPTS_TO_SAVE = 5
"""How often a record that changes again and again while it is written is read anew."""

_CONNECTIONS = 8
"""Objects that are read at the same time; `requests` keeps ten connections to a host."""


class _Object(NamedTuple):
    """One object of a bucket: its job, and which of its versions it is."""

    name: str
    generation: str
    size: int


class BucketRecords:
    """Records as objects of Cloud Storage. One is replaced only if it is still the version that was looked at."""

    def __init__(self, place: str, api: Callable[[], GoogleApi], warn: Callable[[str], None]) -> None:
        """Sends nothing yet.

        Args:
          place: gs://BUCKET[/PREFIX].
          api: gives the way to Cloud Storage.
          warn: is told of objects that are passed over.

        Raises:
          UserError: the place names no bucket.
        """
        # Cloud Storage's rules for names of buckets (2026-11), as far as they keep one from acting in an address.
        match = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?", place)
        if not match:
            raise UserError(f"--records={place}: must name a bucket, as in gs://BUCKET/jobs.")
        self._bucket = match[1]
        prefix = (match[2] or "").strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._api = api
        self._warn = warn

    def save(self, record: Record) -> None:
        """See `launch.records.records.Records`."""
        from launch.google.api_errors import ApiError

        check(record)
        for _ in range(_ATTEMPTS_TO_SAVE):
            there = self._find(record.name)
            if there:
                content = self._content(there)
                if content is None:
                    continue
                check_is_earlier(self._address(record.name), content, record)
            try:
                self._put(record, there.generation if there else "0")
                return
            except ApiError as error:
                if error.status != 412:
                    raise self._refused(error, "written") from error
        raise UserError(
            f"{self._address(record.name)} is written by somebody else all the time: give the job another name."
        )

    def forget(self, record: Record) -> None:
        """See `launch.records.records.Records`."""
        from launch.google.api_errors import ApiError

        there = self._find(record.name)
        found = self._read(there) if there else None
        if there is None or found is None or found.submission != record.submission:
            return
        query = {"ifGenerationMatch": there.generation}
        try:
            self._api().send(ApiRequest("storage", "DELETE", self._object_path(there), query))
        except ApiError as error:
            if error.status not in (404, 412):  # It is gone, or another one is there.
                raise self._refused(error, "removed") from error

    def load(self, name: str) -> Record | None:
        """See `launch.records.records.Records`."""
        if not NAME_PATTERN.fullmatch(name):
            return None
        there = self._find(name)
        return self._read(there) if there else None

    def all(self) -> list[Record]:
        """See `launch.records.records.Records`."""
        objects = self._list(self._prefix)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return newest_first(pool.map(self._read, objects))

    def _find(self, name: str) -> _Object | None:
        return next((there for there in self._list(f"{self._prefix}{name}{ENDING}") if there.name == name), None)

    def _list(self, prefix: str) -> list[_Object]:
        from launch.google.api_errors import ApiError

        query = {"prefix": prefix, "delimiter": "/", "fields": "nextPageToken,items(name,generation,size)"}
        request = ApiRequest("storage", "GET", f"storage/v1/b/{self._bucket}/o", query)
        try:
            items = list(self._api().pages(request, "items"))
        except ApiError as error:
            raise self._refused(error, "read") from error
        names = ((str(item["name"]).removeprefix(self._prefix), item) for item in items)
        return [
            _Object(name.removesuffix(ENDING), str(item["generation"]), int(item["size"]))
            for name, item in names
            if name.endswith(ENDING)
        ]

    def _read(self, there: _Object) -> Record | None:
        try:
            if there.size > LARGEST:
                raise ValueError("it is too large")
            content = self._content(there)
            return None if content is None else Record.from_json(content, there.name)
        except ValueError as error:
            self._warn(passed_over(self._address(there.name), error))
            return None

    def _content(self, there: _Object) -> bytes | None:
        """None if that version is there no more."""
        from launch.google.api_errors import ApiError

        query = {"alt": "media", "generation": there.generation}
        try:
            return self._api().download(ApiRequest("storage", "GET", self._object_path(there), query))
        except ApiError as error:
            if error.status == 404:
                return None
            raise self._refused(error, "read") from error

    def _object_path(self, there: _Object) -> str:
        name = quote(f"{self._prefix}{there.name}{ENDING}", safe="")
        return f"storage/v1/b/{self._bucket}/o/{name}"

    def _put(self, record: Record, generation: str) -> None:
        query = {
            "uploadType": "media",
            "name": f"{self._prefix}{record.name}{ENDING}",
            "ifGenerationMatch": generation,
        }
        path = f"upload/storage/v1/b/{self._bucket}/o"
        self._api().upload(ApiRequest("storage", "POST", path, query), as_bytes(record), "application/json")

    def _address(self, name: str) -> str:
        return f"gs://{self._bucket}/{self._prefix}{name}{ENDING}"

    def _refused(self, error: ApiError, done: str) -> Exception:
        """What to raise instead: a sentence where the user can change something."""
        from launch.google.api_errors import sentence

        place = f"gs://{self._bucket}/{self._prefix}".rstrip("/")
        if error.status == 404:
            return UserError(
                f"--records={place}: there is no bucket {self._bucket}; `gcloud storage buckets create "
                f"gs://{self._bucket}` makes it."
            )
        if error.status == 403:
            return UserError(sentence(error, f"The records of jobs cannot be {done} in {place}"))
        return error
