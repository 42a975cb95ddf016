"""What a job costs: figures with source and date, or unknown; never a guess."""

from __future__ import annotations

import datetime

import pytest

from launch.jobs import prices
from launch.jobs.catalog import MACHINES, REGIONS, VERTEX_REGIONS, region_of, zones
from launch.jobs.hardware import choose
from launch.jobs.job import Hardware, Provisioning, Target
from launch.jobs.prices import Price, hourly_price
from trainer.accelerators import SLICES, TPUS, slice_named


def price(target: Target, accelerator: str, location: str, provisioning: Provisioning = "standard") -> Price:
    hardware = choose(target, accelerator=accelerator, workers=None, machine="", topology="", location=location)
    return hourly_price(hardware, target, location, provisioning)


def test_the_tables_name_what_exists() -> None:
    generations = {tpu.name for tpu in TPUS}
    for name, hours in prices._CHIP_HOURS.items():
        assert name in generations or name in SLICES
        slice_ = SLICES.get(name) or next(entry for entry in reversed(SLICES.values()) if entry.generation.name == name)
        assert set(hours) <= {region_of(zone) for zone in zones(slice_)}
        assert all(0.5 < hour < 10 for hour in hours.values())
    for machine, by_region in prices._MACHINE_HOURS.items():
        assert not MACHINES[machine].always_has_gpus
        assert set(by_region) <= set(VERTEX_REGIONS)
        assert all(0.01 < hour < 10 for hour in by_region.values())
    assert {region for hours in prices._CHIP_HOURS.values() for region in hours} <= REGIONS


@pytest.mark.parametrize(
    ("accelerator", "zone", "amount"),
    [
        ("v5litepod-8", "us-west4-a", 9.60),
        ("v5litepod-16", "europe-west4-b", 24.96),
        ("v3-8", "us-central1-a", 8.00),
        ("v3-32", "europe-west4-a", 32.00),
        ("v2-8", "us-central1-b", 4.50),
        ("v4-8", "us-central2-b", 12.88),
        ("v5p-8", "us-east5-a", 16.80),
        ("v6e-8", "us-east5-b", 21.60),
    ],
)
def test_a_slice_costs_what_its_chips_cost(accelerator: str, zone: str, amount: float) -> None:
    found = price("tpu-vm", accelerator, zone)
    assert found.dollars == pytest.approx(amount)
    assert found.covers.startswith(f"{slice_named(accelerator).chips} chips of TPU ")
    assert found.source
    datetime.date.fromisoformat(found.date)


def test_several_machines_cost_several_times_as_much() -> None:
    found = hourly_price(Hardware("", 0, 3, "n1-standard-4"), "vertex", "us-central1", "standard")
    assert found.dollars == pytest.approx(3 * 0.21849885)
    assert found.covers == "3 machines of n1-standard-4, on demand"
    datetime.date.fromisoformat(found.date)


@pytest.mark.parametrize(
    ("target", "accelerator", "location", "provisioning", "why"),
    [
        ("vertex", "l4", "us-central1", "standard", "no public price was found for us-central1"),
        ("vertex", "t4", "us-central1", "standard", "no public price was found for us-central1"),
        ("vertex", "v5e-8", "us-central1", "standard", "no public price was found for us-central1"),
        ("vertex", "", "europe-west4", "standard", "no public price was found for europe-west4"),
        ("vertex", "", "us-central1", "spot", "spot prices are not among this program's"),
        ("tpu-vm", "v5e-8", "us-west4-a", "spot", "spot prices are not among this program's"),
        ("tpu-vm", "v5e-8", "us-west4-a", "reserved", "reserved prices are not among this program's"),
        ("tpu-vm", "v3-32", "us-east1-d", "standard", "no public price was found for us-east1-d"),
    ],
)
def test_what_nobody_published_is_unknown(
    target: Target, accelerator: str, location: str, provisioning: Provisioning, why: str
) -> None:
    found = price(target, accelerator, location, provisioning)
    assert (found.dollars, found.source, found.date) == (None, why, "")
    what = "1 machine of " if target == "vertex" else f"{slice_named(accelerator).chips} chips of TPU "
    assert found.covers.startswith(what)
