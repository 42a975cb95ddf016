"""Shows what `launch submit` would send, and sends nothing.

    python -m launch plan vertex --accelerator=l4:2 -- FLAGS
    python -m launch plan tpu-vm --accelerator=v5litepod-8 -- FLAGS

The request as JSON, gcloud's command that sends the same, the image, the trainer's command, what an hour costs, and
every problem that can be seen from here: without the network and without credentials. FLAGS are those of
`python -m trainer.task`. For a TPU, what python -m trainer.preflight says of the steps follows. The exit code is 2 when
there is a problem, otherwise 0.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from launch.jobs.job_options import add_job_options
from launch.jobs.preflight import add_preflight_option, ask, objections
from launch.jobs.targets import add_target, planned
from launch.tables import print_text
from trainer.errors import EXIT_DONE, EXIT_USER

NAME = "plan"
SUMMARY = "show what a job would be, send nothing"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    add_target(parser)
    add_job_options(parser)
    add_preflight_option(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Prints the plan.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".

    Returns:
      0; 2 where the plan has problems.

    Raises:
      UserError: the job makes no sense.
    """
    from launch.jobs.plan import PLANNED_SUBMISSION, as_json
    from launch.jobs.plan_text import plan_text

    plan = planned(options, trainer_flags, os.environ, datetime.now(), PLANNED_SUBMISSION, Path.cwd())
    if not options.json:
        print_text(plan_text(plan))  # At once: the preflight takes longer.
    answer = None if plan.problems else ask(plan.job, options.preflight)
    against = objections(answer, options.preflight)
    said = answer.text_with(plan.price) if answer else ""
    if options.json:
        print_text(as_json(replace(plan, problems=(*plan.problems, *against)), said))
    elif said:
        print_text(f"\npreflight {said}")
    return EXIT_USER if plan.problems or against else EXIT_DONE
