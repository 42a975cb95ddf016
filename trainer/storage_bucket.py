"""What TensorFlow's own gs:// file system cannot do: listings with sizes, whole objects, and writes under a condition.

Google's client is imported where a bucket is opened.
"""

from __future__ import annotations

import base64
import email.utils
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from trainer.errors import UserError
from trainer.wording import first_line

PAGE_OBJECTS = 1000
"""Objects in a page of a listing: the most that Cloud Storage gives (2026)."""

PATIENCE_SECONDS = 60.0
"""How long a request is repeated that fails for reasons that pass, such as an overloaded server."""

_FIELDS = "items(name,size,generation,crc32c),prefixes,nextPageToken"

_REQUEST_SECONDS = (10.0, 60.0)
"""What connecting and each part of an answer may take."""


class _Access(NamedTuple):
    """What is asked of a bucket: OAuth scope, and the words for it."""

    scope: str
    rights: str
    done: str


_READING = _Access("https://www.googleapis.com/auth/devstorage.read_only", "list and read", "read")
_WRITING = _Access("https://www.googleapis.com/auth/devstorage.read_write", "read and write", "read or written")


class BucketObject(NamedTuple):
    """An object in a listing.

    Attributes:
      name: inside the bucket.
      size: bytes.
      generation: another number whenever the object was written; 0 where the server does not tell.
      crc32c: of the content; -1 where the server does not tell.
    """

    name: str
    size: int
    generation: int
    crc32c: int


class Page(NamedTuple):
    """Part of a listing.

    Attributes:
      folders: beginnings that objects have in common, up to and with a slash.
      objects: the others.
    """

    folders: list[str]
    objects: list[BucketObject]


class Content(NamedTuple):
    """A small object, whole.

    Attributes:
      data: its bytes.
      generation: another number whenever the object was written.
      updated: when that was, in seconds since 1970 by the server's clock.
    """

    data: bytes
    generation: int
    updated: float


class ReplacedError(Exception):
    """The object is not of the generation that was expected: another writer came first, or the own answer was lost.

    Attributes:
      now: when that was found, in seconds since 1970 by the server's clock.
    """

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.now = now


class Bucket:
    """One bucket of Cloud Storage. Its methods may be called from several threads."""

    def __init__(
        self,
        name: str,
        flag: str,
        patience: float = PATIENCE_SECONDS,
        *,
        writes: bool = False,
        request_seconds: tuple[float, float] = _REQUEST_SECONDS,
    ) -> None:
        """Finds credentials; without any, only what everybody may read can be read.

        Args:
          name: the bucket's, without gs://.
          flag: the flag that named it, for the sentences.
          patience: see `PATIENCE_SECONDS`.
          writes: whether `write` and `delete` will be called: the credentials must allow for that.
          request_seconds: what connecting and each part of an answer may take.

        Raises:
          UserError: the credentials cannot be used.
        """
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.name = name
        self._flag = flag
        self._access = _WRITING if writes else _READING
        self._patience: dict[str, Any] = {
            "timeout": request_seconds,
            "retry": DEFAULT_RETRY.with_timeout(patience).with_delay(initial=min(1.0, patience / 10)),
        }
        with _saying_what_is_wrong(f"gs://{name}", self._no_bucket, self._access):
            self._client = _client(self._access)

    def pages(self, prefix: str) -> Iterator[Page]:
        """Lists what lies directly under a prefix, one page at a time.

        Args:
          prefix: empty, or what the names begin with, up to and with a slash.

        Raises:
          UserError: there is no such bucket, it may not be listed, or it does not answer.
        """
        with _saying_what_is_wrong(f"gs://{self.name}/{prefix}", self._no_bucket, self._access):
            iterator = self._client.list_blobs(
                self.name,
                prefix=prefix,
                delimiter="/",
                fields=_FIELDS,
                page_size=PAGE_OBJECTS,
                **self._patience,
            )
            for page in iterator.pages:
                objects = [
                    BucketObject(blob.name, int(blob.size), int(blob.generation or 0), _crc32c(blob.crc32c))
                    for blob in page
                ]
                yield Page(sorted(page.prefixes), objects)

    def download(self, name: str, generation: int, file: BinaryIO) -> None:
        """Writes an object's bytes to a file, as they are stored.

        Args:
          name: of the object.
          generation: which one of the object, so that no newer one is taken for it; 0 takes the newest.
          file: open for writing.

        Raises:
          UserError: it is not there any more, may not be read, or the server does not answer.
          OSError: the file cannot be written.
        """
        place = f"gs://{self.name}/{name}"
        missing = f"{place} is gone, or was replaced since it was listed: start again."
        with _saying_what_is_wrong(place, missing, self._access):
            blob = self._client.bucket(self.name).blob(name, generation=generation or None)
            blob.download_to_file(file, raw_download=True, checksum=None, **self._patience)

    def read(self, name: str) -> Content | None:
        """A small object as it is now; None if there is none.

        Raises:
          UserError: it may not be read, or the server does not answer.
        """
        from google.api_core.exceptions import NotFound

        bucket = self._client.bucket(self.name)
        with _saying_what_is_wrong(f"gs://{self.name}/{name}", self._no_bucket, self._access):
            while (blob := bucket.get_blob(name, **self._patience)) is not None:
                try:
                    of_this_generation = bucket.blob(name, generation=blob.generation)
                    data = of_this_generation.download_as_bytes(raw_download=True, **self._patience)
                except NotFound:  # It was written again in between.
                    continue
                return Content(data, int(blob.generation), blob.updated.timestamp())
        return None

    def write(self, name: str, data: bytes, *, instead_of: int) -> int:
        """Writes a small object if it still is of an expected generation.

        Args:
          name: of the object.
          data: what it will hold.
          instead_of: the generation that this replaces; 0: only if there is no such object.

        Returns:
          The generation of the object as it is now.

        Raises:
          ReplacedError: it is of another generation; nothing was written. Where the answer to a write was lost and the
            request repeated, that generation is the caller's own.
          UserError: there is no such bucket, it may not be written, or the server does not answer.
        """
        from google.api_core.exceptions import PreconditionFailed

        blob = self._client.bucket(self.name).blob(name)
        with _saying_what_is_wrong(f"gs://{self.name}/{name}", self._no_bucket, self._access):
            try:
                blob.upload_from_string(
                    data, content_type="application/json", if_generation_match=instead_of, **self._patience
                )
            except PreconditionFailed as error:
                raise ReplacedError(_date(error)) from None
        return int(blob.generation)

    def delete(self, name: str, *, generation: int) -> None:
        """Deletes an object if it still is of that generation.

        Raises:
          ReplacedError: it is of another generation, or there is none.
          UserError: it may not be deleted, or the server does not answer.
        """
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._client.bucket(self.name).blob(name)
        with _saying_what_is_wrong(f"gs://{self.name}/{name}", self._no_bucket, self._access):
            try:
                blob.delete(if_generation_match=generation, **self._patience)
            except (PreconditionFailed, NotFound) as error:
                raise ReplacedError(_date(error)) from None

    @property
    def _no_bucket(self) -> str:
        return f"There is no bucket gs://{self.name}: give another {self._flag}."


def split_address(address: str) -> tuple[str, str]:
    """The bucket and the name inside it of "gs://BUCKET/NAME"; the name may be empty."""
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name


@contextmanager
def _saying_what_is_wrong(place: str, missing: str, access: _Access) -> Iterator[None]:
    """Turns what the client raises into a sentence.

    Args:
      place: what is being read or written.
      missing: what to say if it is not there.
      access: what is asked for.

    Raises:
      UserError: in place of the client's errors.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.NotFound:
        raise UserError(missing) from None
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise UserError(
            f"No permission for {place} ({first_line(error)}): log in with an account that may {access.rights} the "
            "objects there, as with gcloud auth application-default login."
        ) from None
    except GoogleAuthError as error:
        raise UserError(
            f"The credentials for {place} cannot be used ({first_line(error)}): log in anew, as with gcloud auth "
            "application-default login."
        ) from None
    except (exceptions.GoogleAPIError, requests.RequestException) as error:
        cause = error.__cause__ if isinstance(error, exceptions.RetryError) and error.__cause__ else error
        raise UserError(f"{place} cannot be {access.done} ({first_line(cause)}): try again later.") from None


def _client(access: _Access) -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    try:
        credentials, project = google.auth.default(scopes=[access.scope])
    except DefaultCredentialsError:
        return storage.Client.create_anonymous_client()
    return storage.Client(project=project or "none", credentials=credentials)


def _date(error: Any) -> float:
    """When a server gave an answer that the client raises, in seconds since 1970 by its clock (RFC 9110 wants one)."""
    return email.utils.parsedate_to_datetime(error.response.headers["Date"]).timestamp()


def _crc32c(encoded: str | None) -> int:
    return int.from_bytes(base64.b64decode(encoded), "big") if encoded else -1
