"""Jobs for tests: hardware as the catalog would give it, a Job whose config is what its flags come to, and the way to
the fake cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from fakes.cloud import FakeCloud
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from launch.google.google_api import GoogleApi
from launch.jobs.job import Hardware, Job, Target
from trainer.config import Config
from trainer.config_flags import config_from_flags, define_flags, parse_arguments, read_local_text

RUN_DIR = "gs://bucket/runs/flowers"
SUBMISSION = "s0123456789abcdef"
SERVICE_ACCOUNT = "trainer@project-1.iam.gserviceaccount.com"

CPU = Hardware("", 0, 1, "n2-standard-8")
ONE_GPU = Hardware("l4", 1, 1, "g2-standard-12")
FOUR_GPUS = Hardware("a100-40gb", 4, 1, "a2-highgpu-4g")
THREE_WORKERS = Hardware("l4", 2, 3, "g2-standard-24")
V2_8 = Hardware("v2-8", 4, 1, "cloud-tpu", "2x2")
V3_8 = Hardware("v3-8", 4, 1, "cloud-tpu", "2x2")
V5E_8 = Hardware("v5litepod-8", 8, 1, "ct5lp-hightpu-8t", "2x4")
V5E_16 = Hardware("v5litepod-16", 16, 4, "ct5lp-hightpu-4t", "4x4")
"""Chips are counted; v2 and v3 have two cores each, which their names count."""


def parsed(trainer_flags: Sequence[str]) -> Config:
    """What flags of `trainer.task` come to."""
    values = flags.FlagValues()
    define_flags(values)
    parse_arguments(values, trainer_flags)
    return config_from_flags(values, read_local_text)


def make_job(
    hardware: Hardware = ONE_GPU,
    *trainer_flags: str,
    target: Target = "vertex",
    run_dir: str = RUN_DIR,
    **fields: Any,
) -> Job:
    """A job on that hardware, in us-central1 unless `location` is given.

    Args:
      hardware: the machines.
      *trainer_flags: beside --run_dir.
      target: who runs it.
      run_dir: of the run.
      **fields: of `Job`, in place of those chosen here.
    """
    all_flags = (*trainer_flags, f"--run_dir={run_dir}")
    chosen: dict[str, Any] = {
        "name": "flowers-1",
        "project": "project-1",
        "location": "us-central1",
        "image": "us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123",
    }
    return Job(
        target=target, hardware=hardware, config=parsed(all_flags), trainer_flags=all_flags, **{**chosen, **fields}
    )


def api_at(cloud: FakeCloud, sleep: Callable[[float], None] = lambda seconds: None) -> GoogleApi:
    """A way to the fake cloud, without credentials and, unless `sleep` makes them, without pauses."""
    session = AuthorizedSession(AnonymousCredentials())
    return GoogleApi(session, cloud.environment(), sleep=sleep, jitter=lambda: 0.0)
