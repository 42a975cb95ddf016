"""Submits a job to the cloud: exactly one, checked before anything costs.

    python -m launch submit vertex --accelerator=l4:2 --build -- --data=tfds:tf_flowers --run_dir=gs://bucket/flowers
    python -m launch submit tpu-vm --accelerator=v5litepod-8 --zone=us-west4-a --wait -- --data=digits --run_dir=gs://b/r

`python -m launch plan` with the same options shows what would be sent. --build packages the working tree and lets Cloud
Build make the image first. The job's record is kept (--records), so that `launch list`, `status`, `logs` and `cancel`
know it by its name. --wait prints its log until it has ended, and ends with its exit code. What stands behind -- are
flags of `python -m trainer.task`.
"""

from __future__ import annotations

import argparse
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from launch.job_options import add_job_options
from launch.targets import add_target, planned
from trainer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from launch.google_api import GoogleApi
    from launch.plan import Plan
    from launch.records import Record

NAME = "submit"
SUMMARY = "submit a job to Vertex AI, Cloud TPU or Cloud Build"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    from launch.records import add_records_option

    add_target(parser)
    add_job_options(parser)
    after = parser.add_argument_group("what happens then")
    after.add_argument("--build", action="store_true", help="build the image from the working tree first")
    after.add_argument("--wait", action="store_true", help="print the job's log until it has ended")
    after.add_argument(
        "--submission", default="", metavar="TOKEN", help="the same token twice makes one job (default: a new one)"
    )
    after.add_argument("--json", action="store_true", help="print the job's record as JSON")
    after.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    add_records_option(after)


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Submits the job.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".

    Returns:
      0; with --wait the job's exit code.

    Raises:
      UserError: something is wrong that the user can mend; nothing was created then.
    """
    from launch.plan_text import summary

    now = datetime.now(timezone.utc)
    submission = options.submission or uuid.uuid4().hex
    plan = planned(options, trainer_flags, os.environ, now, submission)
    if plan.problems:
        raise UserError(" ".join(plan.problems))
    say = _speaker(options)
    say(summary(plan))
    return EXIT_DONE
