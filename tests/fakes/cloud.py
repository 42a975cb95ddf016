"""All of the fake cloud behind one port: `with serving() as cloud` and `cloud.environment()` lead clients to it.

The APIs are told apart by the first part of the path, which the endpoint overrides of `environment` give; what begins
otherwise is Cloud Storage's, which TensorFlow reaches through this port as its proxy too (`fakes.gcs`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Protocol

from fakes import gcs_api
from fakes.artifact_registry_api import ArtifactRegistryApi
from fakes.cloud_build_api import CloudBuildApi
from fakes.credentials import Tokens, write_key
from fakes.gcs_objects import StoredObjects
from fakes.logging_api import LoggingApi
from fakes.resource_manager_api import ResourceManagerApi
from fakes.rest import Clock, GoogleError
from fakes.server import Answer, FakeServer, Fault, Request, running
from fakes.service_usage_api import ServiceUsageApi
from fakes.tpu_api import TpuApi
from fakes.vertex_api import VertexApi

__all__ = ["Answer", "CloudRequest", "FakeCloud", "Fault", "GoogleError", "serving"]


NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nobody listens: a proxy for all that is not the fake."""


class Api(Protocol):
    """A service behind the port."""

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is the API's own, from the version on."""


@dataclass(frozen=True)
class CloudRequest:
    """A request that came.

    Attributes:
      method: of HTTP.
      api: as the endpoint overrides name it; "storage" and "token" too.
      path: from the version on, quoted as it came.
      query: behind the path.
      body: as JSON; as bytes where it is none; None where nothing came.
      headers: by name, whatever the case.
    """

    method: str
    api: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Message


class FakeCloud(FakeServer):
    """The server; `serving` starts and ends it.

    Attributes:
      requests: those that came.
      tokens: of the service account whose key `credentials` writes.
      storage: the buckets.
      vertex: the custom jobs.
      tpu: the queued resources.
      builds: of Cloud Build.
      logs: the log entries of everything.
      registry: the images.
      services: the APIs that are enabled, and quotas.
      projects: and what the caller may do there.
    """

    def __init__(self, certificate: tuple[Path, Path] | None, clock: Clock) -> None:
        super().__init__(certificate)
        self.requests: list[CloudRequest] = []
        self.tokens = Tokens()
        self.storage = gcs_api.Api()
        self.vertex = VertexApi(self.lock, clock)
        self.tpu = TpuApi(self.lock, clock)
        self.builds = CloudBuildApi(self.lock, clock)
        self.logs = LoggingApi(self.lock, clock)
        self.registry = ArtifactRegistryApi()
        self.services = ServiceUsageApi()
        self.projects = ResourceManagerApi()
        self._apis: dict[str, Api] = {
            "aiplatform": self.vertex,
            "tpu": self.tpu,
            "cloudbuild": self.builds,
            "logging": self.logs,
            "artifactregistry": self.registry,
            "serviceusage": self.services,
            "cloudresourcemanager": self.projects,
        }

    def environment(self) -> dict[str, str]:
        """The variables with which gcloud, `launch` and Google's storage client ask here instead of at Google's."""
        prefix = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
        overrides = {f"{prefix}{name.upper()}": f"{self.address}/{name}/" for name in self._apis}
        return {**overrides, f"{prefix}STORAGE": f"{self.address}/", "STORAGE_EMULATOR_HOST": self.address}

    def credentials(self, folder: Path) -> dict[str, str]:
        """Writes a service account's key into a folder; gives the variables that lead Google's library to it.

        The library asks iamcredentials.googleapis.com in the background too (google-auth 2.62, 2026-11): a proxy which
        leads nowhere, or here for TensorFlow's sake, keeps that on this machine.
        """
        proxy = self.address if self.tls else NOWHERE
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(write_key(folder, self.address)),
            "NO_GCE_CHECK": "true",
            "http_proxy": proxy,
            "https_proxy": proxy,
            "no_proxy": "127.0.0.1,localhost",
        }

    def bucket(self, name: str) -> StoredObjects:
        """The objects of a bucket, which is made if need be."""
        return self.storage.bucket(name)

    def sent(self, api: str, method: str = "") -> list[CloudRequest]:
        """The requests that came for an API, by a method of HTTP or by any."""
        return [request for request in self.requests if request.api == api and method in ("", request.method)]

    def note(self, request: Request) -> None:
        api, path = self._place(request)
        with self.lock:
            self.requests.append(
                CloudRequest(request.method, api, path, request.query, _parsed(request.body), request.headers)
            )

    def answer(self, request: Request) -> Answer:
        api, path = self._place(request)
        with self.lock:
            if api == "token":
                return self.tokens.answer(request)
            try:
                self.tokens.check(request)
            except GoogleError as error:
                return error.answer()
            return self.storage.answer(request) if api == "storage" else self._apis[api].answer(request, path)

    def refusal(self, status: int, request: Request) -> Answer:
        with self.lock:
            if self._place(request)[0] == "storage":
                return self.storage.refusal(status, request)
        return GoogleError(status, "injected").answer()

    def _place(self, request: Request) -> tuple[str, str]:
        """The API that a request is for, and the path there."""
        if request.path == "/token":
            return "token", request.path
        first, slash, rest = request.path.removeprefix("/").partition("/")
        through_proxy = request.origin.startswith("https:")
        return ("storage", request.path) if through_proxy or first not in self._apis else (first, slash + rest)


def _parsed(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body


def now() -> datetime.datetime:
    """The moment, by the clock of this machine."""
    return datetime.datetime.now(datetime.timezone.utc)


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None, clock: Clock = now) -> Iterator[FakeCloud]:
    """A fake cloud that runs inside, and is gone after.

    Args:
      certificate: files of a certificate and its key, for TensorFlow's gs:// (`fakes.gcs.TLS_HOSTS`).
      clock: gives the moments that the services note.
    """
    with running(FakeCloud(certificate, clock)) as cloud:
        yield cloud
