"""What the smaller programs beside `trainer.task` share: arguments, exit codes, one sentence for a mistake."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from absl import app, flags

from trainer.config_flags import flag_sentence
from trainer.errors import EXIT_DONE, EXIT_USER, UserError
from trainer.startup import import_tensorflow_quietly
from trainer.storage_errors import is_remote
from trainer.terminal import ensure_standard_streams, print_error

EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells have it: nothing was saved that another start would go on from."""


def start(main: Callable[[list[str]], int]) -> None:
    """Runs a program to its end and exits.

    Args:
      main: takes what is no flag, and gives the exit code; absl's flags are parsed by then. Where it raises UserError,
        the sentence is printed and the exit code is 2.
    """
    ensure_standard_streams()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends as with other programs.

    def guarded(argv: Sequence[str]) -> int:
        try:
            return main(list(argv[1:]))
        except UserError as error:
            print_error(str(error))
            return EXIT_USER
        except KeyboardInterrupt:
            print_error("interrupted.")
            return EXIT_INTERRUPTED

    app.run(guarded, flags_parser=_parse)


def prepare_storage(paths: Sequence[str]) -> None:
    """Imports TensorFlow, with our deadlines for `gs://`, if one of the paths lies there."""
    if any(is_remote(path) for path in paths):
        import_tensorflow_quietly()


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest: list[str] = flags.FLAGS(list(argv))
    except flags.Error as error:
        print_error(flag_sentence(error))
        raise SystemExit(EXIT_USER) from None
    except SystemExit:  # What --help and its like raise, with 1.
        raise SystemExit(EXIT_DONE) from None
    return rest
