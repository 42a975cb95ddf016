"""Which service runs what: by the target that a user names, or by a job's full name. Each is imported when asked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast, get_args

from launch.records import RESOURCE_PATTERN, RecordTarget
from launch.service import Service
from trainer.errors import UserError

if TYPE_CHECKING:
    from launch.google_api import GoogleApi

_SERVICES = {
    "vertex": ("launch.vertex", "VertexService"),
    "tpu-vm": ("launch.tpu_vm", "TpuVmService"),
    "cloud-build": ("launch.cloud_build", "CloudBuildService"),
}
"""The module and class of each target's service."""

_TARGETS: dict[str, RecordTarget] = {"customJobs": "vertex", "queuedResources": "tpu-vm", "builds": "cloud-build"}
"""Who runs the jobs of a collection."""


def service_of(target: str, api: GoogleApi) -> Service:
    """The service that runs a target's jobs.

    Args:
      target: "vertex", "tpu-vm" or "cloud-build".
      api: the way to it.

    Raises:
      UserError: there is no such target.
    """
    if target not in _SERVICES:
        raise UserError(f"{target} is no target: there are {', '.join(get_args(RecordTarget))}.")
    module, name = _SERVICES[target]
    return cast(Service, getattr(importlib.import_module(module), name)(api))


def target_of(resource: str) -> RecordTarget | None:
    """Who runs the job of that full name; None where it is the name of no job."""
    parts = RESOURCE_PATTERN.fullmatch(resource)
    return _TARGETS.get(parts["collection"]) if parts else None
