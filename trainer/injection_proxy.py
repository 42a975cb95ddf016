"""What stands behind `--inject=gcs_503@P`: requests to Cloud Storage fail as they do when its servers are overloaded.

A proxy on loopback answers some of the connections to Cloud Storage with 503 and lets the others pass, encrypted as
they are. TensorFlow 2.21 opens a connection for each request, so that P is the probability for each of its requests,
and repeats them as it repeats others that fail with 503. Google's client keeps connections, so that P is that for each
connection; it repeats them too.

The proxy is a process of its own: where TensorFlow does not let other Python threads run while it waits for an answer,
a proxy among those threads would never give it.
"""

from __future__ import annotations

import base64
import os
import random
import selectors
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import cast
from urllib.parse import unquote, urlsplit

# Nothing of this package is imported: the proxy's process runs this file alone.

CLOUD_STORAGE_HOSTS = frozenset({"storage.googleapis.com", "www.googleapis.com"})
"""What TensorFlow 2.21 and google-cloud-storage 3 ask for objects (2026-11)."""

_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY")
_DIRECT_VARIABLES = ("no_proxy", "NO_PROXY")
_LOOPBACK = "localhost,127.0.0.1"

_CONNECT_SECONDS = 10.0

_END_SECONDS = 5.0
"""What the proxy's process may take to end."""

_IDLE_SECONDS = 600.0
"""After so long without a byte in either direction a connection is closed."""

_HEAD_BYTES = 2**16
"""The longest head of a request that is read."""


class Gcs503Proxy:
    """The proxy; between `start` and `close`, or inside `with`, this process's clients go through it.

    It takes the place of the proxy that `https_proxy` names, which it goes through itself. The variables are those of
    the whole process: start it before other threads read them. It ends with this process, however that ends.

    Attributes:
      refused, passed: connections to Cloud Storage that got a 503, and others; known after `close`.
    """

    def __init__(self, probability: float, seed: int) -> None:
        """Starts nothing yet.

        Args:
          probability: of a 503 for each connection to Cloud Storage, in [0, 1].
          seed: of the draws, which are made in the order in which connections come.

        Raises:
          ValueError: the probability is none.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"{probability} is not in [0, 1]")
        self._arguments = [str(probability), str(seed)]
        self._before: dict[str, str | None] = {}
        self._process: subprocess.Popen[str] | None = None
        self.refused = 0
        self.passed = 0

    def start(self) -> None:
        """Starts the proxy and sets the variables of this process.

        Raises:
          RuntimeError: the proxy does not start.
        """
        # Isolated, as the files beside this one must not be found in place of Python's own modules.
        command = [sys.executable, "-I", __file__, *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the proxy of gcs_503 has ended with exit code {self._process.wait(_END_SECONDS)}")
        self._before = {name: os.environ.get(name) for name in (*_PROXY_VARIABLES, *_DIRECT_VARIABLES)}
        os.environ.update(dict.fromkeys(_PROXY_VARIABLES, f"http://127.0.0.1:{port}"))
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        os.environ.update(dict.fromkeys(_DIRECT_VARIABLES, f"{direct},{_LOOPBACK}" if direct else _LOOPBACK))

    def close(self) -> None:
        """Undoes what `start` did; connections that are open end."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}
        if self._process:
            process, self._process = self._process, None
            try:
                counts, _ = process.communicate(timeout=_END_SECONDS)  # Closes its input, at which it ends.
                self.refused, self.passed = map(int, counts.split())
            finally:
                process.kill()

    def __enter__(self) -> Gcs503Proxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Draws:
    """Which connections get a 503, and how many did (`refused`) and did not (`passed`)."""

    def __init__(self, probability: float, seed: int) -> None:
        """See `Gcs503Proxy`."""
        self._probability = probability
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.refused = 0
        self.passed = 0

    def refuses(self, host: str) -> bool:
        """Whether the next connection, to this host, gets a 503; those to other hosts are neither drawn nor counted."""
        if host not in CLOUD_STORAGE_HOSTS:
            return False
        with self._lock:
            refused = self._random.random() < self._probability
            self.refused += refused
            self.passed += not refused
        return refused


def serve(probability: float, seed: int) -> None:
    """What the proxy's process does: prints its port, serves until its input ends, prints both counts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which still writes through the proxy.
    draws = Draws(probability, seed)
    upstream = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY") or ""
    with _Server(draws, upstream) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()
    print(draws.refused, draws.passed, flush=True)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, draws: Draws, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.draws = draws
        self.upstream = urlsplit(upstream if "//" in upstream else f"//{upstream}")


class _Connection(socketserver.BaseRequestHandler):
    """One client, who asks for a tunnel to a host: CONNECT HOST:PORT HTTP/1.1."""

    def handle(self) -> None:
        server = cast(_Server, self.server)
        client: socket.socket = self.request
        client.settimeout(_CONNECT_SECONDS)
        with suppress(OSError):  # Either side hung up: the other is told by the end of its connection.
            head = _head(client)
            method, _, rest = head.partition(b" ")
            host, _, port = rest.partition(b" ")[0].decode("latin-1").rpartition(":")
            if method != b"CONNECT" or not port.isdigit():
                _answer(client, "405 Method Not Allowed")
            elif server.draws.refuses(host):
                _answer(client, "503 Service Unavailable")
            else:
                self._tunnel(client, host, int(port))

    def _tunnel(self, client: socket.socket, host: str, port: int) -> None:
        upstream = cast(_Server, self.server).upstream
        address = (upstream.hostname, upstream.port or 80) if upstream.hostname else (host, port)
        try:
            remote = socket.create_connection(address, _CONNECT_SECONDS)
        except OSError:
            _answer(client, "502 Bad Gateway")
            return
        with remote:
            if upstream.hostname:  # Whose answer is passed on as it is.
                remote.sendall(_request(f"{host}:{port}", upstream.username, upstream.password))
            else:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(client, remote)


def _head(client: socket.socket) -> bytes:
    """A request up to the empty line; a client sends nothing more before it has an answer."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        part = client.recv(_HEAD_BYTES)
        if not part:
            break
        head += part
    return head


def _answer(client: socket.socket, status: str) -> None:
    client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


def _request(target: str, user: str | None, password: str | None) -> bytes:
    """Asks another proxy for a tunnel."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user is not None:
        credentials = f"{unquote(user)}:{unquote(password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _relay(client: socket.socket, remote: socket.socket) -> None:
    """Passes bytes on in both directions until both have ended."""
    with selectors.DefaultSelector() as selector:
        for source, target in ((client, remote), (remote, client)):
            source.settimeout(_IDLE_SECONDS)
            selector.register(source, selectors.EVENT_READ, target)
        while selector.get_map():
            ready = selector.select(_IDLE_SECONDS)
            if not ready:
                return
            for key, _ in ready:
                source, target = cast(socket.socket, key.fileobj), key.data
                content = source.recv(2**16)
                if content:
                    target.sendall(content)
                else:
                    selector.unregister(source)
                    target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]))
