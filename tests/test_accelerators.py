"""TPU slices and GPUs as data: the table's numbers go together, and names are found however they are written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer.accelerators import (
    GIB,
    GPUS,
    SLICES,
    TPUS,
    Device,
    NumberFormat,
    accelerator_named,
    gpu_named,
    slice_named,
)
from trainer.errors import UserError


def test_a_slices_numbers_go_together() -> None:
    for slice_ in SLICES.values():
        generation = slice_.generation
        number = int(slice_.name.removeprefix(f"{generation.prefix}-"))
        assert number == slice_.chips * (generation.tensor_cores_per_chip if generation.counts_cores else 1)
        assert slice_.chips == slice_.hosts * slice_.chips_per_host
        assert slice_.chips_per_host in generation.host_sizes
        assert len(slice_.topology.split("x")) == (3 if generation.name in ("v4", "v5p") else 2)


@pytest.mark.parametrize(
    ("name", "chips", "replicas", "tensor_cores", "hosts", "topology"),
    [
        ("v2-8", 4, 8, 8, 1, "2x2"),
        ("v3-32", 16, 32, 32, 4, "4x4"),
        ("v4-8", 4, 4, 8, 1, "2x2x1"),
        ("v5litepod-8", 8, 8, 8, 1, "2x4"),
        ("v5litepod-16", 16, 16, 16, 4, "4x4"),
        ("v5p-8", 4, 4, 8, 1, "2x2x1"),
        ("v6e-8", 8, 8, 8, 1, "2x4"),
    ],
)
def test_slices_are_as_documented(
    name: str, chips: int, replicas: int, tensor_cores: int, hosts: int, topology: str
) -> None:
    found = slice_named(name)
    assert (found.chips, found.replicas, found.tensor_cores) == (chips, replicas, tensor_cores)
    assert (found.hosts, found.topology) == (hosts, topology)


def test_what_the_compiler_allows_was_measured_and_is_a_little_less_than_there_is() -> None:
    measured = {"v2": 7.48, "v3": 15.48, "v4": 30.75, "v5e": 15.75, "v5p": 95.73, "v6e": 31.24}
    assert {tpu.name for tpu in TPUS} == set(measured)
    for tpu in TPUS:
        usable = tpu.device.usable_bytes
        assert usable == int(measured[tpu.name] * GIB)
        assert 0.9 < usable / tpu.device.hbm_bytes < 1.01


def test_rates_are_those_of_a_device() -> None:
    """Chips whose two cores are two devices have twice the rate of one."""
    bf16_of_a_chip = {"v2": 46e12, "v3": 123e12, "v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
    for tpu in TPUS:
        assert tpu.device.peak_flops["bf16"] * tpu.devices_per_chip == bf16_of_a_chip[tpu.name]


def test_smaller_numbers_are_computed_faster() -> None:
    order: tuple[NumberFormat, ...] = ("f32", "tf32", "bf16", "f16")
    devices: list[Device] = [gpu.device for gpu in GPUS.values()] + [tpu.device for tpu in TPUS]
    for device in devices:
        rates = [device.peak_flops[number_format] for number_format in order if number_format in device.peak_flops]
        assert rates
        assert rates == sorted(rates)
        assert device.bytes_per_second < min(rates)


def test_tensorflow_has_a_little_less_of_a_gpu_than_there_is() -> None:
    for gpu in GPUS.values():
        assert 0.87 < gpu.device.usable_bytes / gpu.device.hbm_bytes < 1.04, gpu.name


def test_only_gpus_with_bfloat16_have_a_rate_for_it() -> None:
    assert {name for name, gpu in GPUS.items() if "bf16" in gpu.device.peak_flops} == {
        "l4",
        "a100-40gb",
        "a100-80gb",
        "h100-80gb",
        "h100-mega-80gb",
        "h200-141gb",
    }


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("v5litepod-8", "v5litepod-8"),
        ("V5E-8", "v5litepod-8"),
        ("tpu-v5e-8", "v5litepod-8"),
        ("TPU_V3-8", "v3-8"),
        ("l4", "l4"),
        (" L4 ", "l4"),
        ("nvidia-l4", "l4"),
        ("NVIDIA_L4", "l4"),
        ("NVIDIA Tesla T4", "t4"),
        ("NVIDIA_TESLA_A100", "a100-40gb"),
        ("NVIDIA_A100_80GB", "a100-80gb"),
        ("nvidia-h100-80gb", "h100-80gb"),
        ("h100", "h100-80gb"),
    ],
)
def test_a_name_may_be_written_in_many_ways(written: str, name: str) -> None:
    assert accelerator_named(written).name == name


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("v5e-9", "--accelerator=v5e-9 does not exist; there are v5litepod-1, v5litepod-4, v5litepod-8, v5litepod-16,"),
        ("v5e", "does not exist; there are v5litepod-1,"),
        ("v4", "does not exist; there are v4-8, v4-16,"),
        ("a10", "did you mean a100-40gb"),
        ("v5litepo-8", "did you mean v5litepod-8"),
        ("tpu", "there are the GPUs p4, t4, "),
        ("", "and TPU slices such as v2-8, v3-8, v4-8, v5litepod-8, v5p-8, v6e-8."),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(written: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        accelerator_named(written)
    assert str(caught.value).startswith(f"--accelerator={written}")
    assert expected in str(caught.value)


def test_a_gpu_is_no_slice_and_a_slice_no_gpu() -> None:
    with pytest.raises(UserError, match="is a GPU"):
        slice_named("l4")
    with pytest.raises(UserError, match="is a TPU slice"):
        gpu_named("v3-8")


def test_reading_it_imports_nothing_that_takes_long() -> None:
    code = "import sys, trainer.accelerators; print({'tensorflow', 'numpy', 'pydantic', 'absl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
