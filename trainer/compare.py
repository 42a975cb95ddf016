"""Compares runs: how good each is, whether they differ by more than chance, what they cost, how they were set.

    python -m trainer.compare RUN_DIR RUN_DIR…                        a table
    python -m trainer.compare RUN_DIR RUN_DIR… --json                 the numbers, one JSON object
    python -m trainer.compare RUN_DIR RUN_DIR… --output=compare.html  a page, too

Run directories are local or on gs://, finished or not. Each is tested against the best one on the test examples that
both have.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime

from absl import flags

from trainer.errors import EXIT_DONE, UserError
from trainer.program import prepare_storage, start
from trainer.storage import RunDirectory
from trainer.terminal import printable

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_bool("json", False, "Print one JSON object and no table.", flag_values=flag_values)
    flags.DEFINE_string(
        "output",
        "",
        "Write a page too: a new file, or a folder, local or gs://, for compare.html in it. Empty: none.",
        flag_values=flag_values,
    )
    flags.DEFINE_bool("overwrite", False, "Let --output replace a file that is there.", flag_values=flag_values)


def main(arguments: Sequence[str]) -> int:
    """Compares the run directories that are given.

    Raises:
      UserError: fewer than two, one of them twice, one without a run, or a page that cannot be written.
    """
    prepare_storage([*arguments, FLAGS.output])
    from trainer.report.compare import compare, read_runs

    page = _page_place(FLAGS.output, overwrite=FLAGS.overwrite) if FLAGS.output else None
    comparison = compare(read_runs(arguments))
    if FLAGS.json:
        from trainer.report.compare_words import as_json

        print(json.dumps(as_json(comparison), indent=2))
    else:
        from trainer.report.compare_text import comparison_text, terminal_columns

        text = comparison_text(comparison, terminal_columns())
        print(printable(text, sys.stdout.encoding, kept="\n"))
    if page:
        from trainer.report.compare_page import comparison_page

        folder, name = page
        folder.write_text(name, comparison_page(comparison, f"{datetime.now():%Y-%m-%d %H:%M}"))
        print(printable(f"page: {folder.join(name)}", sys.stderr.encoding), file=sys.stderr)
    return EXIT_DONE


def _page_place(output: str, *, overwrite: bool) -> tuple[RunDirectory, str]:
    """The folder and the name of the page.

    Raises:
      UserError: there is a file already.
    """
    from trainer.report.compare_page import PAGE_NAME

    folder, name = os.path.split(output)
    if not name.endswith(".html"):
        folder, name = output, PAGE_NAME
    directory = RunDirectory(folder or ".", "--output")
    if directory.exists(name) and not overwrite:
        raise UserError(f"{directory.join(name)} is there already: give another --output, or --overwrite.")
    return directory, name


if __name__ == "__main__":
    start(main, define_flags)
