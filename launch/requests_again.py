"""Requests the machines of a preempted Cloud TPU job again. Vertex AI does that by itself."""

from __future__ import annotations

from collections.abc import Callable

from launch.records import Record, Records
from launch.service import JobStatus, NoSuchJobError, Service
from launch.tpu_request import again, resource_of


def requester(record: Record, records: Records, service: Service) -> Callable[[JobStatus], JobStatus | None]:
    """What `launch.follow.Follower` calls when the job was preempted.

    Args:
      record: of the job, whose target is "tpu-vm".
      records: keep the name of each request before it is sent, so that what was sent and not answered is known.
      service: of Cloud TPU.

    Returns:
      A function of the preempted request that gives the next one, or None when there may be no more of them.
    """

    def request_again(preempted: JobStatus) -> JobStatus | None:
        latest = records.load(record.name) or record
        if latest.resource != preempted.resource:  # Somebody else who follows the job was faster.
            return service.get(latest.resource)
        if len(latest.attempts) >= latest.max_requests:
            return None
        request = again(latest.request, len(latest.attempts) + 1)
        records.save(latest.requested(resource_of(request)))
        return service.create(request, latest.submission)

    return request_again


def complete_last_request(record: Record, service: Service) -> None:
    """Sends the last request of a record once more if the service does not know it: whoever sent it was ended before.

    Args:
      record: of a job whose target is "tpu-vm".
      service: of Cloud TPU.
    """
    if len(record.attempts) < 2:
        return
    try:
        service.get(record.resource)
    except NoSuchJobError:
        service.create(again(record.request, len(record.attempts)), record.submission)
