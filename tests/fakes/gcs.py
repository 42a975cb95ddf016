"""A small Cloud Storage on loopback for Google's client and for TensorFlow's own gs:// alike, which can go wrong.

One port speaks plain HTTP (for Google's client, through STORAGE_EMULATOR_HOST) and CONNECT (for TensorFlow, as its
https_proxy).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.gcs_api import Api
from fakes.gcs_objects import GeneratedObjects, StoredObjects
from fakes.server import Answer, Effect, FakeServer, Fault, Request, running

__all__ = [
    "TLS_HOSTS",
    "Answer",
    "Effect",
    "FakeStorage",
    "Fault",
    "GeneratedObjects",
    "Request",
    "StoredObjects",
    "serving",
    "tensorflow_environment",
]

TLS_HOSTS = ["www.googleapis.com", "storage.googleapis.com", "oauth2.googleapis.com"]
"""The hosts that TensorFlow asks for through the proxy: the server's certificate must be theirs."""


class FakeStorage(FakeServer):
    """The server; `serving` starts and ends it.

    Attributes:
      api: what is stored.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(certificate)
        self.api = Api()

    @property
    def requests(self) -> list[str]:
        """Those that came, "GET /path?query"."""
        return self.lines

    @property
    def buckets(self) -> dict[str, StoredObjects | GeneratedObjects]:
        """Their objects by the bucket's name."""
        return self.api.buckets

    def bucket(self, name: str) -> StoredObjects:
        """The objects of a bucket, which is made if need be."""
        return self.api.bucket(name)

    def answer(self, request: Request) -> Answer:
        with self.lock:
            return self.api.answer(request)

    def refusal(self, status: int, request: Request) -> Answer:
        with self.lock:
            return self.api.refusal(status, request)


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[FakeStorage]:
    """A server that runs inside, and is gone after."""
    with running(FakeStorage(certificate)) as server:
        yield server


def tensorflow_environment(server: FakeServer, authority: Path) -> dict[str, str]:
    """The variables with which TensorFlow's gs:// and Google's client reach the fake, and nothing else."""
    proxy, direct = server.address, "localhost,127.0.0.1"
    return {
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "no_proxy": direct,
        "NO_PROXY": direct,
        "CURL_CA_BUNDLE": str(authority),
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "NO_GCE_CHECK": "true",
        "GCS_RETRY_CONFIG_MAX_RETRIES": "2",
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "20000",
        "GCS_RETRY_CONFIG_MAX_DELAY_TIME_US": "100000",
        "STORAGE_EMULATOR_HOST": server.address,
    }
