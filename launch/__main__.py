"""Starts the trainer somewhere.

    python -m launch run --workers=2 -- FLAGS           several workers here
    python -m launch plan vertex -- FLAGS               what a job would be
    python -m launch submit vertex --build -- FLAGS     makes it

FLAGS, behind --, are those of `python -m trainer.task`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from launch.commands import (
    cancel_command,
    doctor_command,
    list_command,
    logs_command,
    plan_command,
    run_command,
    status_command,
    submit_command,
)
from trainer.errors import EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.terminal import ensure_standard_streams, print_error

COMMANDS = (
    run_command,
    plan_command,
    submit_command,
    list_command,
    status_command,
    logs_command,
    cancel_command,
    doctor_command,
)
"""Modules with NAME, SUMMARY, `add_options(parser)` and `execute(options, trainer_flags)`, which gives the exit code.
They import what takes long only in `execute`."""


class _Parser(argparse.ArgumentParser):
    """argparse, with one sentence instead of its usage text."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:].rstrip('.')}; {self.prog} --help shows what there is.")


def main(arguments: Sequence[str]) -> int:
    """Does what a command line says.

    Args:
      arguments: without the program's name.

    Returns:
      The exit code (`trainer.errors`, or a worker's).
    """
    try:
        own, trainer_flags = _split(arguments)
        options, unknown = _parser().parse_known_args(own)
        if unknown:
            raise UserError(
                f"{unknown[0]} is no option of launch; the trainer's flags stand behind --, as in "
                "python -m launch run --workers=2 -- --data=digits."
            )
        return int(options.execute(options, trainer_flags))
    except UserError as error:
        print_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt:
        print_error("interrupted before anything was started.")
        return EXIT_PREEMPTED


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and the trainer's flags, which stand behind the first "--"."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end + 1 :])


def _parser() -> _Parser:
    parser = _Parser(prog="python -m launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = commands.add_parser(
            module.NAME,
            help=module.SUMMARY,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_options(command)
        command.set_defaults(execute=module.execute)
    return parser


def console_main() -> None:
    """Entry point of the installed program."""
    ensure_standard_streams()
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console_main()
