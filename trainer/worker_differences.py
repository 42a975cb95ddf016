"""What may differ between the workers of a run, and what is said of the rest. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.config_errors import shown

PER_MACHINE_FIELDS = frozenset({"worker_timeout", "hub_mirror", "repair_hub_cache", "data_dir", "try_gcs", "stage_to"})
"""Fields of Config that each worker sets as its machine needs it: patience, how a module gets into its cache,
and where prepared data sets are.

Two more have rules of their own: `run_dir`, which only the chief must have, and the place of `data=folder:PATH` and
`data=tfrecord:PATTERN`, whose images the workers compare by fingerprint once they have listed them.
"""


def config_differences(chief: Mapping[str, Any], worker: Mapping[str, Any], name: str) -> list[str]:
    """How a worker's Config differs from the chief's where it must not.

    Args:
      chief: its Config as JSON values.
      worker: that of the worker.
      name: of the worker.

    Returns:
      For each field, "--learning_rate is 0.1 on worker 1 and 0.01 on the chief".
    """
    return [
        f"--{field} is {shown(worker.get(field))} on {name} and {shown(chief.get(field))} on the chief"
        for field in dict.fromkeys([*chief, *worker])
        if worker.get(field) != chief.get(field) and not _may_differ(field, chief.get(field), worker.get(field))
    ]


def version_differences(chief: Mapping[str, Any], worker: Mapping[str, Any], name: str) -> list[str]:
    """Which of a worker's packages do not go together with the chief's, as "worker 1 has tensorflow 2.20.0 and …".

    Args:
      chief: its versions by package; None for what is not installed.
      worker: those of the worker.
      name: of the worker.
    """
    # Checkpoints and collective operations go together within a minor version of TensorFlow.
    compared = {
        "trainer": (worker.get("trainer"), chief.get("trainer")),
        "tensorflow": (_minor(worker.get("tensorflow")), _minor(chief.get("tensorflow"))),
    }
    return [
        f"{name} has {package} {worker.get(package)} and the chief {chief.get(package)}"
        for package, (theirs, own) in compared.items()
        if theirs != own
    ]


def _may_differ(field: str, chief: object, worker: object) -> bool:
    """Whether a worker's value may be another than the chief's."""
    if field == "run_dir":
        return worker == ""
    if field == "data":
        return any(str(chief).startswith(kind) and str(worker).startswith(kind) for kind in ("folder:", "tfrecord:"))
    return field in PER_MACHINE_FIELDS


def _minor(version: object) -> str:
    """Major and minor version: "2.21" of "2.21.0"."""
    return ".".join(str(version).split(".")[:2])
