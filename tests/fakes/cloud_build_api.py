"""Builds as Cloud Build keeps them (v1), strict about what it takes.

Rules are those of these pages of cloud.google.com/build/docs, 2026-11: build-config-file-schema,
configuring-builds/substitute-variable-values and securing-builds/configure-user-specified-service-accounts.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fakes.filters import predicate
from fakes.rest import PAGE_PARAMETERS, Clock, GoogleError, Route, body_of, checked, page, routed, stamp
from fakes.server import Answer, Request

ENDED = ("SUCCESS", "FAILURE", "INTERNAL_ERROR", "TIMEOUT", "CANCELLED", "EXPIRED")

SUCCEEDING = ("WORKING", "SUCCESS")
"""What a build goes through after QUEUED if nobody says otherwise: one step whenever it is looked at."""

LONGEST_TIMEOUT_SECONDS = 24 * 3600

BUILT_IN = frozenset(
    {
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "LOCATION",
        "BUILD_ID",
        "REPO_NAME",
        "REPO_FULL_NAME",
        "BRANCH_NAME",
        "TAG_NAME",
        "REF_NAME",
        "REVISION_ID",
        "COMMIT_SHA",
        "SHORT_SHA",
        "TRIGGER_NAME",
        "TRIGGER_BUILD_CONFIG_PATH",
        "SERVICE_ACCOUNT_EMAIL",
        "SERVICE_ACCOUNT",
    }
)
"""Substitutions that every build has."""

_OUTPUT_ONLY = ("name", "id", "projectId", "status", "statusDetail", "createTime", "startTime", "finishTime", "results")
_LOGGED_ELSEWHERE = ("CLOUD_LOGGING_ONLY", "NONE")
_PARENT = r"/v1/projects/([^/]+)(?:/locations/([^/]+))?/builds"


class Build:
    """One build.

    Attributes:
      resource: as the API gives it.
      script: the states it goes through yet, one whenever somebody gets it; None where something else moves it.
    """

    def __init__(self, resource: dict[str, Any], script: list[str] | None, lock: threading.RLock, clock: Clock) -> None:
        self.resource = resource
        self.script = script
        self._lock = lock
        self._clock = clock

    @property
    def name(self) -> str:
        """Such as "projects/P/locations/R/builds/UUID"."""
        return str(self.resource["name"])

    @property
    def status(self) -> str:
        """Such as "WORKING"."""
        return str(self.resource["status"])

    def set_status(self, status: str, detail: str = "") -> None:
        """Moves it, from whatever thread, and notes when.

        Args:
          status: of Google's class.
          detail: what the service says of it.
        """
        with self._lock:
            now = stamp(self._clock())
            self.resource["status"] = status
            if status == "WORKING":
                self.resource.setdefault("startTime", now)
            if status in ENDED:
                self.resource["finishTime"] = now
            if detail:
                self.resource["statusDetail"] = detail
            if status == "FAILURE":
                self.resource["failureInfo"] = {"type": "USER_BUILD_STEP", "detail": detail}

    def step(self) -> None:
        """Takes the next step of its script."""
        if self.script:
            status = self.script.pop(0)
            self.set_status(status, "Build step failure: step exited with non-zero status: 1" * (status == "FAILURE"))

    @property
    def operation(self) -> dict[str, Any]:
        """The long-running operation that stands for it."""
        kind = "type.googleapis.com/google.devtools.cloudbuild.v1"
        name = f"operations/build/{self.resource['projectId']}/{self.resource['id']}"
        told = {"name": name, "metadata": {"@type": f"{kind}.BuildOperationMetadata", "build": self.resource}}
        if self.status not in ENDED:
            return told
        return {**told, "done": True, "response": {"@type": f"{kind}.Build", **self.resource}}


class CloudBuildApi:
    """The service.

    Attributes:
      builds: by their ids, the oldest first.
      script: that of the next builds.
      on_create: is given each build that is made while its maker still waits for the answer; what it is moved by then
        is the callback's business, and the build has no script.
    """

    def __init__(self, lock: threading.RLock, clock: Clock) -> None:
        self.builds: dict[str, Build] = {}
        self.script: tuple[str, ...] = SUCCEEDING
        self.on_create: Callable[[Build], None] | None = None
        self._lock = lock
        self._clock = clock

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is this API's own, from the version on."""
        operation = r"/v1/(?:projects/[^/]+/locations/[^/]+/)?operations/build/([^/]+)/([^/]+)"
        routes = (
            Route("POST", _PARENT, self._create, ("parent",)),
            Route("GET", _PARENT, self._list, (*PAGE_PARAMETERS, "parent")),
            Route("GET", rf"{_PARENT}/([0-9a-f-]+)", self._get),
            Route("POST", rf"{_PARENT}/([0-9a-f-]+):cancel", self._cancel),
            Route("GET", operation, self._get_operation),
        )
        return routed(request, path, routes)

    def _create(self, request: Request, project: str, location: str | None) -> dict[str, Any]:
        from google.cloud.devtools.cloudbuild_v1.types import Build as Schema

        body = checked(Schema, body_of(request), _OUTPUT_ONLY)
        check_build(body)
        number = str(uuid.uuid4())
        where = _where(request, project, location)
        made = {
            "name": f"{where}/builds/{number}",
            "id": number,
            "projectId": project,
            "status": "QUEUED",
            "createTime": stamp(self._clock()),
            "logUrl": f"https://console.cloud.google.com/cloud-build/builds/{number}?project={project}",
        }
        build = Build({**body, **made}, None if self.on_create else list(self.script), self._lock, self._clock)
        self.builds[number] = build
        begun = {**build.operation, "metadata": {**build.operation["metadata"], "build": dict(build.resource)}}
        if self.on_create:
            self.on_create(build)
        return begun

    def _list(self, request: Request, project: str, location: str | None) -> dict[str, Any]:
        fits = predicate(request.query.get("filter", ""))
        where = _where(request, project, location)
        there = [build.resource for build in reversed(self.builds.values()) if build.name.startswith(f"{where}/")]
        return page(request, [resource for resource in there if fits(resource)], "builds")

    def _get(self, _: Request, project: str, location: str | None, number: str) -> dict[str, Any]:
        build = self._build(project, location, number)
        build.step()
        return build.resource

    def _cancel(self, _: Request, project: str, location: str | None, number: str) -> dict[str, Any]:
        build = self._build(project, location, number)
        if build.status in ENDED:
            raise GoogleError(400, f"build is already done: {build.status}", reason="FAILED_PRECONDITION")
        build.script = []
        build.set_status("CANCELLED")
        return build.resource

    def _get_operation(self, _: Request, project: str, number: str) -> dict[str, Any]:
        if number not in self.builds or self.builds[number].resource["projectId"] != project:
            raise GoogleError(404, "Requested entity was not found.")
        self.builds[number].step()
        return self.builds[number].operation

    def _build(self, project: str, location: str | None, number: str) -> Build:
        name = f"projects/{project}/locations/{location or 'global'}/builds/{number}"
        if number not in self.builds or self.builds[number].name != name:
            raise GoogleError(404, "Requested entity was not found.")
        return self.builds[number]


def _where(request: Request, project: str, location: str | None) -> str:
    """The place that a request is about: that of its path, or its parameter "parent", which Google's client gives."""
    place = f"projects/{project}/locations/{location or 'global'}"
    parent = request.query.get("parent", place)
    if not re.fullmatch(rf"projects/{re.escape(project)}/locations/{location or '[a-z0-9-]+'}", parent):
        raise GoogleError(400, f"parent {parent} is not of {place}")
    return parent


def check_build(body: Mapping[str, Any]) -> None:
    """Refuses what fits Google's class and is no build all the same."""
    steps = body.get("steps", [])
    if not steps:
        raise GoogleError(400, "build must have at least one step")
    for number, step in enumerate(steps):
        if not step.get("name"):
            raise GoogleError(400, f"build step {number} must specify name")
        earlier = [other["id"] for other in steps[:number] if "id" in other]
        if step.get("id") in earlier:
            raise GoogleError(400, f"build step {number} has id {step['id']!r}, which an earlier step has too")
        for awaited in step.get("waitFor", []):
            if awaited not in (*earlier, "-"):
                raise GoogleError(400, f"build step {number} waits for {awaited!r}, which is no earlier step")
    _check_times(body, steps)
    _check_substitutions(body)
    for tag in body.get("tags", []):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag):
            raise GoogleError(400, f"invalid build tag {tag!r}")
    account = body.get("serviceAccount", "")
    if account and not re.fullmatch(r"projects/[^/]+/serviceAccounts/[^/]+", account):
        raise GoogleError(400, f"invalid service account {account!r}")
    options = body.get("options", {})
    own_logs = "logsBucket" in body or options.get("defaultLogsBucketBehavior") == "REGIONAL_USER_OWNED_BUCKET"
    if account and not own_logs and options.get("logging") not in _LOGGED_ELSEWHERE:
        message = "if 'build.service_account' is specified, the build must say where its logs go"
        raise GoogleError(400, message)


def _check_times(body: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> None:
    whole = _seconds(body.get("timeout", "3600s"))
    if not 0 < whole <= LONGEST_TIMEOUT_SECONDS:
        raise GoogleError(400, f"build timeout {whole:g}s must be more than 0 and at most {LONGEST_TIMEOUT_SECONDS}s")
    for number, step in enumerate(steps):
        if "timeout" in step and _seconds(step["timeout"]) > whole:
            raise GoogleError(400, f"build step {number} timeout {step['timeout']} must be <= build timeout {whole:g}s")


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _check_substitutions(body: Mapping[str, Any]) -> None:
    given = body.get("substitutions", {})
    for key in given:
        if not re.fullmatch(r"_[A-Z0-9_]{1,99}", key) and key not in BUILT_IN:
            raise GoogleError(400, f"substitution key {key!r} does not respect format _[A-Z0-9_]+")
    texts = list(_texts({key: value for key, value in body.items() if key != "substitutions"}))
    used = {name for text in texts for name in _names(text)}
    if body.get("options", {}).get("dynamicSubstitutions"):
        used |= {name for value in given.values() for name in _names(value)}
    if body.get("options", {}).get("substitutionOption") == "ALLOW_LOOSE":
        return
    for name in sorted(used - set(given) - BUILT_IN):
        raise GoogleError(400, f"key in the template {name!r} is not a valid built-in substitution")
    for name in sorted(key for key in set(given) - used if key.startswith("_")):
        raise GoogleError(400, f"key {name!r} in the substitution data is not matched in the template")


def _names(text: str) -> set[str]:
    """The substitutions that a text uses; "$$" stands for a dollar."""
    found = re.findall(r"\$(?:\{([A-Z_][A-Z0-9_]*)|([A-Z_][A-Z0-9_]*))", text.replace("$$", ""))
    return {name for pair in found for name in pair if name}


def _texts(value: Any) -> list[str]:
    """All texts in which substitutions are replaced; scripts are left as they are
    (cloud.google.com/build/docs/configuring-builds/run-bash-scripts, 2026-11)."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = [part for name, part in value.items() if name != "script"]
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []
