"""What Vertex AI and Cloud Build share: creating has no request id there, so that a job is found again by a token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from launch.google.api_errors import ApiError, sentence
from launch.google.google_api import GoogleApi
from launch.services.service import ApiRequest, JobStatus, NoSuchJobError
from trainer.errors import UserError


class ServiceOfTokens(ABC):
    """Creates, finds, gets and cancels the jobs of one collection; see `Service`.

    Attributes:
      api_name: as gcloud names the API.
      collection: of the jobs, the last word of the address that creates them.
      title: for people.
    """

    api_name: ClassVar[str]
    collection: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, api: GoogleApi) -> None:
        """Asks nothing yet.

        Args:
          api: the way to Google's APIs.
        """
        self._api = api

    def create(self, request: ApiRequest, submission: str) -> JobStatus:
        """See `Service`. A lost answer is looked up by the submission's token."""
        parent = request.path.removesuffix(f"/{self.collection}")
        return self._created(self._api.create_once(request, lambda: self._first(parent, submission)))

    def find(self, project: str, location: str, submission: str) -> JobStatus | None:
        """See `Service`."""
        found = self._first(f"v1/projects/{project}/locations/{location}", submission)
        return None if found is None else self._status(found)

    def get(self, resource: str) -> JobStatus:
        """See `Service`."""
        try:
            return self._status(self._api.send(ApiRequest(self.api_name, "GET", f"v1/{resource}")))
        except ApiError as error:
            raise self._for_the_user(error, resource) from error

    def cancel(self, resource: str) -> None:
        """See `Service`.

        Raises:
          NoSuchJobError: there is none of that name.
          UserError: it may not be ended.
        """
        try:
            self._api.send(ApiRequest(self.api_name, "POST", f"v1/{resource}:cancel", body={}))
        except ApiError as error:
            if error.status != 400 or not self.get(resource).state.has_ended:
                raise self._for_the_user(error, resource) from error

    @abstractmethod
    def _of_submission(self, parent: str, submission: str) -> Iterator[dict[str, Any]]:
        """The jobs of a place that have a submission's token."""

    @abstractmethod
    def _status(self, job: Mapping[str, Any]) -> JobStatus:
        """A job of the API as a job's status."""

    def _created(self, answer: dict[str, Any]) -> JobStatus:
        """The status in the answer of a creation, or of what was found in its place."""
        return self._status(answer)

    def _first(self, parent: str, submission: str) -> dict[str, Any] | None:
        return next(self._of_submission(parent, submission), None)

    def _for_the_user(self, error: ApiError, resource: str) -> Exception:
        """A sentence, where the user can do something; the error itself otherwise."""
        if error.status == 404:
            return NoSuchJobError(f"{self.title} has no {resource}: python -m launch list shows the jobs there are.")
        if error.status == 403:
            return UserError(sentence(error, f"{resource} is not yours to use"))
        return error
