"""Stores a packaged working tree where Cloud Build takes it from; the same tree once."""

from __future__ import annotations

from launch.google.api_errors import ApiError
from launch.google.google_api import GoogleApi
from launch.packaging.working_tree import Package
from launch.services.build_request import StoredSource
from launch.services.service import ApiRequest

_FOLDER = "hub-trainer/sources"
"""Where packages are in a bucket."""

_CONTENT_TYPE = "application/gzip"

_STORED_ALREADY = 412
"""HTTP's "precondition failed": an object of that name is there, and so of that content."""


def stored_source(package: Package, bucket: str) -> StoredSource:
    """Where a package belongs; its name is its content's hash.

    Args:
      package: of the working tree.
      bucket: of Cloud Storage, where the build's service account may read.
    """
    return StoredSource(bucket, f"{_FOLDER}/{package.sha256}.tar.gz")


def store(api: GoogleApi, package: Package, source: StoredSource) -> None:
    """Stores a package, unless it is there.

    Args:
      api: the way to Google's APIs.
      package: of the working tree.
      source: where it belongs.

    Raises:
      ApiError: it was refused, or all attempts failed.
    """
    query = {"uploadType": "media", "name": source.name, "ifGenerationMatch": "0"}
    request = ApiRequest("storage", "POST", f"upload/storage/v1/b/{source.bucket}/o", query)
    try:
        api.upload(request, package.content, _CONTENT_TYPE)
    except ApiError as error:
        if error.status != _STORED_ALREADY:
            raise
