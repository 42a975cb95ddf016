"""A small Cloud Storage on loopback for Google's client and for TensorFlow's own gs:// alike, which can go wrong.

One port speaks plain HTTP (for Google's client, through STORAGE_EMULATOR_HOST) and CONNECT (for TensorFlow, as its
https_proxy: the tunnel ends here, with a certificate of a throw-away authority).
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast

from fakes.gcs_api import NO_BUCKET, Answer, Api, RefusalError, Request
from fakes.gcs_objects import GeneratedObjects, StoredObjects

__all__ = [
    "TLS_HOSTS",
    "Answer",
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

Effect = Literal["dropped", "lost answer", "truncated", "cut upload", "damaged", "slow"]


@dataclass
class Fault:
    """What happens to requests, "GET /path?query", that a regular expression is found in.

    Attributes:
      match: the expression.
      effect: a status that they are answered with instead of being carried out (404: the bucket is gone; 410: the
        resumable upload is gone, and forgotten); or
          "dropped"      the connection ends without an answer, and nothing was done
          "lost answer"  the connection ends without an answer, but it was done
          "truncated"    the answer ends in the middle
          "cut upload"   the connection ends in the middle of the request's body; an upload keeps what has come
          "damaged"      the last byte of an object's content is changed
          "slow"         the answer comes after `seconds`
      times: how many of them.
      first: the number of the first request that it may happen to; all requests count, from 1.
      seconds: see "slow".
    """

    match: str
    effect: int | Effect
    times: int = 1_000_000
    first: int = 1
    seconds: float = 0.0


class FakeStorage(ThreadingHTTPServer):
    """The server; `serving` starts and ends it.

    Attributes:
      api: what is stored.
      faults: what goes wrong.
      requests: those that came, "GET /path?query".
      closing: is set when the server ends, so that nobody waits for a slow answer any more.
    """

    daemon_threads = True

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = Api()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def buckets(self) -> dict[str, StoredObjects | GeneratedObjects]:
        """Their objects by the bucket's name."""
        return self.api.buckets

    def bucket(self, name: str) -> StoredObjects:
        """The objects of a bucket, which is made if need be."""
        return cast(StoredObjects, self.buckets.setdefault(name, StoredObjects()))

    def fault(self, request: str) -> Fault | None:
        """Notes a request; gives what is to go wrong with it."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and len(self.requests) >= fault.first and re.search(fault.match, request):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request: Request) -> Answer:
        """Carries a request out, one at a time."""
        with self.lock:
            return self.api.answer(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[FakeStorage]:
    """A server that runs inside, and is gone after."""
    server = FakeStorage(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def tensorflow_environment(server: FakeStorage, authority: Path) -> dict[str, str]:
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = -1
    server: FakeStorage

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        proceeds = super().handle_expect_100()
        self.wfile.flush()  # curl waits a second for this line.
        return proceeds

    def do_CONNECT(self) -> None:  # noqa: N802 (the name that the server looks for)
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        assert self.server.tls is not None
        with self.server.tls.wrap_socket(self.connection, server_side=True) as connection:
            _Handler(connection, self.client_address, self.server)

    def _respond(self) -> None:
        fault = self.server.fault(f"{self.command} {self.path}")
        effect = fault.effect if fault else None
        request = self._request(cut=effect == "cut upload")
        if effect in ("dropped", "cut upload"):
            if effect == "cut upload" and "Content-Range" in self.headers:
                self.server.answer(request)
            self.close_connection = True
            return
        if fault and effect == "slow":
            self.server.closing.wait(fault.seconds)
        if isinstance(effect, int):
            self._send(self._refused(effect, request))
            return
        answer = self.server.answer(request)
        if effect == "lost answer":
            self.close_connection = True
        else:
            damaged = effect == "damaged" and answer.is_content
            body = answer.body[:-1] + bytes([answer.body[-1] ^ 1]) if damaged else answer.body
            self._send(Answer(answer.status, body, answer.headers), truncated=effect == "truncated")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond  # noqa: N815 (the names that the server looks for)

    def _request(self, *, cut: bool) -> Request:
        """Reads the request, or half of it."""
        length = int(self.headers.get("Content-Length") or 0)
        # TensorFlow gives a length and says "chunked" as well: then it is chunked.
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks(length // 2 if cut else None))
        else:
            body = self.rfile.read(length // 2 if cut else length)
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        return Request(self.command, f"{scheme}://{self.headers['Host']}", self.path, self.headers, body)

    def _chunks(self, most: int | None) -> Iterator[bytes]:
        came = 0
        while most is None or came < most:
            size = int(self.rfile.readline().split(b";")[0], 16)
            chunk = self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return
            came += size
            yield chunk if most is None else chunk[: len(chunk) - max(0, came - most)]

    def _refused(self, status: int, request: Request) -> Answer:
        if status == 410:
            self.server.api.uploads.pop(request.query.get("upload_id", ""), None)
        messages = {
            403: f"you@example.com does not have {_permission(request)} access to the Google Cloud Storage object.",
            404: NO_BUCKET,
        }
        return RefusalError(status, messages.get(status, "injected")).answer()

    def _send(self, answer: Answer, *, truncated: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" or answer.status in (204, 304) else answer.body
        self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection = self.close_connection or truncated


def _permission(request: Request) -> str:
    """What a request needs."""
    if request.method == "DELETE":
        return "storage.objects.delete"
    if request.method in ("POST", "PUT"):
        return "storage.objects.create"
    return "storage.objects.list" if request.path.endswith("/o") else "storage.objects.get"
