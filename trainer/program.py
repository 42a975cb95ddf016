"""What the small programs of this package have in common: how they start, and how they end.

`trainer.task` goes its own way, because a run outlives who watches it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags

from trainer.config_flags import parse_command_line, read_local_text
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.startup import import_tensorflow_quietly
from trainer.storage_errors import is_remote
from trainer.terminal import discard, ensure_standard_streams, print_error

flags.disclaim_key_flags()


def define_download_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of `trainer.task` for modules that are downloaded."""
    flags.DEFINE_string(
        "hub_mirror", "", "Host that https://tfhub.dev/ handles are fetched from instead.", flag_values=flag_values
    )
    flags.DEFINE_bool(
        "repair_hub_cache",
        False,
        "Check the cached copy of a module, delete a damaged one and fetch it again.",
        flag_values=flag_values,
    )


def start(main: Callable[[Sequence[str]], int], define_flags: Callable[[flags.FlagValues], None]) -> NoReturn:
    """Runs a program on the command line of this process, and ends the process with an exit code of `trainer.errors`.

    Args:
      main: takes the arguments that are no flags; whatever `UserError` it raises becomes a line on standard error.
      define_flags: defines the program's flags.
    """
    ensure_standard_streams()
    # While flags are read, so that `--help | head` ends as other programs do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    define_flags(flags.FLAGS)
    app.run(lambda arguments: ended(main, arguments[1:]), flags_parser=parse_flags)


def prepare_storage(paths: Sequence[str]) -> None:
    """Imports TensorFlow, with our deadlines for `gs://`, if one of the paths lies there."""
    if any(is_remote(path) for path in paths):
        import_tensorflow_quietly()


def read_text(path: str) -> str:
    """A text file, local or gs://, for `trainer.config_flags.config_from_flags`.

    Raises:
      UserError: it is not there or cannot be read.
    """
    if not path.startswith("gs://"):
        return read_local_text(path)
    from trainer.storage import RunDirectory

    folder, _, name = path.rpartition("/")
    return RunDirectory(folder, "--config").read_text(name)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with our exit codes and sentences and flags wherever they stand; gives the other arguments."""
    flags.FLAGS.set_gnu_getopt(True)
    try:
        return [*argv[:1], *parse_command_line(flags.FLAGS, argv[1:])]
    except UserError as error:
        print_error(str(error))
        raise SystemExit(EXIT_USER) from None
    except SystemExit:  # What --help and its like raise, with 1.
        raise SystemExit(EXIT_DONE) from None


def ended(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Calls a program; gives its exit code."""
    # A connection that a server closes must not end the process, as a pipe that nobody reads may.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        return main(arguments)
    except UserError as error:
        print_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt:
        print_error("interrupted.")
        return EXIT_PREEMPTED
    except BrokenPipeError:
        discard(sys.stdout)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise
