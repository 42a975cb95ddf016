"""The cloud's notice, from a metadata server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainer.preemption_notice import metadata_server, watch_for_notice


class Metadata(ThreadingHTTPServer):
    """Says FALSE or NONE until `preempted` is set; an answer that is waited for comes with the change."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.preempted = threading.Event()
        self.requests: list[str] = []
        self.failures = 0


class _Handler(BaseHTTPRequestHandler):
    server: Metadata

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802 (the name that the server looks for)
        self.server.requests.append(self.path)
        if self.headers.get("Metadata-Flavor") != "Google":
            self.send_error(403)
            return
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        if "wait_for_change=true" in self.path:
            self.server.preempted.wait(10)
        is_maintenance = "maintenance-event" in self.path
        answer = ("NONE" if is_maintenance else "TRUE" if self.server.preempted.is_set() else "FALSE").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def server() -> Iterator[Metadata]:
    metadata = Metadata()
    thread = threading.Thread(target=metadata.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield metadata
    metadata.preempted.set()
    metadata.shutdown()
    metadata.server_close()
    thread.join(timeout=5)


def test_a_notice_becomes_a_request_to_stop(server: Metadata) -> None:
    server.failures = 3
    told: list[str] = []
    environment = {"GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}", "http_proxy": "http://127.0.0.1:9"}
    watch_for_notice(told.append, environment, sleep=lambda seconds: time.sleep(0.01))
    deadline = time.monotonic() + 10
    while not any("preempted?wait" in path for path in server.requests):
        assert time.monotonic() < deadline, server.requests
        time.sleep(0.01)
    assert not told
    server.preempted.set()
    while not told:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert told == ["the cloud takes this machine back (preempted)"]


def test_only_machines_of_google_are_asked(tmp_path: Path) -> None:
    google, other = tmp_path / "google", tmp_path / "other"
    google.write_text("Google Compute Engine\n", encoding="utf-8")
    other.write_text("Standard PC\n", encoding="utf-8")
    assert metadata_server({}, google) == "metadata.google.internal"
    assert metadata_server({"NO_GCE_CHECK": "true"}, google) is None
    assert metadata_server({}, other) is None
    assert metadata_server({}, tmp_path / "missing") is None
    assert metadata_server({"GCE_METADATA_HOST": "10.0.0.1:80"}, other) == "10.0.0.1:80"


def test_without_a_server_no_thread_is_started() -> None:
    before = threading.active_count()
    watch_for_notice(pytest.fail, {"NO_GCE_CHECK": "true"})
    assert threading.active_count() == before
