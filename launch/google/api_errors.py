"""What can go wrong with Google's APIs, and what a person can do about it.

    with user_errors("The job cannot be submitted"):
        api.send(request)

raises a UserError where an API refuses: one sentence of what was to be done, why it was not, and the way out.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.services.service import ApiRequest
from trainer.errors import UserError
from trainer.wording import first_line

RETRIED = (408, 429, 500, 502, 503, 504)
"""Answers after which a request may be sent again (AIP-194 and Cloud Storage's documentation, 2026-11)."""

MALFORMED = "MALFORMED"
"""The reason of an error whose answer says that all is well and is not what the API answers."""

_LONGEST_MESSAGE = 400

_TITLES = {
    "aiplatform": "Vertex AI",
    "tpu": "Cloud TPU",
    "cloudbuild": "Cloud Build",
    "logging": "Cloud Logging",
    "storage": "Cloud Storage",
    "artifactregistry": "Artifact Registry",
    "serviceusage": "Service Usage",
    "cloudresourcemanager": "Resource Manager",
}

_ROLES = {
    "aiplatform": "roles/aiplatform.user",
    "tpu": "roles/tpu.admin",
    "cloudbuild": "roles/cloudbuild.builds.editor",
    "logging": "roles/logging.viewer",
    "storage": "roles/storage.objectUser",
    "artifactregistry": "roles/artifactregistry.reader",
    "serviceusage": "roles/serviceusage.serviceUsageViewer",
    "cloudresourcemanager": "roles/browser",
    "iam": "roles/iam.serviceAccountUser",
}
"""The smallest predefined role with what `launch` needs, by the first word of the permission, which is the API's name
but for a few (cloud.google.com/iam/docs/roles-permissions, 2026-11)."""

_LOG_IN = "log in anew with `gcloud auth application-default login`, or renew the key that is used"


class ApiError(Exception):
    """An API refused, or did not answer.

    Attributes:
      status: of HTTP; 0 where there was no answer, or none that makes sense.
      reason: Google's word, such as "PERMISSION_DENIED", or `MALFORMED`, or "".
      message: what it said.
      request: which request.
      details: of types of google.rpc, such as ErrorInfo; () where there are none.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        request: ApiRequest,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        said = f"answers {status} {reason}".rstrip() if status else "does not answer as it should"
        super().__init__(f"{request.api} {said}: {_on_one_line(message)}")
        self.status = status
        self.reason = reason
        self.message = message
        self.request = request
        self.details = details

    @property
    def passes(self) -> bool:
        """Whether the same request may fare better a little later."""
        return self.status == 0 or self.status in RETRIED

    @property
    def info(self) -> tuple[str, Mapping[str, Any]]:
        """Reason and facts of its ErrorInfo, such as "SERVICE_DISABLED" (google/api/error_reason.proto, 2026-11)."""
        for detail in self.details:
            facts = detail.get("metadata", {})
            if str(detail.get("@type", "")).endswith("/google.rpc.ErrorInfo") and isinstance(facts, Mapping):
                return str(detail.get("reason", "")), facts
        return "", {}


def refusal(answer: Any, request: ApiRequest) -> ApiError:
    """What an answer that is none says.

    Args:
      answer: of `requests`, of a status from 300 on.
      request: that it answers.
    """
    try:
        error = answer.json()["error"]
        said = str(error.get("status", "")), str(error.get("message", ""))
        details = error.get("details", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(answer.status_code, "", str(answer.reason or "no reason given"), request)
    known = [detail for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
    return ApiError(answer.status_code, *said, request, known)


def connection_failure(error: BaseException, request: ApiRequest) -> ApiError:
    """What is said where there was no answer: the innermost of the errors that libraries wrap in each other."""
    inner = error
    while causes := [cause for cause in (getattr(inner, "reason", None), *reversed(inner.args)) if _is_error(cause)]:
        inner = causes[0]
    # urllib3 puts the connection first: "HTTPSConnection(host='...', port=443): ".
    return ApiError(0, "", re.sub(r"^\w+\(host=.*?\): ", "", first_line(inner)), request)


@contextlib.contextmanager
def user_errors(doing: str) -> Iterator[None]:
    """Turns what an API refuses inside into what a person can do about it.

    Args:
      doing: what is not done then, such as "The job cannot be submitted"; "": the service's name stands there.

    Raises:
      UserError: in the place of an ApiError.
    """
    try:
        yield
    except ApiError as error:
        raise UserError(sentence(error, doing)) from error


def sentence(error: ApiError, doing: str = "") -> str:
    """What a person should read of an error.

    Args:
      error: of an API.
      doing: as of `user_errors`.
    """
    return f"{doing or title(error.request)}: {_explained(error)}."


def title(request: ApiRequest) -> str:
    """The name that people know an API by."""
    return _TITLES.get(request.api, request.api)


def _explained(error: ApiError) -> str:
    said = _on_one_line(error.message).rstrip(".")
    name = title(error.request)
    if error.reason == MALFORMED:
        return f"what answers in the place of {name} is something else ({said}): see whether a proxy or a login page is"
    if error.status == 0:
        return f"{name} cannot be reached ({said}): see to the network, and to https_proxy if a proxy leads there"
    if error.status == 401:
        return f"{name} does not accept the Google credentials ({said}): {_LOG_IN}"
    if error.status == 403:
        return _forbidden(error, said)
    if error.status == 404:
        return f"{name} does not find it ({said}): see to the project, the location and the name"
    if error.status == 409:
        return f"{name} has one already ({said}): take another name"
    if error.status == 429:
        page = _console("iam-admin/quotas", _project(error))
        return f"{name} has no quota left for it ({said}): wait, take another location, or ask for more at {page}"
    if error.status < 400:
        return f"{name} is said to be elsewhere ({error.status}), where credentials are not sent: see to its endpoint"
    if error.status < 500:
        return f"{name} refuses it ({said}): change what it names"
    return f"{name} fails ({error.status}: {said}): try again later; https://status.cloud.google.com tells of outages"


def _forbidden(error: ApiError, said: str) -> str:
    """Why something may not be done: the API is off, nobody pays, or a permission is missing."""
    reason, facts = error.info
    service = str(facts.get("service", ""))
    if not re.fullmatch(r"[a-z0-9-]+\.googleapis\.com", service):  # It stands in a command that people copy.
        service = f"{error.request.api}.googleapis.com"
    project = _project(error)
    where = f"project {project}" if project else "the project"
    if reason == "SERVICE_DISABLED" or "or it is disabled" in said:
        option = f" --project={project}" if project else ""
        return f"the API {service} is not enabled in {where}: `gcloud services enable {service}{option}` enables it"
    if reason == "BILLING_DISABLED":
        page = _console("billing/linkedaccount", project)
        return f"{where} has no billing account ({said}): link one at {page}"
    permission = _permission(str(facts.get("permission", "")), said)
    role = _ROLES.get(permission.partition(".")[0]) or _ROLES.get(error.request.api)
    missing = f"the permission {permission} is missing" if permission else f"that is not permitted ({said})"
    if not (role and project):
        return f"{missing}: ask for a role that has it{f', such as {role}' if role else ''}"
    command = f"gcloud projects add-iam-policy-binding {project} --member=user:YOU --role={role}"
    return f"{missing}: whoever owns {where} gives it with `{command}`"


def _permission(named: str, said: str) -> str:
    """The permission that is missing, such as "aiplatform.customJobs.create"; "" where none is named."""
    form = r"[a-z]+(?:\.[A-Za-z]+){2}"
    if re.fullmatch(form, named):
        return named
    match = re.search(rf"[Pp]ermission '?({form})\b|\bdoes not have ({form}) access", said)
    return (match[1] or match[2]) if match else ""


def _project(error: ApiError) -> str:
    """The project that a request is about, or ""."""
    match = re.search(r"(?:^|/)projects/([a-z0-9:.-]+?)(?=[/:]|$)", error.request.path)
    return match[1] if match else ""


def _console(page: str, project: str) -> str:
    """The address of a page of Google's console, on a project if there is one."""
    return f"https://console.cloud.google.com/{page}{f'?project={project}' if project else ''}"


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException)


def _on_one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 3]}..."
