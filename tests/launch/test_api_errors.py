"""What a person reads when an API refuses: one sentence, with the way out, and nothing that acts on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from launch.google.api_errors import MALFORMED, ApiError, sentence, user_errors
from launch.services.service import ApiRequest
from trainer.errors import UserError
from trainer.terminal import print_error

JOBS = ApiRequest("aiplatform", "POST", "v1/projects/p-1/locations/us-central1/customJobs")
BUCKET = ApiRequest("storage", "GET", "storage/v1/b/bucket/o")


def info(reason: str, **metadata: Any) -> list[dict[str, Any]]:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return [{"@type": "type.googleapis.com/google.rpc.Help"}, {"@type": kind, "reason": reason, "metadata": metadata}]


def refused(
    status: int, message: str = "m.", details: Any = (), *, reason: str = "", request: ApiRequest = JOBS
) -> ApiError:
    return ApiError(status, reason, message, request, details)


BINDING = "gcloud projects add-iam-policy-binding p-1 --member=user:YOU --role=roles"
ENABLE = "`gcloud services enable aiplatform.googleapis.com --project=p-1`"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (refused(0, "Connection refused"), ["Vertex AI cannot be reached (Connection refused)", "https_proxy"]),
        (refused(0, "no JSON", reason=MALFORMED), ["something else (no JSON)", "login page"]),
        (refused(302), ["elsewhere (302)", "credentials are not sent"]),
        (refused(400, "Bad\nfield."), ["Vertex AI refuses it (Bad field): "]),
        (refused(401), ["gcloud auth application-default login"]),
        (
            refused(403, "m", info("SERVICE_DISABLED", service="tpu.googleapis.com")),
            ["enable tpu.googleapis.com --pro"],
        ),
        (refused(403, "It has not been used in project 1 before or it is disabled. Enable it"), [ENABLE]),
        (refused(403, "m", info("SERVICE_DISABLED", service="x; rm -rf ~ #.googleapis.com")), [ENABLE]),
        (refused(403, "m", info("BILLING_DISABLED")), ["no billing account (m)", "linkedaccount?project=p-1"]),
        (
            refused(403, "m", info("IAM_PERMISSION_DENIED", permission="aiplatform.customJobs.create")),
            ["the permission aiplatform.customJobs.create is missing", f"`{BINDING}/aiplatform.user`"],
        ),
        (
            refused(403, "Permission 'iam.serviceAccounts.actAs' denied on service account x"),
            ["the permission iam.serviceAccounts.actAs is missing", f"`{BINDING}/iam.serviceAccountUser`"],
        ),
        (refused(403, "No"), ["that is not permitted (No)", f"`{BINDING}/aiplatform.user`"]),
        (
            refused(403, "a@b does not have storage.objects.list access to it.", request=BUCKET),
            ["the permission storage.objects.list is missing", "such as roles/storage.objectUser"],
        ),
        (refused(404, "x is gone"), ["Vertex AI does not find it (x is gone)", "location"]),
        (refused(409), ["take another name"]),
        (refused(429, "quota metric x"), ["quota metric x", "iam-admin/quotas?project=p-1"]),
        (refused(429, request=BUCKET), ["Cloud Storage has no quota", "iam-admin/quotas."]),
        (refused(503), ["Vertex AI fails (503: m): try again later"]),
    ],
)
def test_each_says_what_to_do(error: ApiError, parts: list[str]) -> None:
    text = sentence(error, "The job cannot be submitted")
    assert text.startswith("The job cannot be submitted: ") and text.endswith(".") and not text.endswith("..")
    for part in parts:
        assert part in text


def test_without_a_purpose_the_service_is_named() -> None:
    assert sentence(refused(503)).startswith("Vertex AI: ")


def test_a_context_turns_one_into_the_other() -> None:
    with (
        pytest.raises(UserError, match=r"^Jobs cannot be listed: Vertex AI fails") as caught,
        user_errors("Jobs cannot be listed"),
    ):
        raise refused(500)
    assert isinstance(caught.value.__cause__, ApiError)
    with pytest.raises(KeyError), user_errors("Jobs cannot be listed"):
        raise KeyError("a bug stays one")


@pytest.mark.parametrize("details", [{"a": 1}, ["text"], [{"@type": "google.rpc.ErrorInfo", "metadata": "text"}]])
def test_a_hostile_message(details: Any, capsys: pytest.CaptureFixture[str]) -> None:
    message = "\x1b[31mred\x1b]0;title\x07\r\nerror: done " + "x" * 10_000
    error = refused(400, message, [detail for detail in details if isinstance(detail, dict)])
    print_error(sentence(error, "It cannot be done"))
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and len(printed) < 700
    assert not any(ord(character) < 32 for character in printed.rstrip("\n")) and r"\x1b[31mred" in printed
    assert "\n" not in str(error)
