"""Class folders on a pretended gs://, as Google's own client lists them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
from fakes.gcs import FakeStorage, Fault, GeneratedObjects, serving
from image_folders import encoded, gradient, write_classes

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.folders import list_class_folders
from trainer.data.listing import ListingProgress
from trainer.data.listing_bucket import BucketLister
from trainer.data.sources import open_source
from trainer.errors import UserError
from trainer.storage_bucket import Bucket


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStorage]:
    with serving() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        yield server


def opened(place: str, **fields: object) -> FileSource:
    source = open_source(Config(data=f"folder:{place}", **fields))  # type: ignore[arg-type]
    assert isinstance(source, FileSource)
    return source


def test_a_bucket_is_listed_like_a_disk(storage: FakeStorage, tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 2, "tulips": 1})
    bucket = storage.bucket("flowers")
    for path in tmp_path.rglob("*.png"):
        bucket.put(f"a/photos/{path.relative_to(tmp_path)}", path.read_bytes())
    for litter in (
        "a/photos/",
        "a/photos/roses/",
        "a/photos/LICENSE.txt",
        "a/photos/roses/.hidden",
        "a/photosx/q/1.png",
    ):
        bucket.put(litter, b"")
    local, remote = opened(str(tmp_path)), opened("gs://flowers/a/photos/")
    assert list(remote.keys) == list(local.keys) and remote.fingerprint() == local.fingerprint()
    assert remote.paths[2] == "gs://flowers/a/photos/tulips/000.png" and remote.is_remote and not remote.from_cache
    content = bucket.contents["a/photos/tulips/000.png"]
    assert remote.checksums is not None and remote.versions is not None
    assert remote.checksums[2] == google_crc32c.value(content)
    assert remote.versions[2] == bucket.generations["a/photos/tulips/000.png"]
    listings = [request for request in storage.requests if "prefix=" in request]
    assert len(listings) == 3 and not any("/o/" in request for request in storage.requests)


def test_a_bucket_itself_may_hold_the_classes(storage: FakeStorage) -> None:
    for name in ("a/1.png", "b/1.png"):
        storage.bucket("flowers").put(name, encoded(gradient()))
    assert list(opened("gs://flowers").keys) == ["a/1.png", "b/1.png"]


def test_pages_add_up_and_progress_is_told(storage: FakeStorage) -> None:
    storage.buckets["large"] = GeneratedObjects("photos", 3, 2500)
    reports: list[str] = []
    clock = itertools.count(0, 2)
    lister = BucketLister("gs://large/photos", reports.append)
    lister._progress = ListingProgress("gs://large/photos", reports.append, lambda: float(next(clock)))
    folders = lister.list(["class_0000", "class_0001", "class_0002"])
    assert [len(folder.names) for folder in folders] == [2500] * 3
    assert folders[2].names[2499] == "photo_0002499.jpg" and len(set(folders[0].names)) == 2500
    assert sum("pageToken" in request for request in storage.requests) == 6
    assert reports[0] == "Listing gs://large/photos: 3,000 files so far." and len(reports) == 3


def test_unusable_objects_are_named(storage: FakeStorage) -> None:
    for name in ("a/1.png", "b/1.png", "b/nul\0.png"):
        storage.bucket("flowers").put(name, encoded(gradient()))
    storage.bucket("flowers").put("b/empty.png", b"")
    with pytest.raises(UserError, match=r"gs://flowers/b/empty.png cannot be used: empty file \(one more"):
        opened("gs://flowers")


@pytest.mark.parametrize(
    ("place", "fault", "sentence"),
    [
        ("gs://nothing/photos", None, "There is no bucket gs://nothing: give another --data"),
        ("gs://flowers/none", None, "There is no folder gs://flowers/none"),
        ("gs://flowers", Fault("GET", 403), "No permission for gs://flowers/ .*log in"),
        ("gs://flowers", Fault("GET", 401), "credentials for gs://flowers/ cannot be used .*log in anew"),
        ("gs://flowers", Fault("prefix=a%2F&", 403), "No permission for gs://flowers/a/"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_one_sentence(
    storage: FakeStorage, place: str, fault: Fault | None, sentence: str
) -> None:
    for name in ("a/1.png", "b/1.png"):
        storage.bucket("flowers").put(name, b"x")
    storage.faults += [fault] if fault else []
    with pytest.raises(UserError, match=sentence) as raised:
        opened(place)
    assert "\n" not in str(raised.value)


def test_listing_needs_no_right_to_look_at_the_bucket_itself(storage: FakeStorage) -> None:
    for name in ("a/1.png", "b/1.png"):
        storage.bucket("flowers").put(name, b"x")
    storage.faults.append(Fault(r"GET /storage/v1/b/flowers\?", 403))
    assert len(opened("gs://flowers")) == 2


def test_a_server_that_fails_for_a_moment_is_asked_again(storage: FakeStorage) -> None:
    for name in ("a/1.png", "b/1.png"):
        storage.bucket("flowers").put(name, b"x")
    storage.faults.append(Fault("GET", 503, times=1))
    lister = BucketLister("gs://flowers", print, Bucket("flowers", "--data", patience=5.0))
    assert [entry.name for entry in lister.entries()] == ["a", "b"]


def test_a_server_that_fails_for_long_is_given_up(storage: FakeStorage) -> None:
    storage.bucket("flowers")
    storage.faults.append(Fault("GET", 503))
    lister = BucketLister("gs://flowers", print, Bucket("flowers", "--data", patience=1.0))
    start = time.monotonic()
    with pytest.raises(UserError, match="gs://flowers/ cannot be read .*503.*try again later"):
        list(lister.entries())
    assert time.monotonic() - start < 10 and len(storage.requests) > 1


def test_a_server_that_is_not_there_is_given_up(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    lister = BucketLister("gs://flowers", print, Bucket("flowers", "--data", patience=0.5))
    with pytest.raises(UserError, match="gs://flowers/ cannot be read"):
        list(lister.entries())


def test_without_credentials_only_what_is_public_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    from google.auth.credentials import AnonymousCredentials

    assert isinstance(Bucket("flowers", "--data")._client._credentials, AnonymousCredentials)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    (tmp_path / "none.json").write_text("{}")
    assert isinstance(Bucket("flowers", "--data")._client._credentials, AnonymousCredentials)


def test_class_listing_keeps_what_the_bucket_tells(storage: FakeStorage) -> None:
    storage.buckets["large"] = GeneratedObjects("photos", 2, 10)
    listing = list_class_folders("gs://large/photos", (), print)
    assert len(listing.keys) == 20 and listing.labels.tolist() == [0] * 10 + [1] * 10
    assert listing.sizes is not None and listing.sizes.tolist() == [len(b"photo")] * 20
