"""Requests the machines of a preempted Cloud TPU job again. Vertex AI does that by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from launch.records.records import Record, Records
from launch.services.service import JobStatus
from launch.services.tpu_request import again, resource_of

if TYPE_CHECKING:
    from launch.services.tpu_vm import TpuVmService


def requester(record: Record, records: Records, service: TpuVmService) -> Callable[[JobStatus], JobStatus | None]:
    """What `launch.records.follow.Follower` calls when the job was preempted.

    Args:
      record: of the job.
      records: keep the name of each request before it is sent, so that what was sent and not answered is known.
      service: of Cloud TPU.

    Returns:
      A function of the preempted request that gives the next one, or None when there may be no more of them. It may be
      called again where it failed.
    """
    mine = set()

    def request_again(preempted: JobStatus) -> JobStatus | None:
        latest = records.load(record.name) or record
        if latest.resource == preempted.resource:
            if len(latest.attempts) >= latest.max_requests:
                return None
            latest = latest.requested(resource_of(again(latest.request, len(latest.attempts) + 1)))
            records.save(latest)
            mine.add(latest.resource)
        if latest.resource not in mine:  # Somebody else who follows the job was faster.
            return service.get_requested(latest.resource, latest.request)
        return service.request_again(latest.request, len(latest.attempts), latest.submission)

    return request_again
