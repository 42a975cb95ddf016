"""The proxy of --inject=gcs_503@P; a whole run through it is in test_storage_faults.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, FakeStorage, serving
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from processes import assert_gone

from trainer.injection_proxy import Draws, Gcs503Proxy

VARIABLES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "STORAGE_EMULATOR_HOST")


@pytest.fixture(autouse=True)
def _no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, TLS_HOSTS)[0]


@pytest.fixture
def server(tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStorage]:
    with serving((tmp_path / "server.pem", tmp_path / "server.key")) as server:
        server.bucket("flowers").put("a", b"content")
        monkeypatch.setenv("https_proxy", server.address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        yield server


def client() -> Any:
    """Google's, which opens a connection for each request as TensorFlow does."""
    google = storage.Client(project="none", credentials=AnonymousCredentials())
    google._http.headers["Connection"] = "close"
    return google


def asked(address: str, request: bytes) -> bytes:
    """What the proxy answers first."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        return connection.recv(1000)


def test_googles_client_goes_through_it_and_repeats(server: FakeStorage) -> None:
    retry = DEFAULT_RETRY.with_delay(initial=0.001, maximum=0.01)
    with Gcs503Proxy(0.5, seed=3) as proxy:
        bucket = client().bucket("flowers")
        for _ in range(20):
            assert bucket.blob("a").download_as_bytes(retry=retry) == b"content"
    assert sum("alt=media" in request for request in server.requests) == 20
    assert proxy.passed >= 20 and 5 <= proxy.refused <= 60


def test_the_draws_are_those_of_the_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        draws = Draws(0.2, seed)
        return [draws.refuses("storage.googleapis.com") for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 150 < sum(drawn(1)) < 250


def test_other_hosts_are_left_alone(server: FakeStorage) -> None:
    with Gcs503Proxy(1.0, seed=0) as proxy:
        for host, status in (("oauth2.googleapis.com", b"200"), ("storage.googleapis.com", b"503")):
            answer = asked(os.environ["https_proxy"], f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 " + status)
    assert (proxy.refused, proxy.passed) == (1, 0)


def test_without_another_proxy_it_connects_by_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        with Gcs503Proxy(1.0, seed=0):
            host, _, port = os.environ["https_proxy"].removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(f"CONNECT 127.0.0.1:{listener.getsockname()[1]} HTTP/1.1\r\n\r\n".encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
                connection.sendall(b"hello")
                assert connection.recv(100) == b"HELLO" and connection.recv(100) == b""
        thread.join(timeout=5)
        assert not thread.is_alive()


@pytest.mark.parametrize("request_", [b"GET http://x/ HTTP/1.1\r\n\r\n", b"CONNECT nowhere HTTP/1.1\r\n\r\n"])
def test_it_tunnels_and_nothing_else(request_: bytes) -> None:
    with Gcs503Proxy(0.0, seed=0):
        assert asked(os.environ["https_proxy"], request_).startswith(b"HTTP/1.1 405")


def test_a_host_that_is_not_there_is_a_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Gcs503Proxy(0.0, seed=0):
        request = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode()
        assert asked(os.environ["https_proxy"], request).startswith(b"HTTP/1.1 502")


def test_the_variables_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy:8080")
    monkeypatch.setenv("no_proxy", "internal")
    before = {name: os.environ.get(name) for name in VARIABLES}
    with Gcs503Proxy(0.0, seed=0):
        assert os.environ["https_proxy"] == os.environ["HTTPS_PROXY"] != before["https_proxy"]
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "internal,localhost,127.0.0.1"
        address = os.environ["https_proxy"].removeprefix("http://").partition(":")
    assert {name: os.environ.get(name) for name in VARIABLES} == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address[0], int(address[2])), timeout=5)


def test_another_proxy_gets_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        came: list[bytes] = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                came.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://me:p%40ss@127.0.0.1:{listener.getsockname()[1]}")
        with Gcs503Proxy(0.0, seed=0):
            got = asked(os.environ["https_proxy"], b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n")
        thread.join(timeout=5)
    assert got.startswith(b"HTTP/1.1 407") and b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in came[0]


def test_it_ends_with_its_process() -> None:
    program = "import os; from trainer.injection_proxy import Gcs503Proxy as P; p = P(0, 0); p.start(); "
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}print(p._process.pid, flush=True); os.kill(os.getpid(), 9)"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[1],
    )
    assert_gone([int(ended.stdout)])


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_is_between_0_and_1(probability: float) -> None:
    with pytest.raises(ValueError, match=r"is not in \[0, 1\]"):
        Gcs503Proxy(probability, seed=0)
