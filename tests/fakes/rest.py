"""What Google's REST APIs have in common: errors, bodies that are checked against Google's own classes, pages.

As documented at cloud.google.com/apis/design (errors: AIP-193, pages: AIP-158), 2026-11.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fakes.server import Answer, Request

REASONS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's word for each status of HTTP (google/rpc/code.proto, 2026-11)."""

LARGEST_PAGE = 1000

Clock = Callable[[], datetime.datetime]
"""Gives the moment, with its time zone."""


class GoogleError(Exception):
    """A refusal in the form that Google's APIs have for it."""

    def __init__(
        self, status: int, message: str, *, reason: str = "", details: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """It is answered, not printed.

        Args:
          status: of HTTP.
          message: for people.
          reason: Google's word, where it is not that of `REASONS`.
          details: of types of google.rpc, each with "@type".
        """
        super().__init__(message)
        self.status = status
        self.reason = reason or REASONS.get(status, "UNKNOWN")
        self.details = details

    def answer(self) -> Answer:
        error: dict[str, Any] = {"code": self.status, "message": str(self), "status": self.reason}
        if self.details:
            error["details"] = [dict(detail) for detail in self.details]
        return Answer(self.status, json.dumps({"error": error}).encode())


@dataclass(frozen=True)
class Route:
    """One method of an API.

    Attributes:
      method: of HTTP.
      pattern: of the whole path from the version on.
      handle: carries it out: of (request, *the pattern's groups), gives the answer's JSON.
      parameters: what may stand behind the path, beside what all methods take.
    """

    method: str
    pattern: str
    handle: Callable[..., dict[str, Any]]
    parameters: Sequence[str] = ()


PAGE_PARAMETERS = ("filter", "pageSize", "pageToken", "orderBy")

_PARAMETERS_OF_ALL = ("$alt", "alt", "prettyPrint", "key", "quotaUser")


def routed(request: Request, path: str, routes: Sequence[Route]) -> Answer:
    """Carries a request out by the first route that it fits; parameters that the method lacks are refused.

    Args:
      request: as it came.
      path: that of the API, from the version on.
      routes: of the API.
    """
    try:
        for route in routes:
            match = re.fullmatch(route.pattern, path)
            if match and route.method == request.method:
                for name in request.query:
                    if name not in (*route.parameters, *_PARAMETERS_OF_ALL):
                        message = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                        raise GoogleError(400, message)
                return Answer(200, json.dumps(route.handle(request, *match.groups())).encode())
        raise GoogleError(404, f"The fake has no {request.method} {request.path}")
    except GoogleError as error:
        return error.answer()


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that came with a request; {} if nothing came."""
    try:
        body = json.loads(request.body or b"{}")
    except ValueError as error:
        raise GoogleError(400, f"Invalid JSON payload received. {error}") from None
    if not isinstance(body, dict):
        raise GoogleError(400, "Invalid JSON payload received. It is no object.")
    return body


def checked(message_class: Any, body: Mapping[str, Any], output_only: Sequence[str] = ()) -> dict[str, Any]:
    """A body as the service will give it back; refuses fields and enum values that Google's own class lacks.

    Args:
      message_class: a proto-plus class of a google-cloud-* package.
      body: as it came.
      output_only: fields that the service alone sets. It ignores what a client puts there, which is never meant.
    """
    from google.protobuf import json_format

    for field in output_only:
        if field in body:
            raise GoogleError(400, f"The field {field} is output only")
    message = message_class.pb(message_class())
    try:
        json_format.ParseDict(body, message)
    except json_format.ParseError as error:
        raise GoogleError(400, f"Invalid JSON payload received. {error}") from None
    return json_format.MessageToDict(message)


def check_labels(labels: Mapping[str, str], longest: int) -> None:
    """Refuses labels of another form than cloud.google.com/resource-manager/docs/labels-overview has, 2026-11.

    Args:
      labels: of a resource.
      longest: characters of a key and of a value.
    """
    if len(labels) > 64:
        raise GoogleError(400, f"There are {len(labels)} labels, at most 64 are allowed")
    for key, value in labels.items():
        if not re.fullmatch(rf"[a-z][a-z0-9_-]{{0,{longest - 1}}}", key):
            raise GoogleError(400, f"Invalid label key: {key}")
        if not re.fullmatch(rf"[a-z0-9_-]{{0,{longest}}}", value):
            raise GoogleError(400, f"Invalid label value: {value}")


def stamp(moment: datetime.datetime) -> str:
    """A moment as the services write it."""
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page(
    request: Request, items: Sequence[Any], key: str, *, default_size: int = 100, largest: int = LARGEST_PAGE
) -> dict[str, Any]:
    """The page of a list that a request asks for; a token goes with the rest of the request that it was given for."""
    asked = _asked(request)
    size = int(asked.get("pageSize") or default_size)
    if size < 0:
        raise GoogleError(400, "page_size must not be negative")
    size = min(size, largest)
    start = first_of_page(request)
    found: dict[str, Any] = {key: list(items[start : start + size])} if items[start : start + size] else {}
    if start + size < len(items):
        found["nextPageToken"] = page_token(request, start + size)
    return found


def page_token(request: Request, start: int, *, number: int = 0) -> str:
    """Names the page of a list that begins with an item.

    Args:
      request: for any page of that list.
      start: the item's place in the list.
      number: makes different tokens for the same page.
    """
    return base64.urlsafe_b64encode(f"{start} {number} {_list_of(request)}".encode()).decode()


def first_of_page(request: Request) -> int:
    """The place of the first item of the page that a request asks for."""
    token = _asked(request).get("pageToken", "")
    if not token:
        return 0
    try:
        start, _, belongs = base64.urlsafe_b64decode(token).decode().split(" ", 2)
    except ValueError:
        raise GoogleError(400, "page_token is invalid") from None
    if belongs != _list_of(request):
        raise GoogleError(400, "page_token was given for another request")
    return int(start)


def _asked(request: Request) -> Mapping[str, Any]:
    """The parameters of a list method, in the query or, of a POST, in the body."""
    return body_of(request) if request.method == "POST" else request.query


def _list_of(request: Request) -> str:
    """What all pages of one list have in common."""
    asked = _asked(request)
    return json.dumps([request.path, asked.get("filter", ""), asked.get("orderBy", "")])
