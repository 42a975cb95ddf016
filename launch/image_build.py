"""The working tree becomes an image: packaged, stored once, built by Cloud Build."""

from __future__ import annotations

from launch.build_request import Build, StoredSource, create_request
from launch.google_api import ApiError, GoogleApi
from launch.service import ApiRequest, JobStatus, Service
from launch.working_tree import Package

_FOLDER = "hub-trainer/sources"
"""Where packages are in a bucket."""

_CONTENT_TYPE = "application/gzip"

_STORED_ALREADY = 412
"""HTTP's "precondition failed": an object of that name is there, and so of that content."""


def stored_source(package: Package, bucket: str) -> StoredSource:
    """Where a package belongs; its name is its content's hash, so that the same tree is stored once.

    Args:
      package: of the working tree.
      bucket: of Cloud Storage.
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


def start_build(
    api: GoogleApi, service: Service, build: Build, package: Package, bucket: str, submission: str
) -> JobStatus:
    """Stores the package and starts the build, exactly one; does not wait for it.

    Args:
      api: the way to Google's APIs.
      service: Cloud Build.
      build: what is built.
      package: of the working tree.
      bucket: where the package is stored; the build's service account must be able to read there.
      submission: the token of this submission.

    Raises:
      ApiError: something was refused, or nobody knows whether the build was started.
      UserError: as `create_request`.
    """
    source = stored_source(package, bucket)
    request = create_request(build, source, submission)
    store(api, package, source)
    return service.create(request, submission)
