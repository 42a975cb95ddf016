"""The catalog's tables: what they name exists, and goes together."""

from __future__ import annotations

import re

import pytest

from launch.jobs.catalog import (
    ALL_ZONES,
    MACHINES,
    REGIONS,
    RETIRED,
    TPU_MACHINES,
    TPU_ZONES,
    VERTEX_ACCELERATOR_TYPES,
    VERTEX_REGIONS,
    check_known,
    nearest,
    region_of,
    regions,
    runtime,
    zones,
)
from trainer.accelerators import GPUS, SLICES, TPUS, slice_named
from trainer.errors import UserError


def test_vertex_knows_every_accelerator_type_and_says_how_many_there_may_be() -> None:
    types = pytest.importorskip("google.cloud.aiplatform_v1").AcceleratorType.__members__
    assert set(VERTEX_ACCELERATOR_TYPES.values()) <= set(types)
    assert len(set(VERTEX_ACCELERATOR_TYPES.values())) == len(VERTEX_ACCELERATOR_TYPES)
    for name in VERTEX_ACCELERATOR_TYPES:
        assert name in GPUS or name in SLICES


def test_machines_take_gpus_that_exist_and_that_vertex_has_a_type_for() -> None:
    taken = {gpu for machine in MACHINES.values() for gpu in machine.gpus}
    assert taken | set(RETIRED) == set(GPUS)
    assert not taken & set(RETIRED)
    assert taken <= set(VERTEX_ACCELERATOR_TYPES)


def test_machines_are_as_their_names_say() -> None:
    for machine in MACHINES.values():
        family, kind, size = machine.name.split("-")
        number = int(re.findall("[0-9]+", size)[0])
        if size.endswith("g"):
            (counts,) = machine.gpus.values()
            assert counts == (number,)
        else:
            assert machine.vcpus == number
        assert machine.memory_gib >= machine.vcpus * (0.9 if kind == "highcpu" else 3.75)
        for counts in machine.gpus.values():
            assert counts == tuple(sorted(set(counts)))
        assert machine.always_has_gpus == (family[0] in "ag")


def test_tpu_machines_are_for_slices_of_one_host() -> None:
    for name, slices in TPU_MACHINES.items():
        for slice_ in map(slice_named, slices):
            assert slice_.hosts == 1
            match = re.fullmatch(r"ct5lp-hightpu-([0-9])t", name)
            assert match is None or slice_.chips == int(match[1])


def test_regions_and_zones_have_what_exists() -> None:
    generations = {tpu.name for tpu in TPUS}
    for there in VERTEX_REGIONS.values():
        assert set(there.split()) <= (set(GPUS) - set(RETIRED)) | generations
        assert len(set(there.split())) == len(there.split())
    assert generations <= set(TPU_ZONES)
    assert set(TPU_ZONES) <= generations | set(SLICES)
    for places in TPU_ZONES.values():
        assert places.split() == sorted(set(places.split()))


def test_places_are_written_as_google_writes_them() -> None:
    for region in REGIONS:
        assert re.fullmatch(r"[a-z]+-[a-z]+[0-9]{1,2}", region)
    for zone in ALL_ZONES:
        assert re.fullmatch(r"[a-z]+-[a-z]+[0-9]{1,2}-(?:[a-f]|ai[0-9][a-z])", zone)
        assert region_of(zone) in REGIONS
    assert region_of("us-south1-ai1b") == "us-south1"
    assert region_of("europe-west4") == "europe-west4"


def test_every_accelerator_that_a_machine_takes_can_be_had_somewhere() -> None:
    for gpu in set(GPUS) - set(RETIRED):
        assert regions(gpu)
    for slices in TPU_MACHINES.values():
        for name in slices:
            assert regions(slice_named(name).generation.name)
    assert regions("") == tuple(VERTEX_REGIONS)


def test_small_slices_have_their_own_zones() -> None:
    assert "us-central1-b" in zones(slice_named("v2-8"))
    assert "us-central1-b" not in zones(slice_named("v2-32"))
    assert zones(slice_named("v4-8")) == ("us-central2-b",)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("v3-8", "tpu-ubuntu2204-base"),
        ("v4-8", "tpu-ubuntu2204-base"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_each_generation_has_its_runtime(name: str, version: str) -> None:
    assert runtime(slice_named(name)) == version


def test_every_slice_has_a_runtime_and_a_zone() -> None:
    for slice_ in SLICES.values():
        assert runtime(slice_)
        assert zones(slice_)


def test_the_nearest_places_are_of_the_region_then_of_the_continent() -> None:
    places = ["us-west4-a", "us-west4-b", "us-east1-c", "europe-west4-a"]
    assert nearest("us-west4-z", places) == ["us-west4-a", "us-west4-b"]
    assert nearest("us-west4", places) == ["us-west4-a", "us-west4-b"]
    assert nearest("us-south1-a", places) == ["us-west4-a", "us-west4-b", "us-east1-c"]
    assert nearest("asia-east1", places) == places


def test_what_is_not_known_is_answered_with_the_nearest() -> None:
    check_known("--region", "us-central1", VERTEX_REGIONS)
    with pytest.raises(UserError, match=r"^--region=us-centrl1 is not known; did you mean us-central1"):
        check_known("--region", "us-centrl1", VERTEX_REGIONS)
    with pytest.raises(UserError, match=r"^--region=moon is not known; there are africa-south1, asia-east1,"):
        check_known("--region", "moon", VERTEX_REGIONS)
    with pytest.raises(UserError, match=r"^--region must be given; there are africa-south1,"):
        check_known("--region", "", VERTEX_REGIONS)
