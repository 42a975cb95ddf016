"""Makes the page of a run, finished or not, local or on gs://.

    python -m trainer.report RUN_DIR                       RUN_DIR/report/index.html
    python -m trainer.report RUN_DIR --output=ELSEWHERE    ELSEWHERE/report/index.html

The page is one file that asks no server for anything. Beside it lie the charts as PNG (plots/) and the numbers as JSON.
A run makes it by itself when it ends; this does it for one that goes on, that was interrupted, or whose page is of an
earlier version.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from absl import flags

from trainer.errors import EXIT_DONE, UserError
from trainer.program import prepare_storage, start
from trainer.storage import RunDirectory


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "output",
        "",
        "The folder, local or gs://, to make report/ in. Empty: the run directory itself.",
        flag_values=flag_values,
    )


def main(arguments: Sequence[str]) -> int:
    """Makes the page and prints where it is.

    Raises:
      UserError: not one run directory was given, it holds no run, or the target cannot be written.
    """
    if len(arguments) != 1:
        raise UserError(f"{len(arguments)} run directories were given: python -m trainer.report takes one.")
    source = RunDirectory(arguments[0], "RUN_DIR")
    target = RunDirectory(flags.FLAGS.output, "--output") if flags.FLAGS.output else source
    prepare_storage([source.path, target.path])
    from trainer.report.write import write_report

    print(write_report(source, target, f"{datetime.now():%Y-%m-%d %H:%M}"))
    return EXIT_DONE


if __name__ == "__main__":
    start(main, define_flags)
