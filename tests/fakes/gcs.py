"""A small Cloud Storage on loopback: listings and reads, for Google's client and for TensorFlow's own gs:// alike.

One port speaks plain HTTP (for Google's client, through STORAGE_EMULATOR_HOST) and CONNECT (for TensorFlow, as its
https_proxy: the tunnel ends here, with a certificate of a throw-away authority).
"""

from __future__ import annotations

import base64
import bisect
import json
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

TLS_HOSTS = ["www.googleapis.com", "storage.googleapis.com", "oauth2.googleapis.com"]
"""The hosts that TensorFlow asks for through the proxy: the server's certificate must be theirs."""


@dataclass
class StoredObjects:
    """Objects with content."""

    contents: dict[str, bytes] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, content: bytes) -> None:
        self.contents[name] = content
        self.generations[name] = 1 + max(self.generations.values(), default=1_700_000_000_000_000)

    def names(self) -> Sequence[str]:
        return sorted(self.contents)

    def content(self, name: str, generation: str | None) -> bytes | None:
        """An object's bytes; None if there is no such object or generation."""
        if name not in self.contents or (generation and int(generation) != self.generations[name]):
            return None
        return self.contents[name]

    def item(self, name: str) -> dict[str, str]:
        content = self.contents[name]
        return {
            "name": name,
            "size": str(len(content)),
            "generation": str(self.generations[name]),
            "crc32c": _encoded_crc32c(content),
            "updated": "2026-11-01T00:00:00.000Z",
        }


class GeneratedObjects:
    """FOLDER/class_0001/photo_0000001.jpg and so on, all of one content, named when they are listed."""

    def __init__(self, folder: str, classes: int, per_class: int, shared_content: bytes = b"photo") -> None:
        self.folder, self.classes, self.per_class = folder, classes, per_class
        self._content = shared_content
        self._crc32c = _encoded_crc32c(shared_content)

    def names(self) -> Sequence[str]:
        return _GeneratedNames(self)

    def item(self, name: str) -> dict[str, str]:
        return {
            "name": name,
            "size": str(len(self._content)),
            "generation": "1700000000000000",
            "crc32c": self._crc32c,
            "updated": "2026-11-01T00:00:00.000Z",
        }

    def content(self, name: str, generation: str | None) -> bytes | None:
        """An object's bytes; None if there is no such object."""
        names = self.names()
        place = bisect.bisect_left(names, name)
        return self._content if place < len(names) and names[place] == name else None


class _GeneratedNames(Sequence[str]):
    def __init__(self, objects: GeneratedObjects) -> None:
        self._objects = objects

    def __len__(self) -> int:
        return self._objects.classes * self._objects.per_class

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number, place = divmod(index, self._objects.per_class)
        return f"{self._objects.folder}/class_{number:04d}/photo_{place:07d}.jpg"


@dataclass
class Fault:
    """What happens to requests, "GET /path?query", that a regular expression is found in.

    Attributes:
      match: the expression.
      status: what they are answered with; 0: content, with its last byte changed.
      times: how many of them.
    """

    match: str
    status: int
    times: int = 1_000_000


class FakeStorage(ThreadingHTTPServer):
    """The server; `serving` starts and ends it.

    Attributes:
      buckets: their objects by the bucket's name.
      faults: what goes wrong.
      requests: those that came, "GET /path?query".
    """

    daemon_threads = True

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, StoredObjects | GeneratedObjects] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bucket(self, name: str) -> StoredObjects:
        """The objects of a bucket, which is made if need be."""
        return cast(StoredObjects, self.buckets.setdefault(name, StoredObjects()))

    def fault(self, request: str) -> Fault | None:
        """Notes a request; gives what is to go wrong with it."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    fault.times -= 1
                    return fault
        return None

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

    def do_CONNECT(self) -> None:  # noqa: N802 (the name that the server looks for)
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        assert self.server.tls is not None
        _Handler(self.server.tls.wrap_socket(self.connection, server_side=True), self.client_address, self.server)

    def do_GET(self) -> None:  # noqa: N802
        fault = self.server.fault(f"GET {self.path}")
        if fault and fault.status:
            self._fail(fault.status, "injected")
            return
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        listing = re.fullmatch(r"/storage/v1/b/([^/]+)/o", url.path)
        about = re.fullmatch(r"/storage/v1/b/([^/]+)(?:/o/([^/]+))?", url.path)
        content = re.fullmatch(r"/(?:download/storage/v1/b/)?([^/]+)/(?:o/)?(.+)", url.path)
        bucket_name = unquote((listing or about or content or ["", ""])[1])
        if bucket_name not in self.server.buckets:
            self._fail(404, "The specified bucket does not exist.")
            return
        objects = self.server.buckets[bucket_name]
        if listing:
            self._answer(json.dumps(_page(objects, query)).encode())
        elif about and query.get("alt") != "media":
            self._describe(objects, about[2])
        elif content or about:
            name = unquote(about[2] if about else content[2])  # type: ignore[index]
            self._send_content(objects.content(name, query.get("generation")), name, damaged=fault is not None)

    def _describe(self, objects: StoredObjects | GeneratedObjects, name: str | None) -> None:
        if name is None:
            self._answer(b"{}")
        elif objects.content(unquote(name), None) is not None:
            self._answer(json.dumps(objects.item(unquote(name))).encode())
        else:
            self._fail(404, f"No such object: {unquote(name)}")

    def _send_content(self, content: bytes | None, name: str, *, damaged: bool) -> None:
        if content is None:
            self._fail(404, f"No such object: {name}")
            return
        if damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            self._answer(content)
        elif int(span[1]) >= len(content):
            self._answer(b"", 416)
        else:
            part = content[int(span[1]) : int(span[2] or len(content)) + 1]
            self._answer(part, 206, f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(content)}")

    def _answer(self, content: bytes, status: int = 200, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, status: int, message: str) -> None:
        self._answer(json.dumps({"error": {"code": status, "message": message}}).encode(), status)


def _encoded_crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def _page(objects: StoredObjects | GeneratedObjects, query: dict[str, str]) -> dict[str, Any]:
    """A page of a listing: what begins with "prefix", up to the next "delimiter" after it."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = min(int(query.get("maxResults") or 1000), 1000)
    names = objects.names()
    place = bisect.bisect_left(names, max(prefix, query.get("pageToken", "")))
    items: list[dict[str, str]] = []
    folders: list[str] = []
    while place < len(names) and names[place].startswith(prefix) and len(items) + len(folders) < limit:
        name = names[place]
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            folders.append(name[: cut + len(delimiter)])
            place = bisect.bisect_left(names, folders[-1] + "\U0010ffff")
        else:
            items.append(objects.item(name))
            place += 1
    page: dict[str, Any] = {"kind": "storage#objects", "items": items, "prefixes": folders}
    if place < len(names) and names[place].startswith(prefix):
        page["nextPageToken"] = names[place]
    return page
