"""How much of an accelerator a project may use: which quota it is, and what the Service Usage API says of it.

The names of the quotas of Vertex AI are those of its own notebooks (GoogleCloudPlatform/vertex-ai-samples,
common_util.py) and errors; those of Cloud TPU are the names of its preemptible quotas, as others use them, without
"-preemptible" (2026-11). A name that the API does not have gives "unknown", never "ok".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.jobs.job import Target
from trainer.accelerators import Gpu, Slice

_VERTEX_METRICS = {
    "p4": "custom_model_training_nvidia_p4_gpus",
    "t4": "custom_model_training_nvidia_t4_gpus",
    "v100": "custom_model_training_nvidia_v100_gpus",
    "l4": "custom_model_training_nvidia_l4_gpus",
    "a100-40gb": "custom_model_training_nvidia_a100_gpus",
    "a100-80gb": "custom_model_training_nvidia_a100_80gb_gpus",
    "h100-80gb": "custom_model_training_nvidia_h100_gpus",
    "h200-141gb": "custom_model_training_nvidia_h200_gpus",
    "v3": "custom_model_training_tpu_v3",
    "v5e": "custom_model_training_tpu_v5e",
}
"""Of aiplatform.googleapis.com, on demand, by GPU or TPU generation."""

_TPU_METRICS = {"v4": "tpu-v4s", "v5e": "tpu-v5s-litepod", "v5p": "tpu-v5p", "v6e": "tpu-v6e"}
"""Of tpu.googleapis.com, on demand, by generation."""


@dataclass(frozen=True)
class Quota:
    """A quota, and how much of it a job takes.

    Attributes:
      service: the API's host.
      metric: its name there.
      least: what the job takes at least.
      most: what it takes at most: nobody says whether chips or cores of a TPU are counted.
    """

    service: str
    metric: str
    least: int
    most: int


def quota_of(target: Target, found: Slice | Gpu, count: int) -> Quota | None:
    """The quota that an accelerator counts against; None where it is not known.

    Args:
      target: who runs the job.
      found: the accelerator.
      count: GPUs of the job; not used for a slice.
    """
    name = found.generation.name if isinstance(found, Slice) else found.name
    least, most = (found.chips, found.tensor_cores) if isinstance(found, Slice) else (count, count)
    service, metrics = (
        ("tpu.googleapis.com", _TPU_METRICS) if target == "tpu-vm" else ("aiplatform.googleapis.com", _VERTEX_METRICS)
    )
    return Quota(service, f"{service}/{metrics[name]}", least, most) if name in metrics else None


def effective_limit(metric: Mapping[str, Any], location: str, region: str) -> int | None:
    """How much of a quota may be used in a place; None where the answer does not tell.

    Of several limits, of the zone, of the region and of the project, the least counts.

    Args:
      metric: a ConsumerQuotaMetric of Service Usage v1beta1.
      location: a region, or a zone.
      region: of it.
    """
    limits = []
    for limit in metric.get("consumerQuotaLimits", []):
        # From the least specific bucket to the most specific; a number that is 0 is left out of JSON.
        fitting = [
            bucket
            for bucket in limit.get("quotaBuckets", [])
            if all(value == {"region": region, "zone": location}.get(key) for key, value in _dimensions(bucket).items())
        ]
        if fitting:
            limits.append(int(max(fitting, key=lambda bucket: len(_dimensions(bucket))).get("effectiveLimit", 0)))
    bounded = [limit for limit in limits if limit >= 0]
    return min(bounded) if bounded else (-1 if limits else None)


def _dimensions(bucket: Mapping[str, Any]) -> Mapping[str, str]:
    found = bucket.get("dimensions")
    return found if isinstance(found, Mapping) else {}
