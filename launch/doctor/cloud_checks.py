"""What `launch doctor` asks Google: credentials, project, APIs, bucket, image, quota. Each check changes nothing.

Each function asks a `GoogleApi` and gives a `Check`; an answer that says nothing about the question gives "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from launch.doctor.checks import Check
from launch.doctor.quotas import effective_limit, quota_of
from launch.google.google_api import ApiError, GoogleApi
from launch.jobs.catalog import region_of
from launch.jobs.job import Target
from launch.services.service import ApiRequest
from trainer.accelerators import Gpu, Slice
from trainer.wording import first_line

APIS = ("aiplatform", "tpu", "cloudbuild", "artifactregistry", "storage", "logging")
"""What `launch` asks Google for, as gcloud names the APIs."""

LOGIN = "gcloud auth application-default login"

_ATTEMPTS = 2

_OBJECT_PERMISSIONS = (
    "storage.objects.create",
    "storage.objects.get",
    "storage.objects.list",
    "storage.objects.delete",
)
"""What a run does in its folder."""

_IMAGE = re.compile(
    r"(?P<place>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<name>[^:@]+)"
    r"(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def credentials_check(session: Any) -> Check:
    """Whether the credentials are accepted.

    Args:
      session: as `launch.google.google_api.authorized_session` gives it.
    """
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    title = "credentials"
    try:
        session.credentials.refresh(Request())
    except exceptions.RefreshError as error:
        return Check(title, "problem", f"they are not accepted: {_plain(first_line(error))}", LOGIN)
    except exceptions.TransportError:
        return Check(title, "unknown", "Google does not answer from here.")
    account = getattr(session.credentials, "service_account_email", "")
    return Check(title, "ok", f"those of {account}." if account else "accepted.")


def project_check(api: GoogleApi, project: str) -> Check:
    """Whether there is a project that may be seen."""
    title = "project"
    try:
        answer = api.send(ApiRequest("cloudresourcemanager", "GET", f"v1/projects/{project}"), attempts=_ATTEMPTS)
    except ApiError as error:
        if error.status in (403, 404) and not _is_disabled(error):
            return Check(title, "problem", f"{project} is not there, or may not be seen.", "gcloud projects list")
        return _refused(title, error, project)
    state = answer.get("lifecycleState")
    if state != "ACTIVE":
        return Check(title, "problem", f"{project} is {state}.", f"gcloud projects undelete {project}")
    return Check(title, "ok", f"{project}.")


def apis_check(api: GoogleApi, project: str) -> Check:
    """Whether the APIs are enabled."""
    title = "APIs"
    hosts = [f"{name}.googleapis.com" for name in APIS]
    names = tuple(f"projects/{project}/services/{host}" for host in hosts)
    try:
        answer = api.send(
            ApiRequest("serviceusage", "GET", f"v1/projects/{project}/services:batchGet", {"names": names}),
            attempts=_ATTEMPTS,
        )
    except ApiError as error:
        return _refused(title, error, project)
    enabled = {entry["config"]["name"] for entry in answer.get("services", []) if entry.get("state") == "ENABLED"}
    missing = [host for host in hosts if host not in enabled]
    if missing:
        enable = f"gcloud services enable {' '.join(missing)} --project={project}"
        return Check(title, "problem", f"not enabled: {_names(missing)}.", enable)
    return Check(title, "ok", f"{_names(hosts)} are enabled.")


def bucket_checks(api: GoogleApi, run_dir: str, region: str, project: str) -> list[Check]:
    """Whether the bucket of a run directory is there, may be written to, and is where the job is.

    Args:
      api: the way to Cloud Storage.
      run_dir: "gs://BUCKET/FOLDER".
      region: of the job; "": not known.
      project: for the commands that mend it.
    """
    bucket = run_dir.removeprefix("gs://").partition("/")[0]
    place = region or "REGION"
    try:
        granted = api.send(
            ApiRequest(
                "storage", "GET", f"storage/v1/b/{bucket}/iam/testPermissions", {"permissions": _OBJECT_PERMISSIONS}
            ),
            attempts=_ATTEMPTS,
        ).get("permissions", [])
    except ApiError as error:
        if error.status == 404:
            create = f"gcloud storage buckets create gs://{bucket} --location={place} --project={project}"
            return [Check("bucket", "problem", f"gs://{bucket} is not there.", create)]
        return [_refused("bucket", error, project)]
    missing = [permission for permission in _OBJECT_PERMISSIONS if permission not in granted]
    if missing:
        member = f"serviceAccount:{api.account}" if api.account else "user:EMAIL"
        grant = (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member={member} "
            "--role=roles/storage.objectAdmin"
        )
        finding = f"gs://{bucket} is there, without {', '.join(missing)} for this account."
        return [Check("bucket", "problem", finding, grant), _bucket_region_check(api, bucket, region, project)]
    return [
        Check("bucket", "ok", f"gs://{bucket} is there and may be written to."),
        _bucket_region_check(api, bucket, region, project),
    ]


def _bucket_region_check(api: GoogleApi, bucket: str, region: str, project: str) -> Check:
    title = "bucket region"
    try:
        answer = api.send(ApiRequest("storage", "GET", f"storage/v1/b/{bucket}"), attempts=_ATTEMPTS)
    except ApiError as error:
        if error.status == 403 and not _is_disabled(error):
            return Check(
                title,
                "unknown",
                "this account may not see where the bucket is (storage.buckets.get).",
                f"gcloud storage buckets describe gs://{bucket} --format='value(location)'",
            )
        return _refused(title, error, project)
    there = str(answer.get("location", "")).lower()
    if not region:
        return Check(title, "unknown", f"gs://{bucket} is in {there}; where is the job? Give --region or --zone.")
    if there == region:
        return Check(title, "ok", f"gs://{bucket} and the job are in {region}.")
    kind = answer.get("locationType")
    if kind == "dual-region" or (kind == "multi-region" and region.startswith(there)):
        return Check(
            title,
            "unknown",
            f"gs://{bucket} is in several regions, {there}; Google wants buckets of one for training on Vertex AI.",
            f"gcloud storage buckets create gs://{bucket}-{region} --location={region} --project={project}",
        )
    return Check(
        title,
        "problem",
        f"gs://{bucket} is in {there} and the job in {region}: slow, and each byte is charged for. Take another "
        "bucket, or another region.",
        f"gcloud storage buckets create gs://{bucket}-{region} --location={region} --project={project}",
    )


def image_check(api: GoogleApi, image: str, project: str) -> Check:
    """Whether a container image is in Artifact Registry.

    Args:
      api: the way to it.
      image: such as "us-central1-docker.pkg.dev/P/hub-trainer/trainer-gpu:abc".
      project: for the commands that mend it.
    """
    title = "image"
    match = _IMAGE.fullmatch(image)
    if not match:
        return Check(title, "unknown", f"{image} is not in Artifact Registry.", f"docker manifest inspect {image}")
    place = f"projects/{match['project']}/locations/{match['place']}/repositories/{match['repository']}"
    version = f"versions/{match['digest']}" if match["digest"] else f"tags/{match['tag'] or 'latest'}"
    request = ApiRequest(
        "artifactregistry", "GET", f"v1/{place}/packages/{quote(match['name'], safe='')}/{quote(version, safe='/')}"
    )
    try:
        api.send(request, attempts=_ATTEMPTS)
    except ApiError as error:
        if error.status == 404:
            listing = f"gcloud artifacts docker images list {image.partition('@')[0].rpartition('/')[0]} --include-tags"
            return Check(title, "problem", f"{image} is not there: build it, or take another tag.", listing)
        return _refused(title, error, project)
    return Check(title, "ok", f"{image} is there.")


def quota_check(api: GoogleApi, project: str, target: Target, found: Slice | Gpu, count: int, location: str) -> Check:
    """Whether a project may use as much of an accelerator as a job takes, on demand. What is in use is not counted.

    Args:
      api: the way to Service Usage.
      project: whose quota it is.
      target: who runs the job.
      found: the accelerator.
      count: GPUs of the job; not used for a slice.
      location: region or zone of the job.
    """
    title = "quota"
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
    quota = quota_of(target, found, count)
    if quota is None:
        return Check(title, "unknown", f"the quota of {found.name} is not known to doctor.", page)
    path = f"v1beta1/projects/{project}/services/{quota.service}/consumerQuotaMetrics/{quote(quota.metric, safe='')}"
    try:
        metric = api.send(ApiRequest("serviceusage", "GET", path), attempts=_ATTEMPTS)
    except ApiError as error:
        if error.status == 404:
            return Check(title, "unknown", f"this project has no {quota.metric}.", page)
        return _refused(title, error, project)
    limit = effective_limit(metric, location, region_of(location))
    name = quota.metric.partition("/")[2]
    if limit is None:
        return Check(title, "unknown", f"{name} has no limit for {location}.", page)
    if limit < 0 or limit >= quota.most:
        return Check(title, "ok", f"{name} in {location}: {'no limit' if limit < 0 else limit}.")
    if limit >= quota.least:
        return Check(
            title, "unknown", f"{name} in {location} is {limit}; whether that does, Google does not say.", page
        )
    return Check(title, "problem", f"{name} in {location} is {limit}, and {found.name} takes {quota.least}.", page)


def _refused(title: str, error: ApiError, project: str) -> Check:
    """What is said of a refusal that answers another question than the one that was asked."""
    if error.status == 401:
        return Check(title, "problem", "Google does not accept the credentials.", LOGIN)
    if _is_disabled(error):
        host = f"{error.request.api}.googleapis.com"
        enable = f"gcloud services enable {host} --project={project}"
        return Check(title, "problem", f"{host} is not enabled.", enable)
    if error.status == 403:
        return Check(title, "unknown", f"this account may not ask for it: {_plain(error.message)}")
    return Check(title, "unknown", f"{_plain(str(error))}")


def _is_disabled(error: ApiError) -> bool:
    """Whether an API says that the project has not enabled it (google.rpc.ErrorInfo: SERVICE_DISABLED)."""
    return error.status == 403 and bool(re.search(r"has not been used in project|is disabled", error.message))


def _plain(text: str) -> str:
    return f"{text.rstrip('.')}."


def _names(hosts: Iterable[str]) -> str:
    return ", ".join(host.removesuffix(".googleapis.com") for host in hosts)
