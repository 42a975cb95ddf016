"""What is wrong with a job wherever it is to run: its name, labels, run directory and image, and its batch.

Each function gives sentences, with the way out; none where all is well. Nothing here asks anybody anything.
"""

from __future__ import annotations

import re

from launch.jobs.job import CREATED_BY, LONGEST_NAME, NAME_LABEL, NAME_PATTERN, SUBMISSION_LABEL, Job
from trainer.accelerators import slice_named
from trainer.config_errors import batch_size_problem

_OWN_LABELS = (CREATED_BY[0], NAME_LABEL, SUBMISSION_LABEL)

_MOST_LABELS = 64
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
"""Of one resource (https://cloud.google.com/resource-manager/docs/labels-overview, as of 2026-11). International
letters, which Google takes too, are refused: gcloud and filters would need them escaped."""

_BUCKET_FOLDER = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](?:/.*)?")
"""A bucket's name by its letters and length (https://cloud.google.com/storage/docs/buckets#naming, as of 2026-11)."""

_REGISTRY = re.compile(r"(?P<place>[a-z0-9-]+)-docker\.pkg\.dev/.*")
"""An image in Artifact Registry; the place is a region or one of `_CONTINENTS`."""

_CONTINENTS = ("us", "europe", "asia")
"""Artifact Registry's multi-regions; the names of their regions begin with them and a dash
(https://cloud.google.com/artifact-registry/docs/repositories/repo-locations, as of 2026-11)."""


def name_problems(job: Job) -> list[str]:
    """Whether the name can be a label's value and a resource's id."""
    if NAME_PATTERN.fullmatch(job.name):
        return []
    return [
        f"--name={job.name}: must be up to {LONGEST_NAME} small letters, digits and dashes that begin with a letter "
        "and do not end with a dash, as in flowers-1."
    ]


def label_problems(job: Job) -> list[str]:
    """Whether Google Cloud takes the labels."""
    problems = []
    for key, value in job.labels.items():
        if key in _OWN_LABELS:
            problems.append(f"--label={key}={value}: launch sets {key} itself; take another key.")
        elif not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            problems.append(
                f"--label={key}={value}: keys and values are small letters, digits, underscores and dashes, 63 at "
                "most, and a key begins with a letter; change this one."
            )
    most = _MOST_LABELS - len(_OWN_LABELS)
    if len(job.labels) > most:
        problems.append(
            f"--label is given {len(job.labels)} times, and {most} is the most beside launch's own: leave out some."
        )
    return problems


def run_dir_problems(job: Job) -> list[str]:
    """Whether what the run leaves behind outlives its machines."""
    if _BUCKET_FOLDER.fullmatch(job.run_dir):
        return []
    if not job.run_dir:
        return ["No --run_dir is given, and the machines' own disks go with them: add --run_dir=gs://BUCKET/FOLDER."]
    return [
        f"--run_dir={job.run_dir}: the machines' own disks go with them; give a folder of a bucket, as in "
        "--run_dir=gs://BUCKET/runs/flowers."
    ]


def image_problems(job: Job, region: str) -> list[str]:
    """Whether every worker would fetch its image from far away, which takes longer and is charged for.

    Args:
      job: its image may also be in a registry that is nowhere in particular.
      region: of the machines.
    """
    registry = _REGISTRY.fullmatch(job.image)
    if not registry:
        return []
    place = registry["place"]
    if region == place or (place in _CONTINENTS and region.startswith(f"{place}-")):
        return []
    elsewhere = "" if place in _CONTINENTS else f", or take machines in {place}"
    return [
        f"--image={job.image} is in {place} and the machines are in {region}: push it to {region}-docker.pkg.dev"
        f"{elsewhere}."
    ]


def replicas(job: Job) -> int:
    """How many replicas share a batch when every device is used: GPUs, TPU cores, or a CPU each of several workers."""
    hardware = job.hardware
    if hardware.is_tpu:
        return slice_named(hardware.accelerator).replicas
    return max(hardware.count, job.config.virtual_devices, 1) * hardware.workers


def batch_problems(job: Job) -> list[str]:
    """Whether all replicas get the same number of images."""
    if job.config.batch_size % replicas(job) == 0:
        return []
    return [f"{batch_size_problem(job.config.batch_size, replicas(job))}."]


def unreachable_problems(job: Job) -> list[str]:
    """Whether the run needs files of this machine, which the job's machines do not have."""
    config = job.config
    spec = config.data_spec
    places = {
        "data": spec.argument if spec.kind in ("folder", "tfrecord", "csv") else "",
        "backbone": config.backbone if config.uses_hub_module else "",
        "data_dir": config.data_dir,
        "init_from": config.init_from,
        "resume": "" if config.resume in ("auto", "never") else config.resume,
    }
    return [
        f"--{flag}={getattr(config, flag)} is on this machine, and the job runs on others: copy it with "
        f"`gcloud storage cp --recursive {path} gs://BUCKET/` and give that place."
        for flag, path in places.items()
        if path and not re.match(r"(gs|https?)://", path)
    ]


def flag_problems(job: Job) -> list[str]:
    """Whether the trainer is told what only makes sense on a machine that one sits at."""
    problems = []
    config = job.config
    if config.strategy == "tpu" and config.tpu != "local":
        problems.append(f"--tpu={config.tpu} is set by the job itself: leave it out.")
    if config.virtual_devices:
        problems.append(
            f"--virtual_devices={config.virtual_devices} is for trying things on this machine: leave it out of a job."
        )
    if config.max_minutes > job.max_run_hours * 60:
        problems.append(
            f"--max_minutes={config.max_minutes:g} is more than --max_run_hours={job.max_run_hours:g}: the job "
            "would be ended before it saves; give one that is shorter."
        )
    return problems


def problems_anywhere(job: Job, region: str) -> list[str]:
    """All of the above.

    Args:
      job: of any target.
      region: of its machines.
    """
    return [
        *name_problems(job),
        *label_problems(job),
        *run_dir_problems(job),
        *image_problems(job, region),
        *batch_problems(job),
        *unreachable_problems(job),
        *flag_problems(job),
    ]
