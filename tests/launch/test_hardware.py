"""Choosing the machines of a job: everything that goes together is accepted, everything else is told what would."""

from __future__ import annotations

import pytest

from launch.jobs.catalog import LEAST_VCPUS, MACHINES, TPU_MACHINES, regions, zones
from launch.jobs.hardware import choose
from launch.jobs.job import Hardware, Target
from trainer.accelerators import SLICES, slice_named
from trainer.errors import UserError

REGION = "us-central1"


def chosen(
    target: Target = "vertex",
    accelerator: str = "",
    workers: int | None = None,
    machine: str = "",
    topology: str = "",
    location: str = REGION,
) -> Hardware:
    return choose(
        target, accelerator=accelerator, workers=workers, machine=machine, topology=topology, location=location
    )


PAIRS = [
    (machine.name, gpu, count)
    for machine in MACHINES.values()
    for gpu, counts in machine.gpus.items()
    for count in counts
]


def test_each_count_of_gpus_finds_the_smallest_machine_that_takes_it() -> None:
    for gpu, count in sorted({(gpu, count) for _, gpu, count in PAIRS}):
        found = chosen(accelerator=f"{gpu}:{count}", workers=3, location=regions(gpu)[0])
        assert found == Hardware(gpu, count, 3, found.machine)
        taking = [MACHINES[name] for name, other, number in PAIRS if (other, number) == (gpu, count)]
        assert MACHINES[found.machine] in taking
        least = min(machine.vcpus for machine in taking if machine.vcpus >= LEAST_VCPUS)
        assert MACHINES[found.machine].vcpus == least


def test_each_machine_takes_its_gpus() -> None:
    for machine, gpu, count in PAIRS:
        found = chosen(accelerator=f"{gpu}:{count}", machine=machine, location=regions(gpu)[0])
        assert found == Hardware(gpu, count, 1, machine)
        assert not found.is_tpu


def test_cloud_tpu_has_every_slice_and_each_host_is_a_worker() -> None:
    for slice_ in SLICES.values():
        for zone in zones(slice_):
            found = chosen("tpu-vm", slice_.name, location=zone)
            assert found == Hardware(slice_.name, slice_.chips, slice_.hosts, "", slice_.topology)
            assert found.is_tpu


def test_vertex_has_the_slices_of_one_host() -> None:
    for machine, names in TPU_MACHINES.items():
        for slice_ in map(slice_named, names):
            region = regions(slice_.generation.name)[0]
            expected = Hardware(slice_.name, slice_.chips, 1, machine, slice_.topology)
            assert chosen(accelerator=slice_.name, location=region) == expected
            again = chosen(accelerator=slice_.name, machine=machine, topology=slice_.topology, location=region)
            assert again == expected


def test_without_an_accelerator_a_small_machine_does() -> None:
    assert chosen() == Hardware("", 0, 1, "n1-standard-4")
    assert chosen(workers=4, machine="n2-standard-16") == Hardware("", 0, 4, "n2-standard-16")


def test_one_gpu_unless_said_otherwise_or_unless_the_machine_has_more() -> None:
    assert chosen(accelerator="l4") == Hardware("l4", 1, 1, "g2-standard-4")
    assert chosen(accelerator="NVIDIA_L4", machine="g2-standard-24") == Hardware("l4", 2, 1, "g2-standard-24")
    assert chosen(accelerator="t4", machine="n1-standard-32") == Hardware("t4", 2, 1, "n1-standard-32")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"accelerator": "l4:3"}, "--accelerator=l4:3: a machine takes 1, 2, 4 or 8 of them; take one of these, or"),
        ({"accelerator": "l4:0"}, "--accelerator=l4:0: give a whole number of GPUs behind the colon, as in l4:2"),
        ({"accelerator": "l4:"}, "--accelerator=l4:: give a whole number of GPUs behind the colon"),
        ({"accelerator": ":2"}, "--accelerator=:2: give the accelerator's name before the colon"),
        ({"accelerator": "l3"}, "--accelerator=l3 is not known; "),
        (
            {"accelerator": "p100"},
            "--accelerator=p100 cannot be had: Google Cloud ended NVIDIA P100 on 2026-09-15; take",
        ),
        (
            {"accelerator": "l4:1", "machine": "g2-standard-24"},
            "--machine=g2-standard-24 takes 2 l4 and not 1; give --accelerator=l4:2, or --machine=g2-standard-4.",
        ),
        (
            {"accelerator": "l4:3", "machine": "g2-standard-24"},
            "--machine=g2-standard-24 takes 2 l4 and not 3; give --accelerator=l4:2.",
        ),
        (
            {"accelerator": "h200", "machine": "a2-highgpu-1g"},
            "--machine=a2-highgpu-1g does not go with --accelerator=h200-141gb; take a3-ultragpu-8g.",
        ),
        (
            {"accelerator": "t4", "machine": "g2-standard-4"},
            "--machine=g2-standard-4 does not go with --accelerator=t4; take n1-standard-4, n1-standard-8,",
        ),
        ({"accelerator": "l4", "machine": "n1-standard-4"}, "take g2-standard-4, g2-standard-8, g2-standard-12,"),
        (
            {"accelerator": "l4", "machine": "cloud-tpu"},
            "--machine=cloud-tpu does not go with --accelerator=l4; take g2",
        ),
        ({"machine": "g2-standard-24"}, "--machine=g2-standard-24 comes with GPUs; give --accelerator=l4:2 too."),
        ({"machine": "cloud-tpu"}, "--machine=cloud-tpu comes with a TPU; give --accelerator=v3-8 too."),
        ({"machine": "n1-standrd-4"}, "--machine=n1-standrd-4 is not known; did you mean n1-standard-4"),
        (
            {"machine": "big"},
            "--machine=big is not known; there are a2-*, a3-*, c2-*, cloud-*, ct5lp-*, e2-*, g2-*, n1-*,",
        ),
        ({"accelerator": "l4", "topology": "2x2"}, "--topology=2x2 is for TPU slices; leave it out"),
        ({"workers": 0}, "--workers=0: must be a whole number from 1 to 1000."),
        ({"workers": 1001}, "--workers=1001: must be a whole number from 1 to 1000."),
        (
            {"accelerator": "v5e-8", "workers": 2},
            "--workers=2 does not go with a TPU: v5litepod-8 has 1 host, and each is a worker; leave --workers out.",
        ),
        (
            {"accelerator": "v5e-8", "topology": "2x2"},
            "--topology=2x2 does not go with --accelerator=v5litepod-8, which has 2x4; v5litepod-4 has that one.",
        ),
        (
            {"accelerator": "v5e-8", "topology": "3x3"},
            "--topology=3x3 does not go with --accelerator=v5litepod-8, which has 2x4.",
        ),
        (
            {"accelerator": "v5e-8:2"},
            "--accelerator=v5e-8:2: the number of a TPU slice is part of its name; take v5litepod-8.",
        ),
        (
            {"accelerator": "v5e-8", "machine": "ct5lp-hightpu-4t"},
            "--machine=ct5lp-hightpu-4t does not go with --accelerator=v5litepod-8; take ct5lp-hightpu-8t.",
        ),
        ({"accelerator": "v5e-8", "machine": "ct5lp"}, "--machine=ct5lp is not known; did you mean ct5lp-hightpu-"),
        ({"accelerator": "v5e-16"}, "take v2-8, v3-8, v5litepod-1, v5litepod-4 or v5litepod-8, or the target tpu-vm."),
        (
            {"accelerator": "v6e-8"},
            "--accelerator=v6e-8: on Vertex AI, TensorFlow has only TPUs of one host, up to v5e; take",
        ),
        ({"accelerator": "v4-8"}, "--accelerator=v4-8: on Vertex AI, TensorFlow has only TPUs of one host"),
        (
            {"accelerator": "l4", "location": "us-west3"},
            "--region=us-west3 has no l4 for training; take us-central1, us-east1, us-east4 or us-west1.",
        ),
        (
            {"accelerator": "v5e-8", "location": "europe-west4"},
            "--region=europe-west4 has no v5litepod-8 for training; take us-central1, us-east1, us-west1 or us-west4.",
        ),
        ({"location": "us-centrl1"}, "--region=us-centrl1 is not known; did you mean us-central1"),
        ({"location": "us-central1-a"}, "--region=us-central1-a is a zone; Vertex AI takes its region, us-central1."),
        ({"location": "us-west2-x"}, "--region=us-west2-x is a zone; Vertex AI takes its region, us-west2."),
        ({"location": ""}, "--region must be given; there are "),
    ],
)
def test_vertex_is_refused_what_does_not_go_together(arguments: dict[str, object], sentence: str) -> None:
    assert sentence in refusal("vertex", arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"accelerator": "l4"},
            "--accelerator=l4 is no TPU slice; give one such as --accelerator=v5litepod-8, or take the",
        ),
        ({}, "tpu-vm needs a TPU slice; give one such as --accelerator=v5litepod-8, or take the target vertex."),
        (
            {"accelerator": "v5e-16", "workers": 4},
            "--workers=4 does not go with a TPU: v5litepod-16 has 4 hosts, and each is a worker; leave --workers out.",
        ),
        (
            {"accelerator": "v5e-8", "machine": "n1-standard-4"},
            "--machine=n1-standard-4 does not go with tpu-vm: Cloud TPU picks the machine; leave it out.",
        ),
        ({"accelerator": "v4-8"}, "--zone=us-west4-a has no v4-8; take us-central2-b."),
        (
            {"accelerator": "v5e-8", "location": "us-west4"},
            "--zone=us-west4 is a region; zones with v5litepod-8 are us-west4-a or us-west4-b.",
        ),
        (
            {"accelerator": "v4-8", "location": "us-west4"},
            "--zone=us-west4 is a region; zones with v4-8 are us-central2-b.",
        ),
        (
            {"accelerator": "v5e-8", "location": "us-west4-c"},
            "--zone=us-west4-c has no v5litepod-8; take us-west4-a or us-west4-b.",
        ),
        ({"accelerator": "v5e-8", "location": "us-wst4-a"}, "--zone=us-wst4-a is not known; did you mean us-west4-a"),
        ({"accelerator": "v5e-8", "location": ""}, "--zone must be given; there are asia-east1-a,"),
    ],
)
def test_cloud_tpu_is_refused_what_does_not_go_together(arguments: dict[str, object], sentence: str) -> None:
    assert sentence in refusal("tpu-vm", {"location": "us-west4-a", **arguments})


def refusal(target: Target, arguments: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        chosen(target, **arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.endswith((".", "?"))
    assert "\n" not in text
    return text
