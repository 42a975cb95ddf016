"""--sweep: the runs of a sweep as jobs, each with flags and a directory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.trainer_flags import parsed_flags, read_text, without_end_marks
from trainer.errors import UserError

MOST_JOBS = 50
"""More jobs than that at once are paid for before anybody has looked at the first."""


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep.

    Attributes:
      point: what is swept, as "learning_rate=0.001"; the name of the run's folder in the sweep's.
      trainer_flags: of the run.
    """

    point: str
    trainer_flags: list[str]


def swept_runs(trainer_flags: Sequence[str], text: str) -> list[SweptRun]:
    """The runs of a sweep, in the order of its text.

    Args:
      trainer_flags: what all have in common; --run_dir is the sweep's folder.
      text: as `trainer.sweep` reads it.

    Raises:
      UserError: the text, a value or a flag is not accepted, or it comes to more than `MOST_JOBS`.
    """
    from trainer.config_flags import flags_of, values_from_flags
    from trainer.sweep import points

    given = parsed_flags(without_end_marks(trainer_flags))
    found = points(values_from_flags(given, read_text), text)
    if len(found) > MOST_JOBS:
        raise UserError(f"--sweep={text} asks for {len(found)} jobs: {MOST_JOBS} at once are the most.")
    quiet = ["--quiet"] if given.quiet else []
    runs = []
    for point in found:
        folder = point.config.run_dir.rstrip("/")
        own = [f"--run_dir={folder}/{point.name}"] if folder else []
        runs.append(SweptRun(point.name, [*flags_of(point.config, leave_out=("run_dir",)), *own, *quiet]))
    return runs
