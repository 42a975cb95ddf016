"""What a job costs an hour, in US dollars: from public lists, or unknown. Nothing is estimated.

Google's prices change, differ by contract, and have no list that can be read without asking its billing service. What
stands here was found in public documents, each with its date; what was not found is unknown. Edit a line when it
changes, and its date.

  Cloud TPU    On demand, as SkyPilot's catalog has it from Google's billing service
               (https://github.com/skypilot-org/skypilot-catalog, catalogs/v9/gcp/vms.csv at 2c3d7ea, read 2026-11-22),
               without what that catalog itself made up where Google lists nothing. Two of its prices, of v6e in
               asia-northeast1 and v5e in asia-southeast1, others read on https://cloud.google.com/tpu/pricing on
               2026-10-02 too.
  Vertex AI    https://cloud.google.com/products/gemini-enterprise-agent-platform/pricing, as quoted by
               https://github.com/api-evangelist/google-vertex-ai, plans/google-vertex-ai-plans-pricing.yml, 2026-10-07.
               Of accelerators, no public copy of its table was found.
  Spot         changes from day to day; none is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

from launch.jobs.catalog import region_of
from launch.jobs.job import Hardware, Provisioning, Target
from trainer.accelerators import slice_named
from trainer.wording import counted

_CHIP_HOURS = {
    # slice or, for all others, generation: dollars for an hour of one chip, by region
    "v2-8": {"us-central1": 1.125, "europe-west4": 1.2375, "asia-east1": 1.305},
    "v2": {"us-central1": 1.5, "europe-west4": 1.5},
    "v3-8": {"us-central1": 2.0, "europe-west4": 2.2},
    "v3": {"europe-west4": 2.0},
    "v4": {"us-central2": 3.22},
    "v5e": {
        "us-central1": 1.2,
        "us-east1": 1.2,
        "us-east5": 1.2,
        "us-south1": 1.416,
        "us-west1": 1.2,
        "us-west4": 1.2,
        "northamerica-northeast1": 1.32132,
        "southamerica-west1": 1.716,
        "europe-north1": 1.32132,
        "europe-west1": 1.32132,
        "europe-west3": 1.416,
        "europe-west4": 1.56,
        "asia-east1": 1.38948,
        "asia-northeast1": 1.54104,
        "asia-southeast1": 1.56,
    },
    "v5p": {
        "us-central1": 4.2,
        "us-east1": 4.2,
        "us-east5": 4.2,
        "us-south1": 4.779,
        "europe-west1": 4.459455,
        "europe-west4": 4.2525,
    },
    "v6e": {
        "us-central1": 2.7,
        "us-east1": 2.7,
        "us-east4": 2.7,
        "us-east5": 2.7,
        "us-south1": 2.7,
        "us-west1": 2.7,
        "europe-west4": 2.97,
        "asia-northeast1": 3.24,
        "asia-south1": 3.24,
        "asia-southeast1": 2.97,
    },
}
"""Cloud TPU on demand, 2026-11."""

_TPU_SOURCE = "github.com/skypilot-org/skypilot-catalog (from Google's billing service)"
_TPU_DATE = "2026-11-22"

_MACHINE_HOURS = {
    # machine without accelerators: dollars for an hour of one, by region
    "n1-standard-4": {"us-central1": 0.21849885},
}
"""Vertex AI training on demand, 2026-10."""

_VERTEX_SOURCE = "cloud.google.com/products/gemini-enterprise-agent-platform/pricing"
_VERTEX_DATE = "2026-10-07"


@dataclass(frozen=True)
class Price:
    """What a job costs an hour while its machines run.

    Attributes:
      dollars: of the US; None: unknown.
      covers: what it is for, such as "8 chips of TPU v5e with their hosts".
      source: where it was read, or, where it is unknown, why.
      date: when it was read there, as "2026-11-22"; "" where it is unknown.
    """

    dollars: float | None
    covers: str
    source: str
    date: str = ""


def hourly_price(hardware: Hardware, target: Target, location: str, provisioning: Provisioning) -> Price:
    """What a job costs an hour.

    Disks, traffic and storage come on top, in any case.

    Args:
      hardware: as `launch.jobs.hardware.choose` gives it.
      target: who runs it.
      location: a region for Vertex AI, a zone for Cloud TPU.
      provisioning: how the machines are come by.
    """
    if target == "tpu-vm":
        slice_ = slice_named(hardware.accelerator)
        covers = f"{counted(slice_.chips, 'chip')} of TPU {slice_.generation.name} with their hosts"
        hours = _CHIP_HOURS.get(slice_.name) or _CHIP_HOURS[slice_.generation.name]
        hour, many, source, date = hours.get(region_of(location)), slice_.chips, _TPU_SOURCE, _TPU_DATE
    else:
        covers = f"{counted(hardware.workers, 'machine')} of {hardware.machine}"
        hours = {} if hardware.accelerator else _MACHINE_HOURS.get(hardware.machine, {})
        hour, many, source, date = hours.get(location), hardware.workers, _VERTEX_SOURCE, _VERTEX_DATE
    if provisioning != "standard":
        return Price(None, covers, f"{provisioning} prices are not among this program's")
    if hour is None:
        return Price(None, covers, f"no public price was found for {location}")
    return Price(hour * many, f"{covers}, on demand", source, date)
