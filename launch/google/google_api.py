"""One authorised way to Google's REST APIs: retries, pages, and creation that happens once.

Credentials are those of Google's own libraries (`gcloud auth application-default login`, a service account's key, the
machine's own). Where an API is asked, `launch.google.endpoints` says; what is raised, `launch.google.api_errors`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from launch.google.api_errors import MALFORMED, ApiError, connection_failure, refusal
from launch.google.endpoints import endpoint
from launch.services.service import ApiRequest
from trainer.errors import UserError
from trainer.wording import first_line

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

ATTEMPTS = 6
"""How often a request is sent at most."""

_REQUEST_SECONDS = (10.0, 60.0)
"""What connecting and each part of an answer may take."""

_LONGEST_PAUSE = 20.0

Answered = TypeVar("Answered")


class Session(Protocol):
    """The part of `requests.Session` that is used."""

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Sends one request."""


class GoogleApi:
    """Asks Google's APIs."""

    def __init__(
        self,
        session: Session,
        environment: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Sends nothing yet.

        Args:
          session: authorises what it sends; `authorized_session` gives one.
          environment: may name other endpoints; see `launch.google.endpoints`.
          sleep: pauses between attempts.
          jitter: gives numbers in [0, 1), by which pauses differ.
        """
        self._session = session
        self._environment = environment
        self._sleep = sleep
        self._jitter = jitter

    @property
    def account(self) -> str:
        """The service account that asks; "" for a person, whose credentials do not tell."""
        credentials = getattr(self._session, "credentials", None)
        return str(getattr(credentials, "service_account_email", "") or "")

    def send(self, request: ApiRequest, *, attempts: int = ATTEMPTS) -> dict[str, Any]:
        """Sends a request, again if need be, and gives the answer's JSON.

        Args:
          request: one that does no harm when it is carried out twice, unless `attempts` is 1.
          attempts: how often at most.

        Raises:
          ApiError: it was refused, or all attempts failed.
        """
        return self._retried(lambda: self._send_once(request), attempts)

    def download(self, request: ApiRequest) -> bytes:
        """What is stored, such as the content of an object (`alt=media`).

        Args:
          request: a GET.

        Raises:
          ApiError: as `send`.
        """
        return self._retried(lambda: bytes(self._answer(request).content), ATTEMPTS)

    def upload(self, request: ApiRequest, content: bytes, content_type: str) -> dict[str, Any]:
        """Stores something (`uploadType=media`), again if an answer is lost, and gives the answer's JSON.

        Args:
          request: a POST without a body. With a precondition such as ifGenerationMatch, a second attempt after a lost
            answer is refused with 412.
          content: what is stored.
          content_type: of it, such as "application/gzip".

        Raises:
          ApiError: as `send`.
        """
        return self._retried(lambda: _parsed(self._answer(request, content, content_type), request), ATTEMPTS)

    def pages(self, request: ApiRequest, key: str) -> Iterator[dict[str, Any]]:
        """The elements of a list that comes in pages, each page when it is asked for.

        Args:
          request: of the first page; a POST asks for the others in its body.
          key: of the elements in an answer.

        Raises:
          ApiError: as `send`; also where an answer is no page, or names one that was there before as the next.
        """
        seen = {""}
        token = ""
        while True:
            answer = self.send(_of_page(request, token))
            elements = answer.get(key, [])
            token = answer.get("nextPageToken", "")
            is_list = isinstance(elements, list) and all(isinstance(element, dict) for element in elements)
            if not is_list or not isinstance(token, str):
                raise ApiError(0, MALFORMED, f"its answer is no page of {key}", request)
            yield from elements
            if not token:
                return
            if token in seen:
                raise ApiError(0, MALFORMED, f"its list of {key} goes round in circles", request)
            seen.add(token)

    def create_once(self, request: ApiRequest, find: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """Creates something, exactly once, though answers get lost.

        Args:
          request: creates it.
          find: looks up what that request would have made, by something that no other request has.

        Returns:
          What the API says of it, or what `find` found.

        Raises:
          ApiError: it was refused; or all attempts failed, and `find` found nothing after the last.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send_once(request)
            except ApiError as error:
                if not error.passes and error.reason != "ALREADY_EXISTS":
                    raise
                self._sleep(self._pause(attempt))
                found = find()
                if found is not None:
                    return found
                if attempt == ATTEMPTS or not error.passes:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _retried(self, once: Callable[[], Answered], attempts: int) -> Answered:
        """What `once` gives, called again if need be."""
        for attempt in range(1, attempts + 1):
            try:
                return once()
            except ApiError as error:
                if not error.passes or attempt == attempts:
                    raise
                self._sleep(self._pause(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _send_once(self, request: ApiRequest) -> dict[str, Any]:
        return _parsed(self._answer(request), request)

    def _answer(self, request: ApiRequest, content: bytes | None = None, content_type: str = "") -> Any:
        """The answer of one attempt, whole.

        Args:
          request: what is sent.
          content: goes in the place of a body.
          content_type: of the content.
        """
        from google.auth import exceptions as auth_errors
        from requests import exceptions as request_errors

        try:
            answer = self._session.request(
                request.method,
                endpoint(request, self._environment),
                params=dict(request.query),
                json=None if request.body is None else dict(request.body),
                data=content,
                headers={} if content is None else {"Content-Type": content_type},
                timeout=_REQUEST_SECONDS,
                allow_redirects=False,
            )
        except (request_errors.RequestException, auth_errors.TransportError, OSError) as error:
            raise connection_failure(error, request) from error
        except auth_errors.GoogleAuthError as error:
            if error.retryable:
                raise connection_failure(error, request) from error
            raise ApiError(401, "UNAUTHENTICATED", first_line(error), request) from error
        if answer.status_code >= 300:
            raise refusal(answer, request)
        return answer

    def _pause(self, attempt: int) -> float:
        """Seconds: about 1, 2, 4, ..., each shorter by up to a half, so that many clients do not come back together."""
        return min(2.0 ** (attempt - 1), _LONGEST_PAUSE) * (1 - self._jitter() / 2)


def authorized_session(environment: Mapping[str, str]) -> Session:
    """A session with the credentials of this machine.

    Args:
      environment: of this process, which Google's library reads by itself; named in what is said of a failure.

    Raises:
      UserError: there are none, or they cannot be used.
    """
    import google.auth
    from google.auth import exceptions as auth_errors
    from google.auth.transport.requests import AuthorizedSession

    key = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    way_out = "run `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS name a key's file"
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
    except auth_errors.DefaultCredentialsError:
        what = f"GOOGLE_APPLICATION_CREDENTIALS={key} cannot be used" if key else "There are no Google credentials here"
        raise UserError(f"{what}: {way_out}.") from None
    return AuthorizedSession(credentials, max_refresh_attempts=1)


def _parsed(answer: Any, request: ApiRequest) -> dict[str, Any]:
    """The JSON object of an answer; {} for an answer without content."""
    if not answer.content:
        return {}
    try:
        parsed = answer.json()
    except ValueError as error:
        raise ApiError(0, MALFORMED, "its answer is no JSON", request) from error
    if not isinstance(parsed, dict):
        raise ApiError(0, MALFORMED, "its answer is no JSON object", request)
    return parsed


def _of_page(request: ApiRequest, token: str) -> ApiRequest:
    if not token:
        return request
    if request.method == "POST":
        return replace(request, body={**(request.body or {}), "pageToken": token})
    return replace(request, query={**request.query, "pageToken": token})
