"""Where Google's APIs are asked, and that credentials go nowhere over an open line."""

from __future__ import annotations

import pytest

from launch.google.endpoints import endpoint
from launch.services.service import ApiRequest
from trainer.errors import UserError

JOBS = "v1/projects/p/locations/europe-west4/customJobs"


@pytest.mark.parametrize(
    ("api", "path", "address"),
    [
        ("aiplatform", JOBS, f"https://europe-west4-aiplatform.googleapis.com/{JOBS}"),
        ("tpu", "v2/projects/p/locations/us-west4-a/nodes/n", None),
        ("storage", "storage/v1/b/bucket", None),
        ("logging", "v2/entries:list", None),
    ],
)
def test_the_hosts_of_google(api: str, path: str, address: str | None) -> None:
    assert endpoint(ApiRequest(api, "GET", path), {}) == (address or f"https://{api}.googleapis.com/{path}")


@pytest.mark.parametrize(
    ("override", "address"),
    [
        ("https://aiplatform-mine.p.googleapis.com/", f"https://aiplatform-mine.p.googleapis.com/{JOBS}"),
        ("https://aiplatform-mine.p.googleapis.com", f"https://aiplatform-mine.p.googleapis.com/{JOBS}"),
        ("http://localhost:80/a/", f"http://localhost:80/a/{JOBS}"),
        ("http://[::1]:80/", f"http://[::1]:80/{JOBS}"),
    ],
)
def test_another_host(override: str, address: str) -> None:
    environment = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": override, "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": "x"}
    assert endpoint(ApiRequest("aiplatform", "GET", JOBS), environment) == address


@pytest.mark.parametrize("override", ["https://s.p.googleapis.com/storage/v1/", "https://s.p.googleapis.com/"])
def test_storage_with_the_version_as_gcloud_has_it_and_without(override: str) -> None:
    environment = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": override}
    for path in ("storage/v1/b/bucket", "upload/storage/v1/b/bucket/o"):
        assert endpoint(ApiRequest("storage", "GET", path), environment) == f"https://s.p.googleapis.com/{path}"


@pytest.mark.parametrize(
    "override",
    [
        "http://aiplatform.example.com/",
        "http://127.0.0.1@example.com/",
        "http://localhost.example.com/",
        "ftp://127.0.0.1/",
        "aiplatform.example.com",
        "https:///v1",
        "http://[::1",
    ],
)
def test_where_credentials_do_not_go(override: str) -> None:
    variable = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"
    with pytest.raises(UserError) as caught:
        endpoint(ApiRequest("aiplatform", "GET", JOBS), {variable: override})
    assert str(caught.value).startswith(f"{variable}={override.rstrip('/')}: ") and "https://" in str(caught.value)
