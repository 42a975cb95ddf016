"""Projects and what the caller may do there, as Resource Manager tells it (v1 and v3).

As documented at cloud.google.com/resource-manager/reference/rest, 2026-11: a project that is not there and one that may
not be seen are answered alike, with 403.
"""

from __future__ import annotations

import re
from typing import Any

from fakes.credentials import PROJECT
from fakes.rest import GoogleError, Route, body_of, routed
from fakes.server import Answer, Request

FIRST_NUMBER = 100_000_000_001


class ResourceManagerApi:
    """The service.

    Attributes:
      projects: ids of those that there are; the first is that of the fake's service account.
      denied: permissions that the caller does not have, such as "aiplatform.customJobs.create".
    """

    def __init__(self) -> None:
        self.projects: list[str] = [PROJECT]
        self.denied: set[str] = set()

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is this API's own, from the version on."""
        routes = (
            Route("GET", r"/(v[13])/projects/([^/:]+)", self._get),
            Route("POST", r"/v[13]/projects/([^/:]+):testIamPermissions", self._test),
        )
        return routed(request, path, routes)

    def _get(self, _: Request, version: str, project: str) -> dict[str, Any]:
        number = str(FIRST_NUMBER + self._place(project))
        if version == "v1":
            return {"projectNumber": number, "projectId": project, "lifecycleState": "ACTIVE", "name": project}
        return {"name": f"projects/{number}", "projectId": project, "state": "ACTIVE", "displayName": project}

    def _test(self, request: Request, project: str) -> dict[str, Any]:
        self._place(project)
        body = body_of(request)
        asked = body.get("permissions", [])
        if set(body) != {"permissions"} or not 1 <= len(asked) <= 100:
            raise GoogleError(400, "permissions: there must be 1 to 100 of them, and nothing else")
        for permission in asked:
            if not re.fullmatch(r"[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+", permission):
                raise GoogleError(400, f"Permission {permission} is not valid for this resource.")
        granted = [permission for permission in asked if permission not in self.denied]
        return {"permissions": granted} if granted else {}

    def _place(self, project: str) -> int:
        if project not in self.projects:
            raise GoogleError(403, "The caller does not have permission")
        return self.projects.index(project)
