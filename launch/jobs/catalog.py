"""What Google Cloud has where: machines, what goes into them, regions and zones. Data, one line each, with source.

Sources, of Google's documentation as far as not said otherwise:

  machines   https://docs.cloud.google.com/gemini-enterprise-agent-platform/machine-learning/training/configure-compute
             (2026, before 2026-09-15; Vertex AI is called Agent Platform there). The processors and memory of a
             machine are Compute Engine's.
  regions    https://docs.cloud.google.com/vertex-ai/docs/general/locations#accelerators (2026-04-10), without what it
             says is not for training; which regions train at all also by gcloud 528.0.0.
  zones      Those for which Google lists TPU types and prices, as SkyPilot's catalog has them
             (https://github.com/skypilot-org/skypilot-catalog, catalogs/v9/gcp/vms.csv at 2c3d7ea, read 2026-11), and
             those of https://docs.cloud.google.com/tpu/docs/regions-zones. The page names fewer than there are.
  runtimes   https://docs.cloud.google.com/tpu/docs/runtimes (read 2026-11).

What changes: edit the line, and the date here.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from trainer.accelerators import Slice
from trainer.errors import UserError
from trainer.wording import either


@dataclass(frozen=True)
class Machine:
    """A machine type of Compute Engine that Vertex AI trains on.

    Attributes:
      name: such as "g2-standard-24".
      vcpus: virtual processors.
      memory_gib: of the machine, not of its GPUs.
      gpus: how many of each GPU it may have; empty where it has none.
    """

    name: str
    vcpus: int
    memory_gib: float
    gpus: Mapping[str, tuple[int, ...]] = field(hash=False)

    @property
    def always_has_gpus(self) -> bool:
        """Whether it comes only with GPUs; those of n1 are optional."""
        return bool(self.gpus) and not self.name.startswith("n1-")


_MACHINES = (
    # name, virtual processors, GiB, GPUs and how many of them
    ("n1-standard-4", 4, 15, "p4=1,2,4 t4=1,2,4 v100=1,2,4,8"),
    ("n1-standard-8", 8, 30, "p4=1,2,4 t4=1,2,4 v100=1,2,4,8"),
    ("n1-standard-16", 16, 60, "p4=1,2,4 t4=1,2,4 v100=2,4,8"),
    ("n1-standard-32", 32, 120, "p4=2,4 t4=2,4 v100=4,8"),
    ("n1-standard-64", 64, 240, "p4=4 t4=4 v100=8"),
    ("n1-standard-96", 96, 360, "p4=4 t4=4 v100=8"),
    ("n1-highmem-2", 2, 13, "p4=1,2,4 t4=1,2,4 v100=1,2,4,8"),
    ("n1-highmem-4", 4, 26, "p4=1,2,4 t4=1,2,4 v100=1,2,4,8"),
    ("n1-highmem-8", 8, 52, "p4=1,2,4 t4=1,2,4 v100=1,2,4,8"),
    ("n1-highmem-16", 16, 104, "p4=1,2,4 t4=1,2,4 v100=2,4,8"),
    ("n1-highmem-32", 32, 208, "p4=2,4 t4=2,4 v100=4,8"),
    ("n1-highmem-64", 64, 416, "p4=4 t4=4 v100=8"),
    ("n1-highmem-96", 96, 624, "p4=4 t4=4 v100=8"),
    ("n1-highcpu-16", 16, 14.4, "p4=1,2,4 t4=1,2,4 v100=2,4,8"),
    ("n1-highcpu-32", 32, 28.8, "p4=2,4 t4=2,4 v100=4,8"),
    ("n1-highcpu-64", 64, 57.6, "p4=4 t4=4 v100=8"),
    ("n1-highcpu-96", 96, 86.4, "p4=4 t4=4 v100=8"),
    ("e2-standard-4", 4, 16, ""),
    ("e2-standard-8", 8, 32, ""),
    ("e2-standard-16", 16, 64, ""),
    ("e2-standard-32", 32, 128, ""),
    ("e2-highmem-2", 2, 16, ""),
    ("e2-highmem-4", 4, 32, ""),
    ("e2-highmem-8", 8, 64, ""),
    ("e2-highmem-16", 16, 128, ""),
    ("e2-highcpu-16", 16, 16, ""),
    ("e2-highcpu-32", 32, 32, ""),
    ("n2-standard-4", 4, 16, ""),
    ("n2-standard-8", 8, 32, ""),
    ("n2-standard-16", 16, 64, ""),
    ("n2-standard-32", 32, 128, ""),
    ("n2-standard-48", 48, 192, ""),
    ("n2-standard-64", 64, 256, ""),
    ("n2-standard-80", 80, 320, ""),
    ("n2-highmem-2", 2, 16, ""),
    ("n2-highmem-4", 4, 32, ""),
    ("n2-highmem-8", 8, 64, ""),
    ("n2-highmem-16", 16, 128, ""),
    ("n2-highmem-32", 32, 256, ""),
    ("n2-highmem-48", 48, 384, ""),
    ("n2-highmem-64", 64, 512, ""),
    ("n2-highmem-80", 80, 640, ""),
    ("n2-highcpu-16", 16, 16, ""),
    ("n2-highcpu-32", 32, 32, ""),
    ("n2-highcpu-48", 48, 48, ""),
    ("n2-highcpu-64", 64, 64, ""),
    ("n2-highcpu-80", 80, 80, ""),
    ("c2-standard-4", 4, 16, ""),
    ("c2-standard-8", 8, 32, ""),
    ("c2-standard-16", 16, 64, ""),
    ("c2-standard-30", 30, 120, ""),
    ("c2-standard-60", 60, 240, ""),
    ("g2-standard-4", 4, 16, "l4=1"),
    ("g2-standard-8", 8, 32, "l4=1"),
    ("g2-standard-12", 12, 48, "l4=1"),
    ("g2-standard-16", 16, 64, "l4=1"),
    ("g2-standard-24", 24, 96, "l4=2"),
    ("g2-standard-32", 32, 128, "l4=1"),
    ("g2-standard-48", 48, 192, "l4=4"),
    ("g2-standard-96", 96, 384, "l4=8"),
    ("a2-highgpu-1g", 12, 85, "a100-40gb=1"),
    ("a2-highgpu-2g", 24, 170, "a100-40gb=2"),
    ("a2-highgpu-4g", 48, 340, "a100-40gb=4"),
    ("a2-highgpu-8g", 96, 680, "a100-40gb=8"),
    ("a2-megagpu-16g", 96, 1360, "a100-40gb=16"),
    ("a2-ultragpu-1g", 12, 170, "a100-80gb=1"),
    ("a2-ultragpu-2g", 24, 340, "a100-80gb=2"),
    ("a2-ultragpu-4g", 48, 680, "a100-80gb=4"),
    ("a2-ultragpu-8g", 96, 1360, "a100-80gb=8"),
    ("a3-highgpu-1g", 26, 234, "h100-80gb=1"),
    ("a3-highgpu-2g", 52, 468, "h100-80gb=2"),
    ("a3-highgpu-4g", 104, 936, "h100-80gb=4"),
    ("a3-highgpu-8g", 208, 1872, "h100-80gb=8"),
    ("a3-megagpu-8g", 208, 1872, "h100-mega-80gb=8"),
    ("a3-ultragpu-8g", 224, 2952, "h200-141gb=8"),
)


def _machine(name: str, vcpus: int, memory_gib: float, gpus: str) -> Machine:
    """A line of the table above."""
    counts = dict(entry.split("=") for entry in gpus.split())
    return Machine(name, vcpus, memory_gib, {gpu: tuple(map(int, text.split(","))) for gpu, text in counts.items()})


MACHINES = {line[0]: _machine(*line) for line in _MACHINES}
"""By name."""

TPU_MACHINES = {
    "cloud-tpu": ("v2-8", "v3-8"),
    "ct5lp-hightpu-1t": ("v5litepod-1",),
    "ct5lp-hightpu-4t": ("v5litepod-4",),
    "ct5lp-hightpu-8t": ("v5litepod-8",),
}
"""Vertex AI's machines for TPUs, and the slices of one host that each may be. Larger slices Vertex AI has too, but
TensorFlow needs a server on each host of theirs that only Cloud TPU lets us start; v6e it has without TensorFlow."""

LEAST_VCPUS = 4
"""Virtual processors of a machine that nobody chose. Google warns of logs that stop on smaller ones with GPUs."""

VERTEX_ACCELERATOR_TYPES = {
    "t4": "NVIDIA_TESLA_T4",
    "p4": "NVIDIA_TESLA_P4",
    "v100": "NVIDIA_TESLA_V100",
    "l4": "NVIDIA_L4",
    "a100-40gb": "NVIDIA_TESLA_A100",
    "a100-80gb": "NVIDIA_A100_80GB",
    "h100-80gb": "NVIDIA_H100_80GB",
    "h100-mega-80gb": "NVIDIA_H100_MEGA_80GB",
    "h200-141gb": "NVIDIA_H200_141GB",
    "v2-8": "TPU_V2",
    "v3-8": "TPU_V3",
}
"""AcceleratorType of Vertex AI's API v1 (google-cloud-aiplatform 2.7.0). Requests for v5e name none, but a topology."""

RETIRED = {"p100": "Google Cloud ended NVIDIA P100 on 2026-09-15; take t4 or l4"}
"""Accelerators that can be had no more, and what to do (Compute Engine's release notes, 2026-09-22). T4 and P4 end on
2027-08-01."""

VERTEX_REGIONS = {
    # region: accelerators that one can train on there; every region has machines without any
    "africa-south1": "",
    "asia-east1": "t4 v100 h100-mega-80gb v2",
    "asia-east2": "t4",
    "asia-northeast1": "t4 h100-80gb h100-mega-80gb",
    "asia-northeast2": "",
    "asia-northeast3": "t4 l4 a100-40gb h100-80gb",
    "asia-south1": "t4 l4 h100-80gb h200-141gb",
    "asia-south2": "h200-141gb",
    "asia-southeast1": "p4 t4 l4 a100-40gb a100-80gb h100-80gb h100-mega-80gb",
    "asia-southeast2": "t4",
    "australia-southeast1": "p4 t4 h100-mega-80gb",
    "australia-southeast2": "",
    "europe-central2": "t4",
    "europe-north1": "h100-mega-80gb",
    "europe-southwest1": "",
    "europe-west1": "t4 h100-80gb h100-mega-80gb h200-141gb",
    "europe-west12": "",
    "europe-west2": "t4 l4 h100-80gb",
    "europe-west3": "t4 h100-80gb h100-mega-80gb",
    "europe-west4": "p4 t4 v100 l4 a100-40gb a100-80gb h100-80gb h100-mega-80gb h200-141gb v2 v3",
    "europe-west6": "",
    "europe-west8": "",
    "europe-west9": "",
    "me-central1": "",
    "me-central2": "l4",
    "me-west1": "a100-40gb",
    "northamerica-northeast1": "p4 t4",
    "northamerica-northeast2": "l4 h100-80gb",
    "southamerica-east1": "t4",
    "southamerica-west1": "",
    "us-central1": "p4 t4 v100 l4 a100-40gb a100-80gb h100-80gb h100-mega-80gb h200-141gb v2 v3 v5e",
    "us-east1": "t4 v100 l4 a100-40gb v5e",
    "us-east4": "p4 t4 l4 a100-80gb h100-80gb h100-mega-80gb h200-141gb",
    "us-east5": "a100-80gb h100-80gb h100-mega-80gb h200-141gb",
    "us-south1": "h200-141gb",
    "us-west1": "t4 v100 l4 h100-80gb h100-mega-80gb h200-141gb v5e",
    "us-west2": "p4 t4",
    "us-west3": "a100-40gb",
    "us-west4": "t4 a100-40gb h100-80gb h100-mega-80gb v5e",
}
"""Where Vertex AI trains. TPUs by generation."""

TPU_ZONES = {
    # slice or, for all others, generation: zones
    "v2-8": "asia-east1-c europe-west4-a us-central1-b us-central1-c us-central1-f",
    "v2": "europe-west4-a us-central1-a",
    "v3-8": "europe-west4-a us-central1-a us-central1-b us-central1-f us-east1-d",
    "v3": "europe-west4-a us-east1-d",
    "v4": "us-central2-b",
    "v5e": "asia-east1-a asia-east1-b asia-east1-c asia-northeast1-b asia-southeast1-b europe-north1-a europe-north1-c "
    "europe-west1-b europe-west1-c europe-west3-c europe-west4-a europe-west4-b northamerica-northeast1-b "
    "southamerica-west1-b southamerica-west1-c us-central1-a us-east1-b us-east1-c us-east5-a us-east5-b us-east5-c "
    "us-south1-a us-south1-b us-west1-c us-west4-a us-west4-b",
    "v5p": "europe-west1-b europe-west1-d europe-west4-b us-central1-a us-east1-d us-east5-a us-east5-b us-east5-c "
    "us-south1-a us-south1-b us-south1-c",
    "v6e": "asia-east1-c asia-northeast1-b asia-south1-b asia-south1-c asia-southeast1-b europe-west4-a "
    "southamerica-east1-c southamerica-west1-a us-central1-a us-central1-b us-central1-c us-central2-b us-east1-d "
    "us-east4-a us-east4-b us-east5-a us-east5-b us-east5-c us-south1-a us-south1-ai1b us-south1-c us-west1-c",
}
"""Zones of Cloud TPU. Whether a project may use one is a matter of its quota, and of what is free there."""

_RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Software versions of TPU VMs by generation: the images without a framework, since ours brings its own."""


def runtime(slice_: Slice) -> str:
    """The software version of Cloud TPU that fits a slice, such as "v2-alpha-tpuv5-lite"."""
    return _RUNTIMES[slice_.generation.name]


def zones(slice_: Slice) -> tuple[str, ...]:
    """The zones of Cloud TPU that have a slice."""
    return tuple((TPU_ZONES.get(slice_.name) or TPU_ZONES[slice_.generation.name]).split())


def regions(accelerator: str) -> tuple[str, ...]:
    """The regions where Vertex AI trains with an accelerator.

    Args:
      accelerator: a GPU such as "l4", a TPU generation such as "v5e", or "" for machines without any.
    """
    return tuple(region for region, there in VERTEX_REGIONS.items() if not accelerator or accelerator in there.split())


def nearest(location: str, places: Sequence[str]) -> list[str]:
    """Of some regions or zones, those in a location's region; else those on its continent; else all."""
    for prefix in (region_of(location), location.partition("-")[0]):
        near = [place for place in places if place == prefix or place.startswith(f"{prefix}-")]
        if near:
            return near
    return list(places)


def region_of(location: str) -> str:
    """The region of a zone; a region is its own."""
    return location.rpartition("-")[0] if location.count("-") > 1 else location


REGIONS = frozenset(VERTEX_REGIONS) | {region_of(zone) for places in TPU_ZONES.values() for zone in places.split()}
"""All regions that this catalog names."""

ALL_ZONES = frozenset(zone for places in TPU_ZONES.values() for zone in places.split())
"""All zones that this catalog names."""


def check_known(option: str, name: str, known: Collection[str]) -> None:
    """Makes sure that a region, zone or machine is one that there is.

    Args:
      option: that gave it, such as "--region".
      name: what was given.
      known: what there is.

    Raises:
      UserError: it is not, or none was given; the nearest are named.
    """
    if name in known:
        return
    names = sorted(known)
    near = [other for other in names if name and other.startswith(name)][:3] or difflib.get_close_matches(
        name, names, 3
    )
    if near:
        raise UserError(f"{option}={name} is not known; did you mean {either(near)}?")
    problem = f"{option}={name} is not known" if name else f"{option} must be given"
    raise UserError(f"{problem}; there are {', '.join(summed_up(names))}.")


def summed_up(names: Sequence[str]) -> list[str]:
    """Names as a sentence has room for them: as they are, or many of them by what they begin with, as in "n1-*"."""
    return list(names) if len(names) <= 50 else sorted({f"{name.partition('-')[0]}-*" for name in names})
