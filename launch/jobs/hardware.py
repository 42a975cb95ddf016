"""Which machines a job gets: what was asked for, made whole from the catalog, or refused with what goes together."""

from __future__ import annotations

from launch.jobs.catalog import (
    ALL_ZONES,
    LEAST_VCPUS,
    MACHINES,
    REGIONS,
    RETIRED,
    TPU_MACHINES,
    VERTEX_REGIONS,
    Machine,
    check_known,
    nearest,
    region_of,
    regions,
    zones,
)
from launch.jobs.job import Hardware, Target
from trainer.accelerators import SLICES, Gpu, Slice, slice_or_gpus_named
from trainer.errors import UserError
from trainer.wording import counted, either

MOST_WORKERS = 1000
"""More machines than that in one job are a typing error."""


def choose(
    target: Target, *, accelerator: str, workers: int | None, machine: str, topology: str, location: str
) -> Hardware:
    """The machines of a job.

    Args:
      target: who runs it.
      accelerator: as --accelerator gives it: "", "l4", "l4:2" for two in each machine, "v5litepod-8".
      workers: machines; None: not given, for one, or for the hosts of a TPU slice.
      machine: a machine type; "": the smallest that does.
      topology: of a TPU slice; "": the one that it has.
      location: a region for Vertex AI, a zone for Cloud TPU.

    Raises:
      UserError: something is not known, or does not go together; the sentence names what does.
    """
    found = slice_or_gpus_named(accelerator) if accelerator else None
    if isinstance(found, Slice):
        return _slice_hardware(target, found, workers, machine, topology, location)
    if target == "tpu-vm":
        wanted = f"--accelerator={accelerator} is no TPU slice" if found else "tpu-vm needs a TPU slice"
        raise UserError(f"{wanted}; give one such as --accelerator=v5litepod-8, or take the target vertex.")
    if topology:
        raise UserError(
            f"--topology={topology} is for TPU slices; leave it out, or give one such as --accelerator=v5litepod-8."
        )
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"--workers={workers}: must be a whole number from 1 to {MOST_WORKERS}.")
    _check_region(location)
    if found is None:
        return Hardware("", 0, workers or 1, _plain_machine(machine).name)
    gpu = found.model
    chosen, count = _gpu_machine(gpu, found.count if ":" in accelerator else None, machine)
    _check_available(gpu.name, gpu.name, location)
    return Hardware(gpu.name, count, workers or 1, chosen.name)


def _slice_hardware(
    target: Target, found: Slice, workers: int | None, machine: str, topology: str, location: str
) -> Hardware:
    if workers is not None:
        raise UserError(
            f"--workers={workers} does not go with a TPU: {found.name} has {counted(found.hosts, 'host')}, and each is "
            "a worker; leave --workers out."
        )
    if topology and topology.lower() != found.topology:
        others = [
            slice_.name
            for slice_ in SLICES.values()
            if slice_.generation == found.generation and slice_.topology == topology.lower()
        ]
        hint = f"; {others[0]} has that one" if others else ""
        raise UserError(
            f"--topology={topology} does not go with --accelerator={found.name}, which has {found.topology}{hint}."
        )
    if target == "tpu-vm":
        if machine:
            raise UserError(f"--machine={machine} does not go with tpu-vm: Cloud TPU picks the machine; leave it out.")
        _check_zone(found, location)
        return Hardware(found.name, found.chips, found.hosts, "", found.topology)
    chosen = _tpu_machine(found, machine)
    _check_region(location)
    _check_available(found.name, found.generation.name, location)
    return Hardware(found.name, found.chips, found.hosts, chosen, found.topology)


def _tpu_machine(found: Slice, machine: str) -> str:
    """Vertex AI's machine for a slice."""
    fitting = next((name for name, slices in TPU_MACHINES.items() if found.name in slices), None)
    if fitting is None:
        there = either(name for slices in TPU_MACHINES.values() for name in slices)
        raise UserError(
            f"--accelerator={found.name}: on Vertex AI, TensorFlow has only TPUs of one host, up to v5e; take {there}, "
            "or the target tpu-vm."
        )
    if machine and machine != fitting:
        _require_machine(machine)
        raise UserError(f"--machine={machine} does not go with --accelerator={found.name}; take {fitting}.")
    return fitting


def _plain_machine(machine: str) -> Machine:
    """A machine without accelerators."""
    if not machine:
        return _smallest([entry for entry in MACHINES.values() if not entry.always_has_gpus])
    _require_machine(machine)
    if machine in TPU_MACHINES:
        raise UserError(f"--machine={machine} comes with a TPU; give --accelerator={TPU_MACHINES[machine][-1]} too.")
    chosen = MACHINES[machine]
    if chosen.always_has_gpus:
        gpu, counts = next(iter(chosen.gpus.items()))
        raise UserError(f"--machine={machine} comes with GPUs; give --accelerator={gpu}:{counts[0]} too.")
    return chosen


def _gpu_machine(gpu: Gpu, count: int | None, machine: str) -> tuple[Machine, int]:
    """A machine for that many GPUs, and how many they are."""
    if gpu.name in RETIRED:
        raise UserError(f"--accelerator={gpu.name} cannot be had: {RETIRED[gpu.name]}.")
    fitting = [entry for entry in MACHINES.values() if gpu.name in entry.gpus]
    if machine:
        _require_machine(machine)
        chosen = MACHINES.get(machine)
        if chosen is None or gpu.name not in chosen.gpus:
            raise UserError(
                f"--machine={machine} does not go with --accelerator={gpu.name}; take "
                f"{either(entry.name for entry in fitting)}."
            )
        counts = chosen.gpus[gpu.name]
        if count is not None and count not in counts:
            raise UserError(
                f"--machine={machine} takes {either(counts)} {gpu.name} and not {count}; give "
                f"--accelerator={gpu.name}:{counts[0]}{_machine_for(fitting, gpu, count)}."
            )
        return chosen, count or counts[0]
    count = count or 1
    enough = [entry for entry in fitting if count in entry.gpus[gpu.name]]
    if not enough:
        possible = sorted({number for entry in fitting for number in entry.gpus[gpu.name]})
        raise UserError(
            f"--accelerator={gpu.name}:{count}: a machine takes {either(possible)} of them; take one of these, or more "
            "--workers."
        )
    return _smallest(enough), count


def _machine_for(fitting: list[Machine], gpu: Gpu, count: int) -> str:
    """What a sentence says of a machine that takes a count."""
    enough = [entry for entry in fitting if count in entry.gpus[gpu.name]]
    return f", or --machine={_smallest(enough).name}" if enough else ""


def _smallest(machines: list[Machine]) -> Machine:
    usable = [entry for entry in machines if entry.vcpus >= LEAST_VCPUS]
    return min(usable, key=lambda entry: (entry.vcpus, entry.memory_gib))


def _require_machine(machine: str) -> None:
    check_known("--machine", machine, [*MACHINES, *TPU_MACHINES])


def _check_region(location: str) -> None:
    if location in ALL_ZONES or (region_of(location) in REGIONS and region_of(location) != location):
        raise UserError(f"--region={location} is a zone; Vertex AI takes its region, {region_of(location)}.")
    check_known("--region", location, VERTEX_REGIONS)


def _check_available(accelerator: str, kind: str, region: str) -> None:
    """Makes sure that Vertex AI has an accelerator in a region; `kind` is its name in the catalog."""
    there = regions(kind)
    if region not in there:
        raise UserError(f"--region={region} has no {accelerator} for training; take {either(nearest(region, there))}.")


def _check_zone(found: Slice, location: str) -> None:
    there = zones(found)
    if location in there:
        return
    hint = either(nearest(location, there))
    if location in REGIONS:
        raise UserError(f"--zone={location} is a region; zones with {found.name} are {hint}.")
    if region_of(location) not in REGIONS:
        check_known("--zone", location, ALL_ZONES)
    raise UserError(f"--zone={location} has no {found.name}; take {hint}.")
