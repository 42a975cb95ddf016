"""The fake Cloud Storage takes what Google's client writes, and keeps its promises about generations."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fakes.gcs import FakeStorage, Fault, serving
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

PART_BYTES = 2**18
"""The smallest part of a resumable upload."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStorage]:
    with serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        server.bucket("flowers")
        yield server


@pytest.fixture
def bucket(server: FakeStorage) -> Any:
    return storage.Client.create_anonymous_client().bucket("flowers")


def upload_in_parts(bucket: Any, name: str, content: bytes) -> None:
    blob = bucket.blob(name, chunk_size=PART_BYTES)
    retry = DEFAULT_RETRY.with_delay(initial=0.01).with_timeout(5)
    blob.upload_from_file(io.BytesIO(content), retry=retry)  # Of a given size, less than 8 MB go in one request.


def test_objects_come_back_with_their_facts(bucket: Any) -> None:
    bucket.blob("run/ü +%").upload_from_string(b"text")
    blob = bucket.get_blob("run/ü +%")
    assert blob.download_as_bytes(checksum="crc32c") == b"text" and blob.size == 4 and blob.generation > 0
    assert abs(blob.updated - datetime.now(timezone.utc)) < timedelta(seconds=30)
    assert bucket.get_blob("none") is None and bucket.exists()
    bucket.copy_blob(blob, bucket, "copy")
    bucket.blob("rewritten").rewrite(blob)
    blob.delete()
    assert sorted(found.name for found in bucket.list_blobs()) == ["copy", "rewritten"]
    with pytest.raises(NotFound):
        blob.delete()


def test_only_one_creates_replaces_and_deletes_a_generation(bucket: Any) -> None:
    mine, other = bucket.blob("lease"), bucket.blob("lease")
    mine.upload_from_string(b"mine", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        other.upload_from_string(b"other", if_generation_match=0)
    other.upload_from_string(b"other", if_generation_match=mine.generation)
    for stale in (
        lambda: mine.upload_from_string(b"mine", if_generation_match=mine.generation),
        lambda: bucket.blob("lease").delete(if_generation_match=mine.generation),
        lambda: bucket.blob("lease").download_as_bytes(if_generation_match=mine.generation),
    ):
        with pytest.raises(PreconditionFailed):
            stale()
    assert other.download_as_bytes(if_generation_match=other.generation) == b"other"
    other.delete(if_generation_match=other.generation)
    generation = other.generation
    mine.upload_from_string(b"new", if_generation_match=0)
    assert mine.generation > generation, "a name that comes back has another generation"


@pytest.mark.parametrize("effect", [503, "dropped", "cut upload", "lost answer"])
def test_an_upload_in_parts_is_whole_whatever_goes_wrong_in_the_middle(
    server: FakeStorage, bucket: Any, effect: Any
) -> None:
    content = os.urandom(3 * PART_BYTES + 17)
    fault = Fault(r"PUT .*upload_id", effect, times=1, first=3)
    server.faults.append(fault)
    upload_in_parts(bucket, "big", content)
    assert server.bucket("flowers").contents["big"] == content and fault.times == 0


def test_a_gone_upload_writes_nothing(server: FakeStorage, bucket: Any) -> None:
    server.faults.append(Fault(r"PUT .*upload_id", 410, times=1, first=3))
    with pytest.raises(Exception, match="410"):
        upload_in_parts(bucket, "big", bytes(2 * PART_BYTES))
    assert not server.bucket("flowers").contents and not server.api.uploads
