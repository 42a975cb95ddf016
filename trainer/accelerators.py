"""TPU slices and GPUs as data: chips, hosts, memory and peak rates, each with source and date. No TensorFlow.

`slice_named("v5litepod-8")` and `gpu_named("l4")` give one; names are matched forgivingly. `launch` picks machines by
it, `trainer.preflight` asks it how much memory and speed there is.

Sources, all of Google's documentation as far as not said otherwise:

  TPU pages   https://docs.cloud.google.com/tpu/docs/v3, /v4, /v5e, /v5p, /v6e (read 2026-11): peak rates, memory,
              topologies and hosts.
  TPU v2      Its page gives no rates; they are those of "A Domain Specific Supercomputer for Training Deep Neural
              Networks" (Communications of the ACM 63(7), 2020), which that page refers to.
  v2, v3      Their topologies are those that the start-up script of Cloud TPU's TensorFlow servers sets.
  Compiler    The memory that the TPU compiler lets a device use was measured: libtpu 0.0.51 compiled programs that are
              too large and named it (2026-11).
  GPUs        https://docs.cloud.google.com/compute/docs/gpus (read 2026-11); rates are for dense matrices.
  TensorFlow  The memory of a GPU that TensorFlow takes for itself stands in a line of its log ("Created device … with
              20549 MB memory", in MiB): the least of those that were found in published logs of TensorFlow 2.4 to 2.19
              for an idle GPU (read 2026-11; one log each for h200 and a100-80gb). h100-mega has the memory of h100.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from trainer.errors import UserError

NumberFormat = Literal["bf16", "f16", "tf32", "f32"]

GB = 10**9
MIB = 2**20
GIB = 2**30
TERA = 10**12


@dataclass(frozen=True)
class Device:
    """What one replica computes on: a GPU, a TPU chip, or one of the two cores of a TPU v2 or v3 chip.

    Attributes:
      hbm_bytes: its memory, as documented.
      usable_bytes: the memory that the TPU compiler allows it, or that TensorFlow takes of a GPU, measured; of v5p,
        whose documented memory is rounded down, it is the larger one.
      peak_flops: floating-point operations a second at most, by the format of the numbers, where published. TPUs
        compute float32 in several passes of bf16, whose rate nobody publishes.
      bytes_per_second: between it and its memory at most.
    """

    hbm_bytes: int
    usable_bytes: int
    peak_flops: Mapping[NumberFormat, float] = field(hash=False)
    bytes_per_second: float


@dataclass(frozen=True)
class Tpu:
    """A TPU generation.

    Attributes:
      name: such as "v5e".
      prefix: of its slices' names, such as "v5litepod".
      counts_cores: whether the number in a slice's name is of TensorCores; of chips otherwise.
      tensor_cores_per_chip: as documented.
      devices_per_chip: what TensorFlow has replicas on; the two TensorCores of v4 and v5p work as one.
      host_sizes: how many chips a host, which is one TPU VM, may have.
      device: one of them.
    """

    name: str
    prefix: str
    counts_cores: bool
    tensor_cores_per_chip: int
    devices_per_chip: int
    host_sizes: tuple[int, ...]
    device: Device


@dataclass(frozen=True)
class Slice:
    """Chips of one generation that work together.

    Attributes:
      name: as Cloud TPU calls the accelerator type, such as "v5litepod-8".
      generation: of its chips.
      topology: how they are arranged, such as "2x4".
      hosts: TPU VMs that it has.
    """

    name: str
    generation: Tpu
    topology: str
    hosts: int

    @property
    def chips(self) -> int:
        """All chips."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def chips_per_host(self) -> int:
        """Chips of each host."""
        return self.chips // self.hosts

    @property
    def replicas(self) -> int:
        """Replicas that TensorFlow has on it."""
        return self.chips * self.generation.devices_per_chip

    @property
    def tensor_cores(self) -> int:
        """TensorCores, which is what Vertex AI counts of v2 and v3."""
        return self.chips * self.generation.tensor_cores_per_chip

    @property
    def device(self) -> Device:
        """What each replica computes on."""
        return self.generation.device


@dataclass(frozen=True)
class Gpu:
    """A GPU model.

    Attributes:
      name: such as "l4".
      device: the GPU.
    """

    name: str
    device: Device


@dataclass(frozen=True)
class Gpus:
    """GPUs of one model that share a global batch.

    Attributes:
      model: such as l4.
      count: how many, at least 1.
    """

    model: Gpu
    count: int = 1

    @property
    def name(self) -> str:
        """As it is given and printed: "l4", or "l4:4" for four."""
        return self.model.name if self.count == 1 else f"{self.model.name}:{self.count}"


TPUS = (
    Tpu("v2", "v2", True, 2, 2, (4,), Device(8 * GIB, int(7.48 * GIB), {"bf16": 46 * TERA / 2}, 700 * GB / 2)),
    Tpu("v3", "v3", True, 2, 2, (4,), Device(16 * GIB, int(15.48 * GIB), {"bf16": 123 * TERA / 2}, 900 * GB / 2)),
    Tpu("v4", "v4", True, 2, 1, (4,), Device(32 * GIB, int(30.75 * GIB), {"bf16": 275 * TERA}, 1200 * GB)),
    Tpu("v5e", "v5litepod", False, 1, 1, (1, 4, 8), Device(16 * GIB, int(15.75 * GIB), {"bf16": 197 * TERA}, 819 * GB)),
    Tpu("v5p", "v5p", True, 2, 1, (4,), Device(95 * GIB, int(95.73 * GIB), {"bf16": 459 * TERA}, 2765 * GB)),
    Tpu("v6e", "v6e", False, 1, 1, (1, 4, 8), Device(32 * GIB, int(31.24 * GIB), {"bf16": 918 * TERA}, 1600 * GB)),
)
"""The generations that this project knows. Rates are of a device: half a chip's for v2 and v3."""

_SLICES = (
    ("v2-8", "2x2", 1),
    ("v2-32", "4x4", 4),
    ("v2-128", "8x8", 16),
    ("v2-256", "8x16", 32),
    ("v2-512", "16x16", 64),
    ("v3-8", "2x2", 1),
    ("v3-32", "4x4", 4),
    ("v3-64", "4x8", 8),
    ("v3-128", "8x8", 16),
    ("v3-256", "8x16", 32),
    ("v3-512", "16x16", 64),
    ("v3-1024", "16x32", 128),
    ("v3-2048", "32x32", 256),
    ("v4-8", "2x2x1", 1),
    ("v4-16", "2x2x2", 2),
    ("v4-32", "2x2x4", 4),
    ("v4-64", "2x4x4", 8),
    ("v4-128", "4x4x4", 16),
    ("v4-256", "4x4x8", 32),
    ("v4-512", "4x8x8", 64),
    ("v4-1024", "8x8x8", 128),
    ("v4-2048", "8x8x16", 256),
    ("v4-4096", "8x16x16", 512),
    ("v5litepod-1", "1x1", 1),
    ("v5litepod-4", "2x2", 1),
    ("v5litepod-8", "2x4", 1),
    ("v5litepod-16", "4x4", 4),
    ("v5litepod-32", "4x8", 8),
    ("v5litepod-64", "8x8", 16),
    ("v5litepod-128", "8x16", 32),
    ("v5litepod-256", "16x16", 64),
    ("v5p-8", "2x2x1", 1),
    ("v5p-16", "2x2x2", 2),
    ("v5p-32", "2x2x4", 4),
    ("v5p-64", "2x4x4", 8),
    ("v5p-128", "4x4x4", 16),
    ("v5p-256", "4x4x8", 32),
    ("v5p-512", "4x8x8", 64),
    ("v5p-1024", "8x8x8", 128),
    ("v5p-2048", "8x8x16", 256),
    ("v5p-4096", "8x16x16", 512),
    ("v5p-8192", "16x16x16", 1024),
    ("v5p-12288", "16x16x24", 1536),
    ("v6e-1", "1x1", 1),
    ("v6e-4", "2x2", 1),
    ("v6e-8", "2x4", 1),
    ("v6e-16", "4x4", 4),
    ("v6e-32", "4x8", 8),
    ("v6e-64", "8x8", 16),
    ("v6e-128", "8x16", 32),
    ("v6e-256", "16x16", 64),
)
"""Name, topology and hosts of each slice. Those of v5e and v6e with more than 8 chips have hosts of 4."""

_TPU_OF_PREFIX = {tpu.prefix: tpu for tpu in TPUS}

SLICES = {
    name: Slice(name, _TPU_OF_PREFIX[name.rpartition("-")[0]], topology, hosts) for name, topology, hosts in _SLICES
}
"""All slices by name, small ones of a generation first."""


def _gpu(name: str, gigabytes: float, usable_mib: int, gigabytes_per_second: float, **teraflops: float) -> Gpu:
    """A GPU; keywords are number formats."""
    peaks = cast(Mapping[NumberFormat, float], {format_: rate * TERA for format_, rate in teraflops.items()})
    return Gpu(name, Device(int(gigabytes * GB), usable_mib * MIB, peaks, gigabytes_per_second * GB))


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("p4", 8, 6968, 192, f32=5.5),
        _gpu("t4", 16, 13627, 320, f32=8.1, f16=65),
        _gpu("p100", 16, 15397, 732, f32=10.6),
        _gpu("v100", 16, 14518, 900, f32=15.6, f16=125),
        _gpu("l4", 24, 20549, 300, f32=30.3, tf32=60, f16=121, bf16=121),
        _gpu("a100-40gb", 40, 38139, 1600, tf32=156, f16=312, bf16=312),
        _gpu("a100-80gb", 80, 79197, 1900, tf32=156, f16=312, bf16=312),
        _gpu("h100-80gb", 80, 78763, 3350, f32=67, tf32=494.5, f16=989.5, bf16=989.5),
        _gpu("h100-mega-80gb", 80, 78763, 3350, f32=67, tf32=494.5, f16=989.5, bf16=989.5),
        _gpu("h200-141gb", 141, 138533, 4800, f32=67, tf32=494.5, f16=989.5, bf16=989.5),
    )
}
"""GPUs by name, the smallest first. Blackwell's (B200, GB200, RTX PRO 6000) are left out: TensorFlow 2.21 is built for
compute capabilities up to 9.0 (`tf.sysconfig.get_build_info()`, 2026-11)."""

_OTHER_GPU_NAMES = {
    "a100": "a100-40gb",
    "a100-40": "a100-40gb",
    "a100-80": "a100-80gb",
    "h100": "h100-80gb",
    "h100-80": "h100-80gb",
    "h100-mega": "h100-mega-80gb",
    "h200": "h200-141gb",
    "h200-141": "h200-141gb",
}
"""What else people and Google call them, once `_plain` has done its work. NVIDIA_TESLA_A100 is the one of 40 GB."""

_OTHER_PREFIXES = {"v5e": "v5litepod", "v5lite": "v5litepod", "v5-lite": "v5litepod", "v5-litepod": "v5litepod"}


def slice_named(name: str) -> Slice:
    """The TPU slice of a name.

    Args:
      name: such as "v5litepod-8"; also "V5E-8" and "tpu-v5litepod-8".

    Raises:
      UserError: there is none; the nearest are named.
    """
    found = accelerator_named(name)
    if isinstance(found, Gpu):
        raise UserError(f"--accelerator={name}: is a GPU and no TPU slice, such as v5litepod-8.")
    return found


def gpu_named(name: str) -> Gpu:
    """The GPU of a name.

    Args:
      name: such as "l4"; also "nvidia-l4" and "NVIDIA_L4".

    Raises:
      UserError: there is none; the nearest are named.
    """
    found = accelerator_named(name)
    if isinstance(found, Slice):
        raise UserError(f"--accelerator={name}: is a TPU slice and no GPU, such as l4.")
    return found


def slice_or_gpus_named(name: str) -> Slice | Gpus:
    """The TPU slice of a name, or the GPUs of one with a number behind it, such as "l4:4"; "l4" is one.

    Raises:
      UserError: there is none.
    """
    plain, colon, number = name.partition(":")
    if colon and not plain:
        raise UserError(f"--accelerator={name}: give the accelerator's name before the colon, as in l4:2.")
    found = accelerator_named(plain)
    if isinstance(found, Slice):
        if colon:
            raise UserError(f"--accelerator={name}: the number of a TPU slice is part of its name; take {found.name}.")
        return found
    if colon and not (number.isascii() and number.isdecimal() and int(number)):
        raise UserError(f"--accelerator={name}: give a whole number of GPUs behind the colon, as in {found.name}:2.")
    return Gpus(found, int(number) if colon else 1)


def accelerator_named(name: str) -> Slice | Gpu:
    """The TPU slice or GPU of a name, which may be written in the ways of `slice_named` and `gpu_named`.

    Raises:
      UserError: there is none; the nearest are named.
    """
    plain = _plain(name)
    if plain in GPUS:
        return GPUS[plain]
    if plain in SLICES:
        return SLICES[plain]
    raise UserError(_unknown(name, plain))


def _plain(name: str) -> str:
    """A name in the way that it is written here, if it is one of ours."""
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    plain = re.sub(r"^(?:nvidia|google|cloud)-", "", plain)
    plain = re.sub(r"^(?:tesla|tpu)-?(?=[a-z])", "", plain)
    prefix, _, number = plain.rpartition("-")
    return _OTHER_GPU_NAMES.get(plain) or (
        f"{_OTHER_PREFIXES[prefix]}-{number}" if prefix in _OTHER_PREFIXES else plain
    )


def _unknown(name: str, plain: str) -> str:
    """The sentence for a name that is none of ours."""
    prefix = _OTHER_PREFIXES.get(plain, plain).rpartition("-")[0] or _OTHER_PREFIXES.get(plain, plain)
    sizes = [slice_.name for slice_ in SLICES.values() if slice_.generation.prefix == prefix]
    if sizes:
        return f"--accelerator={name} does not exist; there are {', '.join(sizes)}."
    known = [*GPUS, *SLICES]
    near = [_plain(match) for match in difflib.get_close_matches(plain, [*known, *_OTHER_GPU_NAMES, "v5e-8"], 3)]
    if near:
        return f"--accelerator={name} is not known; did you mean {' or '.join(dict.fromkeys(near))}?"
    examples = ", ".join(f"{tpu.prefix}-8" for tpu in TPUS)
    return (
        f"--accelerator={name} is not known; there are the GPUs {', '.join(GPUS)}, and TPU slices such as {examples}."
    )
