"""The two places that records are kept in: a folder, and Cloud Storage. `launch.records` says what is in them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from launch.job import NAME_PATTERN
from launch.records import Record
from launch.service import ApiRequest
from trainer.config_values import credentials_problem
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.google_api import ApiError, GoogleApi

LARGEST = 2**20
"""Bytes; the largest part of a record, a start-up script, may have 256 KiB (Compute Engine's limit for a value of
metadata, 2026-11)."""

_ENDING = ".json"

_ATTEMPTS_TO_SAVE = 5
"""How often a record that changes again and again while it is written is read anew."""

_CONNECTIONS = 8
"""Objects that are read at the same time; `requests` keeps ten connections to a host."""


class FolderRecords:
    """Records as files of a folder."""

    def __init__(self, folder: str, warn: Callable[[str], None]) -> None:
        """Reads nothing yet.

        Args:
          folder: need not be there yet.
          warn: is told of files that are passed over.
        """
        self._folder = Path(folder)
        self._warn = warn

    def save(self, record: Record) -> None:
        """See `launch.records.Records`."""
        _check(record)
        path = self._path(record.name)
        content = _as_bytes(record)
        with self._as_sentences("written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{record.name}-{secrets.token_hex(8)}.tmp"
            try:
                with open(draft, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if _exists(path) or not _linked(draft, path):
                    _check_is_earlier(str(path), path.read_bytes(), record)
                    os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)

    def forget(self, record: Record) -> None:
        """See `launch.records.Records`."""
        there = self.load(record.name)
        if there and there.submission == record.submission:
            with self._as_sentences("removed"):
                self._path(record.name).unlink(missing_ok=True)

    def load(self, name: str) -> Record | None:
        """See `launch.records.Records`."""
        if not NAME_PATTERN.fullmatch(name):
            return None
        with self._as_sentences("read"):
            path = self._path(name)
            return self._read(path) if _exists(path) else None

    def all(self) -> list[Record]:
        """See `launch.records.Records`."""
        with self._as_sentences("read"):
            if not _exists(self._folder):
                return []
            paths = [path for path in self._folder.iterdir() if path.suffix == _ENDING and not path.is_dir()]
            return _newest_first(self._read(path) for path in paths)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_ENDING}"

    def _read(self, path: Path) -> Record | None:
        try:
            if not path.is_file() or path.stat().st_size > LARGEST:
                raise ValueError("it is too large, or no file")
            return Record.from_json(path.read_bytes(), path.stem)
        except (OSError, ValueError) as error:
            self._warn(_passed_over(str(path), error))
            return None

    @contextlib.contextmanager
    def _as_sentences(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The records of jobs cannot be {done} in {self._folder} ({error.strerror}): give another folder or "
                "gs:// address as --records."
            ) from error


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
        """See `launch.records.Records`."""
        from launch.google_api import ApiError

        _check(record)
        for _ in range(_ATTEMPTS_TO_SAVE):
            there = self._find(record.name)
            if there:
                content = self._content(there)
                if content is None:
                    continue
                _check_is_earlier(self._address(record.name), content, record)
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
        """See `launch.records.Records`."""
        from launch.google_api import ApiError

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
        """See `launch.records.Records`."""
        if not NAME_PATTERN.fullmatch(name):
            return None
        there = self._find(name)
        return self._read(there) if there else None

    def all(self) -> list[Record]:
        """See `launch.records.Records`."""
        objects = self._list(self._prefix)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return _newest_first(pool.map(self._read, objects))

    def _find(self, name: str) -> _Object | None:
        return next((there for there in self._list(f"{self._prefix}{name}{_ENDING}") if there.name == name), None)

    def _list(self, prefix: str) -> list[_Object]:
        from launch.google_api import ApiError

        query = {"prefix": prefix, "delimiter": "/", "fields": "nextPageToken,items(name,generation,size)"}
        request = ApiRequest("storage", "GET", f"storage/v1/b/{self._bucket}/o", query)
        try:
            items = list(self._api().pages(request, "items"))
        except ApiError as error:
            raise self._refused(error, "read") from error
        names = ((str(item["name"]).removeprefix(self._prefix), item) for item in items)
        return [
            _Object(name.removesuffix(_ENDING), str(item["generation"]), int(item["size"]))
            for name, item in names
            if name.endswith(_ENDING)
        ]

    def _read(self, there: _Object) -> Record | None:
        try:
            if there.size > LARGEST:
                raise ValueError("it is too large")
            content = self._content(there)
            return None if content is None else Record.from_json(content, there.name)
        except ValueError as error:
            self._warn(_passed_over(self._address(there.name), error))
            return None

    def _content(self, there: _Object) -> bytes | None:
        """None if that version is there no more."""
        from launch.google_api import ApiError

        query = {"alt": "media", "generation": there.generation}
        try:
            return self._api().download(ApiRequest("storage", "GET", self._object_path(there), query))
        except ApiError as error:
            if error.status == 404:
                return None
            raise self._refused(error, "read") from error

    def _object_path(self, there: _Object) -> str:
        name = quote(f"{self._prefix}{there.name}{_ENDING}", safe="")
        return f"storage/v1/b/{self._bucket}/o/{name}"

    def _put(self, record: Record, generation: str) -> None:
        query = {
            "uploadType": "media",
            "name": f"{self._prefix}{record.name}{_ENDING}",
            "ifGenerationMatch": generation,
        }
        path = f"upload/storage/v1/b/{self._bucket}/o"
        self._api().upload(ApiRequest("storage", "POST", path, query), _as_bytes(record), "application/json")

    def _address(self, name: str) -> str:
        return f"gs://{self._bucket}/{self._prefix}{name}{_ENDING}"

    def _refused(self, error: ApiError, done: str) -> Exception:
        """What to raise instead: a sentence where the user can change something."""
        place = f"gs://{self._bucket}/{self._prefix}".rstrip("/")
        if error.status == 404:
            return UserError(
                f"--records={place}: there is no bucket {self._bucket}; `gcloud storage buckets create "
                f"gs://{self._bucket}` makes it."
            )
        if error.status == 403:
            return UserError(
                f"--records={place}: the records of jobs cannot be {done} there ({error.message}); the role Storage "
                "Object User on the bucket is enough."
            )
        return error


def _exists(path: Path) -> bool:
    """Whether there is something; unlike `Path.exists`, it raises where that cannot be told."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _linked(draft: Path, path: Path) -> bool:
    """Gives a finished file its name if that is free, and says whether it was: of two processes only one is told so."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # No hard links there, as on FAT: two processes may then overwrite each other's first record.
        os.replace(draft, path)
    return True


def _as_bytes(record: Record) -> bytes:
    return (json.dumps(record.to_json(), indent=2) + "\n").encode()


def _check(record: Record) -> None:
    """Refuses what must not be written: a name that is no file's, and secrets."""
    if not NAME_PATTERN.fullmatch(record.name):
        raise UserError(f"{record.name!r} is no name of a job: lower-case letters, digits and dashes, at most 50.")
    for value in (record.image, record.run_dir, *record.trainer_flags):
        problem = credentials_problem(value)
        if problem:
            raise UserError(f"What is submitted as {record.name} {problem}.")


def _check_is_earlier(place: str, content: bytes, record: Record) -> None:
    """Refuses to replace what is not an earlier record of the same submission."""
    try:
        earlier = Record.from_json(content, record.name)
    except ValueError as error:
        raise UserError(f"{place} is in the way ({error}): move it, or give the job another name.") from None
    if earlier.submission != record.submission:
        raise UserError(f"A job named {record.name} was submitted already ({place}): give this one another --name.")


def _newest_first(records: Iterable[Record | None]) -> list[Record]:
    found = [record for record in records if record is not None]
    return sorted(found, key=lambda record: (record.created_at, record.name), reverse=True)


def _passed_over(place: str, error: Exception) -> str:
    return f"{place} is passed over: {error}."
