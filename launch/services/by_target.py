"""Which service runs what: by the target that a user names, or by a job's full name. Each is imported when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.records.records import RESOURCE_PATTERN, RecordTarget
from launch.services.service import Service

if TYPE_CHECKING:
    from launch.google.google_api import GoogleApi

_TARGETS: dict[str, RecordTarget] = {"customJobs": "vertex", "queuedResources": "tpu-vm", "builds": "cloud-build"}
"""Who runs the jobs of a collection."""


def service_of(target: RecordTarget, api: GoogleApi) -> Service:
    """The service that runs a target's jobs.

    Args:
      target: who runs them.
      api: the way there.
    """
    if target == "vertex":
        from launch.services.vertex import VertexService

        return VertexService(api)
    if target == "tpu-vm":
        from launch.services.tpu_vm import TpuVmService

        return TpuVmService(api)
    from launch.services.cloud_build import CloudBuildService

    return CloudBuildService(api)


def target_of(resource: str) -> RecordTarget | None:
    """Who runs the job of that full name; None where it is the name of no job."""
    parts = RESOURCE_PATTERN.fullmatch(resource)
    return _TARGETS.get(parts["collection"]) if parts else None
