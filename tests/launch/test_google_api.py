"""The one way to Google's APIs, against the fake cloud: what is sent again, what is not, and what is made once."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.cloud import Answer, FakeCloud, Fault, serving
from fakes.credentials import PROJECT
from google.auth.exceptions import RefreshError

from launch.google.api_errors import MALFORMED, ApiError
from launch.google.google_api import ATTEMPTS, GoogleApi, authorized_session
from launch.services.service import ApiRequest
from trainer.errors import UserError

PARENT = f"projects/{PROJECT}/locations/us-central1"
ZONE = f"projects/{PROJECT}/locations/us-west4-a"
JOBS = f"v1/{PARENT}/customJobs"
LIST = ApiRequest("aiplatform", "GET", JOBS)

Open = Callable[[], GoogleApi]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    """A cloud that wants tokens, and credentials that get them."""
    with serving() as cloud:
        for name, value in cloud.credentials(tmp_path).items():
            monkeypatch.setenv(name, value)
        cloud.tokens.are_checked = True
        yield cloud


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def api(cloud: FakeCloud, pauses: list[float]) -> GoogleApi:
    return GoogleApi(authorized_session({}), cloud.environment(), sleep=pauses.append, jitter=lambda: 0.0)


def create_request(token: str) -> ApiRequest:
    machine = {"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
    pool = {"machineSpec": machine, "replicaCount": "1", "containerSpec": {"imageUri": "image"}}
    body = {"displayName": "flowers", "labels": {"token": token}, "jobSpec": {"workerPoolSpecs": [pool]}}
    return ApiRequest("aiplatform", "POST", JOBS, {}, body)


def finder(api: GoogleApi, token: str) -> Callable[[], dict[str, Any] | None]:
    labelled = ApiRequest("aiplatform", "GET", JOBS, {"filter": f'labels.token="{token}"'})
    return lambda: next(api.pages(labelled, "customJobs"), None)


def create(api: GoogleApi, token: str) -> dict[str, Any]:
    return api.create_once(create_request(token), finder(api, token))


def error_of(action: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        action()
    assert "token-" not in f"{caught.value}{caught.value.message}", "an access token is in the error"
    return caught.value


@pytest.mark.parametrize("effect", [408, 429, 500, 502, 503, 504, "dropped", "lost answer", "truncated", "rubbish"])
def test_what_passes_is_sent_again(cloud: FakeCloud, api: GoogleApi, pauses: list[float], effect: Any) -> None:
    cloud.faults.append(Fault("GET /aiplatform", effect, times=2))
    assert api.send(LIST) == {}
    assert len(cloud.sent("aiplatform")) == 3 and pauses == [1.0, 2.0]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "INVALID_ARGUMENT"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"), (409, "ALREADY_EXISTS"), (501, None)],
)
def test_what_does_not_pass_is_sent_once(
    cloud: FakeCloud, api: GoogleApi, pauses: list[float], status: int, reason: str | None
) -> None:
    cloud.faults.append(Fault("GET /aiplatform", status))
    error = error_of(lambda: api.send(LIST))
    assert (error.status, error.reason, error.message) == (status, reason or "UNIMPLEMENTED", "injected")
    assert len(cloud.sent("aiplatform")) == 1 and not pauses


def test_it_gives_up_after_a_while(cloud: FakeCloud, pauses: list[float]) -> None:
    api = GoogleApi(authorized_session({}), cloud.environment(), sleep=pauses.append, jitter=lambda: 0.5)
    cloud.faults.append(Fault("GET /aiplatform", 503))
    assert error_of(lambda: api.send(LIST)).status == 503
    assert pauses == [0.75, 1.5, 3.0, 6.0, 12.0], "each is shorter by a quarter, for a jitter of a half"
    assert len(cloud.sent("aiplatform")) == ATTEMPTS == 6
    assert error_of(lambda: api.send(LIST, attempts=1)).status == 503
    assert len(cloud.sent("aiplatform")) == ATTEMPTS + 1


def test_a_slow_answer_is_not_waited_for(cloud: FakeCloud, api: GoogleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.google.google_api._REQUEST_SECONDS", (1.0, 0.1))
    cloud.faults.append(Fault("GET /aiplatform", "slow", times=1, seconds=60))
    assert api.send(LIST) == {} and len(cloud.sent("aiplatform")) == 2


def test_ten_lost_answers_of_ten_make_exactly_ten_jobs(cloud: FakeCloud, api: GoogleApi) -> None:
    cloud.faults.append(Fault("POST /aiplatform", "lost answer"))
    made = {create(api, f"t{number}")["name"] for number in range(10)}
    assert made == set(cloud.vertex.jobs) and len(made) == 10
    assert len(cloud.sent("aiplatform", "POST")) == 10


def test_a_request_that_never_arrived_is_sent_again(cloud: FakeCloud, api: GoogleApi) -> None:
    cloud.faults.append(Fault("POST /aiplatform", "dropped", times=2))
    assert create(api, "t1")["name"] in cloud.vertex.jobs
    assert len(cloud.vertex.jobs) == 1 and len(cloud.sent("aiplatform", "POST")) == 3


def test_a_refused_creation_is_neither_repeated_nor_looked_up(cloud: FakeCloud, api: GoogleApi) -> None:
    request = ApiRequest("aiplatform", "POST", JOBS, {}, {"displayName": "flowers", "typo": 1})
    error = error_of(lambda: api.create_once(request, finder(api, "t1")))
    assert error.status == 400 and '"typo"' in error.message
    assert [sent.method for sent in cloud.sent("aiplatform")] == ["POST"]


def test_nobody_knows_whether_it_was_made(cloud: FakeCloud, api: GoogleApi, pauses: list[float]) -> None:
    cloud.faults.append(Fault("POST /aiplatform", "dropped"))
    error = error_of(lambda: create(api, "t1"))
    assert error.status == 0 and error.passes
    assert len(cloud.sent("aiplatform", "POST")) == len(cloud.sent("aiplatform", "GET")) == len(pauses) == ATTEMPTS


def slice_request(name: str) -> ApiRequest:
    node = {"acceleratorType": "v5litepod-8", "runtimeVersion": "v2-tpuv5-litepod"}
    body = {"tpu": {"nodeSpec": [{"parent": ZONE, "nodeId": name, "node": node}]}}
    return ApiRequest("tpu", "POST", f"v2/{ZONE}/queuedResources", {"queuedResourceId": name}, body)


def test_what_exists_already_after_a_lost_answer_is_ours(cloud: FakeCloud, api: GoogleApi) -> None:
    """It is not found at once, as in a list that lags behind, so that the second request is told that it exists."""
    cloud.faults.append(Fault("POST /tpu", "lost answer", times=1))
    found = itertools.chain([None], itertools.repeat({"name": "mine"}))
    assert api.create_once(slice_request("slice-1"), lambda: next(found)) == {"name": "mine"}
    assert len(cloud.sent("tpu", "POST")) == 2 and len(cloud.tpu.resources) == 1


def test_what_somebody_else_made_is_not_ours(cloud: FakeCloud, api: GoogleApi) -> None:
    api.send(slice_request("slice-1"))
    error = error_of(lambda: api.create_once(slice_request("slice-1"), lambda: None))
    assert (error.status, error.reason) == (409, "ALREADY_EXISTS")
    assert len(cloud.sent("tpu", "POST")) == 2, "not a third time"


def test_a_token_that_has_ended_is_renewed_once(cloud: FakeCloud, api: GoogleApi, pauses: list[float]) -> None:
    api.send(LIST)
    cloud.tokens.revoke()
    assert api.send(LIST) == {}
    assert cloud.tokens.issued == 2 and not pauses
    assert len({sent.headers["Authorization"] for sent in cloud.sent("aiplatform")}) == 2
    cloud.faults.append(Fault("GET /aiplatform", 401))
    assert error_of(lambda: api.send(LIST)).reason == "UNAUTHENTICATED"
    assert cloud.tokens.issued == 3, "it does not ask for ever more tokens"


def test_credentials_that_get_no_token(cloud: FakeCloud, api: GoogleApi, pauses: list[float]) -> None:
    refused = json.dumps({"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
    cloud.faults.append(Fault("POST /token", Answer(400, refused.encode())))
    error = error_of(lambda: api.send(LIST))
    assert error.status == 401 and "Token has been expired or revoked." in error.message and not pauses


def test_a_token_server_that_is_away_for_a_moment(pauses: list[float]) -> None:
    class Away:
        def request(self, method: str, url: str, **options: Any) -> Any:
            raise RefreshError("temporarily unavailable", retryable=True)

    api = GoogleApi(Away(), {}, sleep=pauses.append)
    assert error_of(lambda: api.send(LIST)).status == 0 and len(pauses) == ATTEMPTS - 1


def test_a_thousand_jobs_are_listed_in_under_two_seconds(cloud: FakeCloud, api: GoogleApi) -> None:
    resource = api.send(create_request("t1"))
    job = cloud.vertex.jobs.pop(resource["name"])
    for number in range(1000):
        name = f"{PARENT}/customJobs/{number}"
        cloud.vertex.jobs[name] = type(job)({**resource, "name": name}, [], cloud.lock, time.time)  # type: ignore[arg-type]
    started = time.perf_counter()
    query = {"filter": 'labels.token="t1"', "pageSize": "100"}
    names = [found["name"] for found in api.pages(ApiRequest("aiplatform", "GET", JOBS, query), "customJobs")]
    assert time.perf_counter() - started < 2.0
    assert len(cloud.sent("aiplatform", "GET")) == 10
    assert names == list(reversed(cloud.vertex.jobs)), "each once, the newest first"


def test_pages_are_asked_for_when_they_are_wanted(cloud: FakeCloud, api: GoogleApi) -> None:
    for number in range(3):
        api.send(create_request(f"t{number}"))
    pages = api.pages(ApiRequest("aiplatform", "GET", JOBS, {"pageSize": "1"}), "customJobs")
    assert next(pages)["labels"] == {"token": "t2"} and len(cloud.sent("aiplatform", "GET")) == 1
    assert [job["labels"]["token"] for job in pages] == ["t1", "t0"]


def test_a_post_asks_for_the_next_page_in_its_body(cloud: FakeCloud, api: GoogleApi) -> None:
    for number in range(5):
        cloud.logs.write(PROJECT, "ml_job", f"line {number}", {"type": "ml_job", "labels": {}})
    cloud.logs.empty_pages = 2
    body = {"resourceNames": [f"projects/{PROJECT}"], "filter": 'resource.type="ml_job"', "pageSize": 2}
    request = ApiRequest("logging", "POST", "v2/entries:list", {}, body)
    assert [entry["textPayload"] for entry in api.pages(request, "entries")] == [f"line {n}" for n in range(5)]
    assert len(cloud.sent("logging")) == 5 and "pageToken" not in body


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("endless pages", "its list of customJobs goes round in circles"),
        ({"customJobs": {"a": 1}}, "its answer is no page of customJobs"),
        ({"customJobs": ["a"]}, "its answer is no page of customJobs"),
        ({"customJobs": [], "nextPageToken": 7}, "its answer is no page of customJobs"),
        ([], "its answer is no JSON object"),
        ("rubbish", "its answer is no JSON"),
    ],
)
def test_a_list_that_makes_no_sense_ends(cloud: FakeCloud, api: GoogleApi, answer: Any, sentence: str) -> None:
    effect: Any = answer if isinstance(answer, str) else Answer(200, json.dumps(answer).encode())
    cloud.faults.append(Fault("GET /aiplatform", effect))
    error = error_of(lambda: list(api.pages(LIST, "customJobs")))
    assert (error.status, error.reason, error.message) == (0, MALFORMED, sentence)
    assert len(cloud.sent("aiplatform")) <= ATTEMPTS


def test_a_redirect_is_not_followed_with_the_token(cloud: FakeCloud, api: GoogleApi) -> None:
    with serving() as other:
        cloud.faults.append(Fault("GET /aiplatform", Answer(307, headers={"Location": f"{other.address}/tpu/v2/x"})))
        assert error_of(lambda: api.send(LIST)).status == 307
        assert not other.requests


def test_objects_come_and_go(cloud: FakeCloud, api: GoogleApi) -> None:
    cloud.bucket("bucket")
    query = {"uploadType": "media", "name": "folder/a", "ifGenerationMatch": "0"}
    put = ApiRequest("storage", "POST", "upload/storage/v1/b/bucket/o", query)
    cloud.faults.append(Fault("POST /upload", "lost answer", times=1))
    assert error_of(lambda: api.upload(put, b"\0content", "application/gzip")).status == 412
    get = ApiRequest("storage", "GET", "storage/v1/b/bucket/o/folder%2Fa", {"alt": "media"})
    cloud.faults.append(Fault("GET /storage", 503, times=1))
    assert api.download(get) == cloud.bucket("bucket").contents["folder/a"] == b"\0content"


def test_a_port_where_nobody_listens(api: GoogleApi, pauses: list[float]) -> None:
    environment = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": "http://127.0.0.1:9/"}
    api = GoogleApi(authorized_session({}), environment, sleep=pauses.append)
    error = error_of(lambda: api.send(LIST))
    assert (error.status, error.message) == (0, "Failed to establish a new connection: [Errno 111] Connection refused")
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize("key", ["", "{}", "no JSON", '{"type": "service_account"}', None])
def test_no_credentials(key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    path = tmp_path / "key.json"
    if key is not None:
        path.write_text(key, encoding="utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    environment = {} if key is None else {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    what = "There are no Google credentials here" if key is None else f"GOOGLE_APPLICATION_CREDENTIALS={path} cannot"
    with pytest.raises(UserError, match=r"gcloud auth application-default login") as caught:
        authorized_session(environment)
    assert str(caught.value).startswith(what) and "\n" not in str(caught.value)
