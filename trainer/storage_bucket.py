"""What TensorFlow's own gs:// file system cannot do: list a bucket page by page with sizes, and fetch whole objects.

Google's client is imported where a bucket is opened.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from trainer.errors import UserError

PAGE_OBJECTS = 1000
"""Objects in a page of a listing: the most that Cloud Storage gives (2026)."""

PATIENCE_SECONDS = 60.0
"""How long a request is repeated that fails for reasons that pass, such as an overloaded server."""

_FIELDS = "items(name,size,generation,crc32c),prefixes,nextPageToken"

_REQUEST_SECONDS = (10.0, 60.0)
"""What connecting and each part of an answer may take."""


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


class Bucket:
    """One bucket of Cloud Storage. Its methods may be called from several threads."""

    def __init__(self, name: str, flag: str, patience: float = PATIENCE_SECONDS) -> None:
        """Finds credentials; without any, only what everybody may read can be read.

        Args:
          name: the bucket's, without gs://.
          flag: the flag that named it, for the sentences.
          patience: see `PATIENCE_SECONDS`.

        Raises:
          UserError: the credentials cannot be used.
        """
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.name = name
        self._flag = flag
        self._retry = DEFAULT_RETRY.with_timeout(patience).with_delay(initial=min(1.0, patience / 10))
        with _saying_what_is_wrong(f"gs://{name}", self._no_bucket):
            self._client = _client()

    def pages(self, prefix: str) -> Iterator[Page]:
        """Lists what lies directly under a prefix, one page at a time.

        Args:
          prefix: empty, or what the names begin with, up to and with a slash.

        Raises:
          UserError: there is no such bucket, it may not be listed, or it does not answer.
        """
        with _saying_what_is_wrong(f"gs://{self.name}/{prefix}", self._no_bucket):
            iterator = self._client.list_blobs(
                self.name,
                prefix=prefix,
                delimiter="/",
                fields=_FIELDS,
                page_size=PAGE_OBJECTS,
                timeout=_REQUEST_SECONDS,
                retry=self._retry,
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
        with _saying_what_is_wrong(place, f"{place} is gone, or was replaced since it was listed: start again."):
            blob = self._client.bucket(self.name).blob(name, generation=generation or None)
            blob.download_to_file(file, raw_download=True, checksum=None, timeout=_REQUEST_SECONDS, retry=self._retry)

    @property
    def _no_bucket(self) -> str:
        return f"There is no bucket gs://{self.name}: give another {self._flag}."


def split_address(address: str) -> tuple[str, str]:
    """The bucket and the name inside it of "gs://BUCKET/NAME"; the name may be empty."""
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name


@contextmanager
def _saying_what_is_wrong(place: str, missing: str) -> Iterator[None]:
    """Turns what the client raises into a sentence.

    Args:
      place: what is being read.
      missing: what to say if it is not there.

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
            f"No permission for {place} ({_first_line(error)}): log in with an account that may list and read the "
            "objects there, as with gcloud auth application-default login."
        ) from None
    except GoogleAuthError as error:
        raise UserError(
            f"The credentials for {place} cannot be used ({_first_line(error)}): log in anew, as with gcloud auth "
            "application-default login."
        ) from None
    except (exceptions.GoogleAPIError, requests.RequestException) as error:
        cause = error.__cause__ if isinstance(error, exceptions.RetryError) and error.__cause__ else error
        raise UserError(f"{place} cannot be read ({_first_line(cause)}): try again later.") from None


def _client() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_only"])
    except DefaultCredentialsError:
        return storage.Client.create_anonymous_client()
    return storage.Client(project=project or "none", credentials=credentials)


def _crc32c(encoded: str | None) -> int:
    return int.from_bytes(base64.b64decode(encoded), "big") if encoded else -1


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
