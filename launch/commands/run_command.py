"""Trains with several workers on this machine, one process each.

    python -m launch run --workers=2 -- TRAINER FLAGS
    python -m launch run --workers=2 --virtual_devices=2 --max_restarts=3 -- --data=folder:PHOTOS --run_dir=RUN

What stands behind -- are flags of `python -m trainer.task`, which is started with --strategy=multi_worker. When one
worker fails the others are ended, and, with --max_restarts, all start again from the last checkpoint. Where workers
were asked to stop for now (a signal to one of them, --max_minutes) and have saved, all start again whatever
--max_restarts says. Ctrl-C lets all save and ends them. The exit code is 0 when all are done, 2 when a flag or the data
must be changed, 75 after Ctrl-C, and otherwise that of the worker that failed first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from launch.option_types import whole_number
from launch.trainer_flags import config_of, parsed_flags, without_end_marks
from trainer.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from launch.local.supervise import Launch
    from trainer.config import Config

NAME = "run"
SUMMARY = "train with several workers on this machine"

MOST_WORKERS = 64
"""More processes than that on one machine are a typing error."""

STRATEGY = "multi_worker"

_SECONDS_TO_LEAVE = 5.0
"""What a worker may take beyond --stop_seconds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what stands before the "--"."""
    parser.add_argument(
        "--workers",
        type=whole_number("--workers", 1, MOST_WORKERS),
        required=True,
        metavar="N",
        help="how many processes train together",
    )
    parser.add_argument(
        "--virtual_devices",
        type=whole_number("--virtual_devices", 0, 64),
        metavar="M",
        help="replicas of each worker, on as many parts of the CPU; the trainer's flag of that name",
    )
    parser.add_argument(
        "--max_restarts",
        type=whole_number("--max_restarts", 0, 10_000),
        default=0,
        metavar="K",
        help="how often all start again from the last checkpoint after one has failed (default: 0)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")


def execute(options: argparse.Namespace, trainer_flags: Sequence[str]) -> int:
    """Runs the workers to their end.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".

    Returns:
      The exit code; see `launch.local.supervise.supervise`.

    Raises:
      UserError: something is wrong that can be said before anything is started.
    """
    from launch.local.supervise import supervise
    from launch.local.worker_logs import Console

    launch, quiet = planned_launch(options, trainer_flags, datetime.now())
    return supervise(launch, Console(sys.stdout, sys.stderr, os.environ, quiet=quiet), os.environ)


def planned_launch(options: argparse.Namespace, trainer_flags: Sequence[str], moment: datetime) -> tuple[Launch, bool]:
    """What to start, and whether to be quiet about it.

    The flags are checked as each worker would check them, so that a wrong one is said once.

    Args:
      options: as `add_options` defined them.
      trainer_flags: what stands behind the "--".
      moment: names the run directory, where none is given.

    Raises:
      UserError: a flag is not accepted, or does not go with the others.
    """
    from launch.local.supervise import Launch

    trainer_flags = without_end_marks(trainer_flags)
    given = parsed_flags(trainer_flags)
    _check_conflicts(options, given)
    added = [f"--strategy={STRATEGY}"]
    config = config_of([*trainer_flags, *added])
    _check_batch_size(config, options)
    if options.virtual_devices is not None:
        added.append(f"--virtual_devices={options.virtual_devices}")
        config = config_of([*trainer_flags, *added])
    go_on = "The same command goes on from the last checkpoint."
    if not config.run_dir and not given.dry_run:  # Otherwise a restart would not find the checkpoints.
        run_dir = config.new_run_dir(moment)
        added.append(f"--run_dir={run_dir}")
        go_on = f"The same command with --run_dir={run_dir} goes on from the last checkpoint."
    if options.quiet and not given.quiet:
        added.append("--quiet")
    command = [sys.executable, "-m", "trainer.task", *trainer_flags, *added]
    # Any other --resume prefers the run's own checkpoints once there are some.
    restart_command = [*command, "--resume=auto"] if config.resume == "never" else command
    launch = Launch(
        command,
        restart_command,
        options.workers,
        options.max_restarts,
        go_on,
        save_seconds=config.stop_seconds + _SECONDS_TO_LEAVE,
    )
    return launch, options.quiet or given.quiet


def _check_conflicts(options: argparse.Namespace, given: FlagValues) -> None:
    if given["strategy"].present and given.strategy != STRATEGY:
        raise UserError(
            f"--strategy={given.strategy} does not go with launch run, whose workers train by "
            f"--strategy={STRATEGY}: leave it out, or start python -m trainer.task for a single process."
        )
    mine, theirs = options.virtual_devices, given["virtual_devices"]
    if mine is not None and theirs.present and theirs.value != str(mine):
        raise UserError(
            f"--virtual_devices={mine} stands before -- and --virtual_devices={theirs.value} behind it: give one."
        )


def _check_batch_size(config: Config, options: argparse.Namespace) -> None:
    """Refuses a batch that all replicas of all workers do not divide, before those of one are looked at."""
    from trainer.config_errors import batch_size_problem

    devices = config.virtual_devices if options.virtual_devices is None else options.virtual_devices
    replicas = options.workers * max(devices, 1)
    if config.batch_size % replicas:
        raise UserError(f"{batch_size_problem(config.batch_size, replicas)}.")
