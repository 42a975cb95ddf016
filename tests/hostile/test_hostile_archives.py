"""Archives of modules from anywhere: nothing is written outside, nothing grows without bound, nothing half is kept."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import hostile_archives
import modules
import pytest
from hub_server import HubServer, archive_of

from trainer.errors import UserError
from trainer.model.archives import unpack
from trainer.model.handles import resolve

_SECONDS = 10.0


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of a small module, not compressed."""
    return archive_of(modules.with_training(tmp_path_factory.mktemp("published") / "module"), compressed=False)


@pytest.fixture(scope="module")
def corpus(good: bytes) -> dict[str, tuple[bytes, str]]:
    """See `hostile_archives.corpus`."""
    return hostile_archives.corpus(good)


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    """A hub on loopback."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps downloads apart."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "inner" / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", hostile_archives.NAMES)
def test_it_is_refused_and_leaves_nothing(
    name: str, corpus: dict[str, tuple[bytes, str]], server: HubServer, tmp_path: Path
) -> None:
    content, sentence = list(corpus.values())[int(name.split()[0])]
    server.archives["/m/1"] = content
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        resolve(f"{server.address}/m/1")
    assert time.monotonic() - began < _SECONDS
    assert f"--backbone={server.address}/m/1" in str(refused.value) and sentence in str(refused.value)
    left = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    kept = {path for path in left if path.parts[:2] == ("inner", "cache")} | {Path("inner")}
    assert left <= kept, "something was written outside"
    files = [path for path in left if (tmp_path / path).is_file() and path.suffix != ".txt"]
    assert all(sentence == hostile_archives.INCOMPLETE for _ in files), files


def test_a_good_archive_is_taken_compressed_or_not(good: bytes, server: HubServer) -> None:
    for name, content in (("tar", good), ("gzip", gzip.compress(good)), ("padded", gzip.compress(good + bytes(4096)))):
        server.archives[f"/{name}/1"] = content
        assert (Path(resolve(f"{server.address}/{name}/1")) / "saved_model.pb").exists()


def test_a_server_that_falls_silent_is_given_up(
    server: HubServer, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.model.handles._SILENCE_TIMEOUT", 0.2)
    server.archives["/m/1"], server.silent_after = good, 1000
    try:
        with pytest.raises(UserError, match=r"cannot be fetched \(.*timed out"):
            resolve(f"{server.address}/m/1")
    finally:
        server.silent_after = None


def test_a_small_module_may_shrink_as_it_likes(tmp_path: Path) -> None:
    """Zeros at the beginning of training, say."""
    zeros = hostile_archives.tar([hostile_archives.member("variables/zeros", bytes(2**25))])
    assert len(zeros) < 2**25 / 900
    unpack(BytesIO(zeros), str(tmp_path))
    assert (tmp_path / "variables" / "zeros").stat().st_size == 2**25
