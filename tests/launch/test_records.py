"""Records of jobs: what is written is read again, by the same rules in a folder and on Cloud Storage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes import gcs

from launch.google.google_api import GoogleApi
from launch.records.records import Record, Records, default_place, open_records
from launch.services.service import ApiRequest
from trainer.errors import UserError

PARENT = "projects/my-project/locations/us-central1"
JOB = f"{PARENT}/customJobs/123"


def record(name: str = "flowers", **changes: Any) -> Record:
    request = ApiRequest("aiplatform", "POST", f"v1/{PARENT}/customJobs", {"key": "value"}, {"displayName": name})
    made = Record(
        name=name,
        target="vertex",
        project="my-project",
        location="us-central1",
        submission="token1",
        created="2026-11-22T17:00:00+00:00",
        request=request,
        run_dir="gs://bucket/flowers",
        config={"epochs": 3, "splits": [75, 15, 10]},
        trainer_flags=("--epochs=3",),
        image="us-central1-docker.pkg.dev/my-project/hub-trainer/trainer-gpu:abc",
        commit="abc",
        clean=True,
        hourly_price=1.5,
        max_run_hours=24.0,
        max_requests=5,
        provisioning="spot",
    )
    return replace(made, **changes)


@pytest.fixture
def storage() -> Iterator[gcs.FakeStorage]:
    with gcs.serving() as server:
        server.bucket("bucket")
        yield server


def api_of(server: gcs.FakeStorage) -> GoogleApi:
    session: Any = requests.Session()
    environment = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": server.address}
    return GoogleApi(session, environment, sleep=lambda _: None)


Put = Callable[[str, bytes], None]
Place = tuple[Records, list[str], Put]
"""Records, what they warn of, and a way to put a file beside them."""


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    warnings: list[str] = []
    if request.param == "folder":
        folder = tmp_path / "jobs"

        def put_file(name: str, content: bytes) -> None:
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

        return open_records(str(folder), _no_api, warn=warnings.append), warnings, put_file
    server: gcs.FakeStorage = request.getfixturevalue("storage")
    api = api_of(server)

    def put_object(name: str, content: bytes) -> None:
        server.bucket("bucket").put(f"my/jobs/{name}", content)

    return open_records("gs://bucket/my/jobs/", lambda: api, warn=warnings.append), warnings, put_object


def _no_api() -> GoogleApi:
    raise AssertionError("a folder needs no credentials")


def test_a_record_comes_back_as_it_was_saved(place: Place) -> None:
    records, warnings, _ = place
    assert (records.all(), records.load("flowers")) == ([], None)
    records.save(record(resource=""))
    assert records.load("flowers") == record()
    created = record().requested(JOB)
    records.save(created)
    records.save(created)
    assert created.attempts == (JOB,)
    assert records.load("flowers") == created.requested(JOB) == created
    assert records.all() == [created]
    assert not warnings


def test_newest_first(place: Place) -> None:
    records, _, _ = place
    moments = {"b": "2026-11-22T18:00:00+00:00", "a": "2026-11-22T17:30:00Z", "c": "2026-11-22T18:40:00+01:00"}
    for name, moment in moments.items():
        records.save(record(name, created=moment))
    assert [each.name for each in records.all()] == ["b", "c", "a"]


def test_another_submission_of_the_same_name_is_refused(place: Place) -> None:
    records, _, _ = place
    records.save(record())
    with pytest.raises(UserError, match=r"named flowers was submitted already \(.*flowers.json\).*--name"):
        records.save(record(submission="token2"))
    assert records.load("flowers") == record()


def test_a_submission_that_made_no_job_is_forgotten(place: Place) -> None:
    records, warnings, put = place
    records.forget(record())
    records.save(record())
    records.forget(record(submission="token2"))
    assert records.all() == [record()]
    records.forget(record().requested(JOB))
    assert records.all() == []
    put("flowers.json", b"my own notes")
    records.forget(record())
    records.all()
    assert len(warnings) == 2  # It is still there.


def damaged() -> dict[str, bytes]:
    good = record().to_json()
    return {
        "nothing.json": b"",
        "half.json": json.dumps(good).encode()[:200],
        "binary.json": b"\xff\xfe\x00",
        "list.json": b"[]",
        "foreign.json": b'{"version": 1}',
        "later.json": json.dumps({**good, "format": "hub-trainer job 2", "name": "later"}).encode(),
        "other.json": json.dumps(good).encode(),
        "field.json": json.dumps({**good, "name": "field", "attempts": 3}).encode(),
        "time.json": json.dumps({**good, "name": "time", "created": "yesterday"}).encode(),
        "address.json": json.dumps({**good, "name": "address", "resource": f"{PARENT}/customJobs/1/../2?x="}).encode(),
        "project.json": json.dumps({**good, "name": "project", "project": "a/../b"}).encode(),
        "deletes.json": json.dumps(
            {**good, "name": "deletes", "request": {**good["request"], "method": "DELETE"}}
        ).encode(),
        "elsewhere.json": json.dumps(
            {**good, "name": "elsewhere", "request": {**good["request"], "path": "v1/projects/p/locations/l/x"}}
        ).encode(),
        "UPPER.json": json.dumps({**good, "name": "UPPER"}).encode(),
        "large.json": b" " * (2**20 + 1),
    }


def test_what_is_no_record_is_named_and_passed_over(place: Place) -> None:
    records, warnings, put = place
    records.save(record())
    put("readme.txt", b"not asked for")
    for name, content in damaged().items():
        put(name, content)
    assert records.all() == [record()]
    assert len(warnings) == len(damaged())
    for name in damaged():
        assert any(f"/{name} is passed over: " in warning for warning in warnings), name
    warnings.clear()
    assert records.load("half") is None
    assert "/half.json is passed over: it is no JSON." in warnings[0]


def test_nothing_that_is_in_the_way_is_overwritten(place: Place) -> None:
    records, _, put = place
    put("flowers.json", b"my own notes")
    with pytest.raises(UserError, match=r"flowers.json is in the way \(it is no JSON\)"):
        records.save(record())
    assert records.load("flowers") is None


@pytest.mark.parametrize("name", ["", "../flowers", "a/b", "UPPER", "a" * 51, "a\n"])
def test_a_name_that_could_be_a_path_is_none(place: Place, name: str) -> None:
    records, _, _ = place
    with pytest.raises(UserError, match="no name of a job"):
        records.save(record(name))
    assert records.load(name) is None


def test_secrets_are_refused(place: Place) -> None:
    records, _, _ = place
    for changes in ({"image": "https://me:secret@host/i"}, {"trainer_flags": ("--data=folder:https://h/?token=abc",)}):
        with pytest.raises(UserError, match="submitted as flowers holds an address with"):
            records.save(record(**changes))
    assert records.all() == []


def test_a_folder_holds_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = open_records(str(tmp_path), _no_api)
    records.save(record())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=rf"cannot be written in {tmp_path} \(No space left on device\).*--records"):
        records.save(record().requested(JOB))
    assert [path.name for path in tmp_path.iterdir()] == ["flowers.json"]
    assert records.load("flowers") == record()


def test_two_that_take_a_name_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, records = (open_records(str(tmp_path), _no_api) for _ in range(2))
    link = os.link

    def be_overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        other.save(record(submission="faster"))
        link(source, target)

    monkeypatch.setattr(os, "link", be_overtaken)
    with pytest.raises(UserError, match="was submitted already"):
        records.save(record())
    assert [each.submission for each in records.all()] == ["faster"]


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("no folder", encoding="utf-8")
    records = open_records(str(file), _no_api)
    for ask in (records.all, lambda: records.load("flowers"), lambda: records.save(record())):
        with pytest.raises(UserError, match=rf"{file} \((Not a directory|File exists)\)"):
            ask()
    monkeypatch.setattr(os, "stat", _refuse)
    with pytest.raises(UserError, match=r"cannot be read in .* \(Permission denied\)"):
        open_records(str(tmp_path), _no_api).load("flowers")
    monkeypatch.undo()
    for wrong in ("", "s3://bucket/jobs", "a\0b"):
        with pytest.raises(UserError, match="must be a folder, or gs://BUCKET/PREFIX"):
            open_records(wrong, _no_api)
    for wrong in ("gs://", "gs://UPPER/x", "gs://b?x=1/y"):
        with pytest.raises(UserError, match="must name a bucket"):
            open_records(wrong, _no_api)


def test_a_pipe_in_the_folder_holds_nobody_up(tmp_path: Path) -> None:
    warnings: list[str] = []
    os.mkfifo(tmp_path / "pipe.json")
    assert open_records(str(tmp_path), _no_api, warn=warnings.append).all() == []
    assert "pipe.json is passed over: it is too large, or no file." in warnings[0]


def test_buckets_that_cannot_be_used(storage: gcs.FakeStorage) -> None:
    missing = open_records("gs://missing/jobs", lambda: api_of(storage))
    for ask in (missing.all, lambda: missing.load("flowers"), lambda: missing.save(record())):
        with pytest.raises(UserError, match="--records=gs://missing/jobs: there is no bucket missing; `gcloud storage"):
            ask()
    storage.faults.append(gcs.Fault("GET", 403, times=1))
    records = open_records("gs://bucket", lambda: api_of(storage))
    with pytest.raises(
        UserError, match="cannot be read in gs://bucket: the permission storage.objects.list is missing"
    ):
        records.all()
    storage.faults.append(gcs.Fault("POST", 403, times=1))
    with pytest.raises(UserError, match="cannot be written in gs://bucket: "):
        records.save(record())


def test_removing_is_not_for_what_came_since(storage: gcs.FakeStorage) -> None:
    records = open_records("gs://bucket", lambda: api_of(storage))
    records.save(record())
    storage.faults.append(gcs.Fault("DELETE", "lost answer", times=1))
    records.forget(record())
    assert records.all() == []
    records.save(record())
    storage.faults.append(gcs.Fault("DELETE", 403, times=1))
    with pytest.raises(UserError, match="cannot be removed in gs://bucket: "):
        records.forget(record())
    answer = storage.api.answer

    def overtaking(request: gcs.Request) -> gcs.Answer:
        if request.method == "DELETE":
            content = json.dumps(record(submission="faster").to_json()).encode()
            storage.bucket("bucket").put("flowers.json", content)
        return answer(request)

    storage.api.answer = overtaking  # type: ignore[method-assign]
    records.forget(record())
    assert [each.submission for each in records.all()] == ["faster"]


@pytest.mark.parametrize("effect", ["lost answer", "dropped", 503])
def test_a_lost_answer_of_cloud_storage_does_no_harm(storage: gcs.FakeStorage, effect: Any) -> None:
    storage.faults.append(gcs.Fault("POST /upload", effect, times=1))
    records = open_records("gs://bucket/jobs", lambda: api_of(storage))
    records.save(record())
    assert records.all() == [record()]
    assert storage.bucket("bucket").names() == ["jobs/flowers.json"]


def test_a_record_that_changes_while_it_is_replaced_is_read_anew(storage: gcs.FakeStorage) -> None:
    records = open_records("gs://bucket/jobs", lambda: api_of(storage))
    records.save(record())
    bucket = storage.bucket("bucket")
    put, others = bucket.put, iter([json.dumps(record(submission="faster").to_json()).encode()])
    answer = storage.api.answer

    def overtaking(request: gcs.Request) -> gcs.Answer:
        if request.method == "POST":
            for content in others:
                put("jobs/flowers.json", content)
        return answer(request)

    storage.api.answer = overtaking  # type: ignore[method-assign]
    with pytest.raises(UserError, match="was submitted already"):
        records.save(record().requested(JOB))
    assert [each.submission for each in records.all()] == ["faster"]


def test_where_records_are() -> None:
    assert default_place({"HUB_TRAINER_JOBS": "gs://b/jobs", "XDG_DATA_HOME": "/data"}) == "gs://b/jobs"
    assert default_place({"HUB_TRAINER_JOBS": "", "XDG_DATA_HOME": "/data"}) == "/data/hub-trainer/jobs"
    assert default_place({"XDG_DATA_HOME": "data"}) == os.path.expanduser("~/.local/share/hub-trainer/jobs")
