"""One HTTP server on loopback for every fake service, which can go wrong.

It speaks plain HTTP, and CONNECT for clients that insist on TLS and reach it as their proxy: the tunnel ends here, with
a certificate of a throw-away authority (`fakes.certificates`). What is answered is the business of its subclasses.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """A request.

    Attributes:
      method: such as "GET".
      origin: scheme and host that it was sent to.
      target: path and query, as they were sent.
      headers: by name, whatever the case.
      body: what came with it.
    """

    method: str
    origin: str
    target: str
    headers: Message
    body: bytes = b""

    @property
    def path(self) -> str:
        """Still quoted."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each parameter."""
        return {name: values[-1] for name, values in self.queries.items()}

    @property
    def queries(self) -> dict[str, list[str]]:
        """All values of each parameter."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
      status: of HTTP.
      body: JSON or an object's content.
      headers: beside length and type.
      is_content: whether `body` is an object's content.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_content: bool = False


Effect = Literal["dropped", "lost answer", "truncated", "cut upload", "damaged", "slow", "rubbish", "endless pages"]


@dataclass
class Fault:
    """What happens to requests, "GET /path?query", that a regular expression is found in.

    Attributes:
      match: the expression.
      effect: a status that they are answered with instead of being carried out (of storage, 404: the bucket is gone;
        410: the resumable upload is gone, and forgotten); the whole answer that they get instead; or
          "dropped"        the connection ends without an answer, and nothing was done
          "lost answer"    the connection ends without an answer, but it was done
          "truncated"      the answer ends in the middle
          "cut upload"     the connection ends in the middle of the request's body; an upload keeps what has come
          "damaged"        the last byte of an object's content is changed
          "slow"           the answer comes after `seconds`
          "rubbish"        it was done, and the answer is a page for people instead of JSON
          "endless pages"  the answer names the same next page whatever page it is
      times: how many of them.
      first: the number of the first request that it may happen to; all requests count, from 1.
      seconds: see "slow".
    """

    match: str
    effect: int | Answer | Effect
    times: int = 1_000_000
    first: int = 1
    seconds: float = 0.0


class FakeServer(ThreadingHTTPServer):
    """The server; `running` starts and ends it.

    Attributes:
      faults: what goes wrong.
      lines: the requests that came, "GET /path?query".
      lock: is held while a request is carried out; who changes by hand what is answered takes it too.
      closing: is set when the server ends, so that nobody waits for a slow answer any more.
    """

    daemon_threads = True
    request_queue_size = 128  # By default 5, and the sixth who comes at once may be turned away.

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        """Listens on a free port.

        Args:
          certificate: files of a certificate and its key, for clients that insist on TLS.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[Fault] = []
        self.lines: list[str] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, request: Request) -> Answer:
        """Carries a request out, one at a time."""
        raise NotImplementedError

    def refusal(self, status: int, request: Request) -> Answer:
        """What a request is answered that a fault of that status happens to."""
        raise NotImplementedError

    def note(self, request: Request) -> None:
        """Is told each request that came whole, before anything is done or goes wrong."""

    def fault(self, line: str) -> Fault | None:
        """Notes a request's line; gives what is to go wrong with it."""
        with self.lock:
            self.lines.append(line)
            for fault in self.faults:
                if fault.times and len(self.lines) >= fault.first and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


Server = TypeVar("Server", bound=FakeServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server runs inside, and is gone after."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = -1
    server: FakeServer

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
        self.server.note(request)
        if effect in ("dropped", "cut upload"):
            if effect == "cut upload" and "Content-Range" in self.headers:
                self.server.answer(request)
            self.close_connection = True
            return
        if fault and effect == "slow":
            self.server.closing.wait(fault.seconds)
        if isinstance(effect, Answer):
            self._send(effect)
            return
        if isinstance(effect, int):
            self._send(self.server.refusal(effect, request))
            return
        answer = self.server.answer(request)
        if effect == "lost answer":
            self.close_connection = True
        else:
            self._send(_spoilt(answer, effect), truncated=effect == "truncated")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815 (the names that it looks for)

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

    def _send(self, answer: Answer, *, truncated: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" or answer.status in (204, 304) else answer.body
        self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection = self.close_connection or truncated


def _spoilt(answer: Answer, effect: Any) -> Answer:
    """An answer after what a fault does to its body."""
    body = answer.body
    if effect == "damaged" and answer.is_content:
        body = body[:-1] + bytes([body[-1] ^ 1])
    elif effect == "rubbish":
        body = b"<!DOCTYPE html><title>Welcome</title>"
    elif effect == "endless pages":
        found = json.loads(body) if answer.status == 200 else {}  # That of the page that this token names.
        return Answer(200, json.dumps({**found, "nextPageToken": "the-same-again"}).encode())
    return Answer(answer.status, body, answer.headers)
