"""Repositories and images as Artifact Registry knows them (v1); for reading.

As documented at cloud.google.com/artifact-registry/docs/reference/rest, 2026-11.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from fakes.rest import PAGE_PARAMETERS, GoogleError, Route, page, routed
from fakes.server import Answer, Request

_REPOSITORY = r"/v1/(projects/[^/]+/locations/[^/]+/repositories/[^/]+)"


@dataclass
class _Repository:
    """Digests by tag, by package."""

    format: str
    packages: dict[str, dict[str, str]] = field(default_factory=dict)


class ArtifactRegistryApi:
    """The service."""

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}

    def add_repository(self, project: str, location: str, name: str, kind: str = "DOCKER") -> None:
        """Makes an empty repository of a format, if it is not there."""
        full = f"projects/{project}/locations/{location}/repositories/{name}"
        self._repositories.setdefault(full, _Repository(kind))

    def push(self, image: str) -> str:
        """Adds an image, such as "us-central1-docker.pkg.dev/P/REPOSITORY/NAME:TAG"; gives its digest."""
        match = re.fullmatch(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/([^:@]+):([\w.-]+)", image)
        assert match, f"{image} is no image of Artifact Registry with a tag"
        location, project, repository, package, tag = match.groups()
        self.add_repository(project, location, repository)
        full = f"projects/{project}/locations/{location}/repositories/{repository}"
        digest = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
        self._repositories[full].packages.setdefault(package, {})[tag] = digest
        return digest

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request; `path` is this API's own, from the version on."""
        routes = (
            Route("GET", _REPOSITORY, self._get_repository),
            Route("GET", rf"{_REPOSITORY}/packages/([^/]+)/tags/([^/]+)", self._get_tag),
            Route("GET", rf"{_REPOSITORY}/packages/([^/]+)/tags", self._list_tags, PAGE_PARAMETERS),
            Route("GET", rf"{_REPOSITORY}/packages/([^/]+)/versions/([^/]+)", self._get_version),
            Route("GET", rf"{_REPOSITORY}/packages/([^/]+)", self._get_package),
        )
        return routed(request, path, routes)

    def _get_repository(self, _: Request, name: str) -> dict[str, Any]:
        return {"name": name, "format": self._repository(name).format, "mode": "STANDARD_REPOSITORY"}

    def _get_package(self, _: Request, repository: str, package: str) -> dict[str, Any]:
        self._tags(repository, package)
        return {"name": f"{repository}/packages/{package}", "displayName": unquote(package)}

    def _get_tag(self, _: Request, repository: str, package: str, tag: str) -> dict[str, Any]:
        tags = self._tags(repository, package)
        if unquote(tag) not in tags:
            raise GoogleError(404, "Requested entity was not found.")
        return _tag(repository, package, unquote(tag), tags[unquote(tag)])

    def _list_tags(self, request: Request, repository: str, package: str) -> dict[str, Any]:
        tags = self._tags(repository, package)
        return page(request, [_tag(repository, package, tag, digest) for tag, digest in tags.items()], "tags")

    def _get_version(self, _: Request, repository: str, package: str, version: str) -> dict[str, Any]:
        if unquote(version) not in self._tags(repository, package).values():
            raise GoogleError(404, "Requested entity was not found.")
        return {"name": f"{repository}/packages/{package}/versions/{unquote(version)}"}

    def _repository(self, name: str) -> _Repository:
        if name not in self._repositories:
            raise GoogleError(404, "Requested entity was not found.")
        return self._repositories[name]

    def _tags(self, repository: str, package: str) -> dict[str, str]:
        packages = self._repository(repository).packages
        if unquote(package) not in packages:
            raise GoogleError(404, "Requested entity was not found.")
        return packages[unquote(package)]


def _tag(repository: str, package: str, tag: str, digest: str) -> dict[str, Any]:
    place = f"{repository}/packages/{quote(unquote(package), safe='')}"
    return {"name": f"{place}/tags/{tag}", "version": f"{place}/versions/{digest}"}
