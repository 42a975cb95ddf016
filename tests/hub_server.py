"""A server of Hub modules for tests."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
from pathlib import Path


def archive_of(folder: Path, *, compressed: bool = True) -> bytes:
    """A module's archive, as a hub serves it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


class HubServer:
    """A hub on loopback that serves archives by path, counts what was asked, and refuses the rest.

    Attributes:
      archives: what is served, by path.
      refusals: the status in place of 200, by path.
      requests: paths that were asked for.
      silent_after: how many bytes of an answer are sent before nothing more comes; None: all.
    """

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.refusals: dict[str, int] = {}
        self.requests: list[str] = []
        self.silent_after: int | None = None
        self._closing = threading.Event()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append(self.path)
                path = self.path.split("?")[0]
                body = hub.archives.get(path, b"")
                self.send_response(hub.refusals.get(path, 200 if body else 404))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: hub.silent_after])
                if hub.silent_after is not None:
                    hub._closing.wait(10)

            def log_message(self, format: str, *args: object) -> None:
                """Keeps the test's output clean."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
