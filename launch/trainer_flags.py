"""The flags of the trainer behind "--", checked as it would check them, before anything is started or sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from trainer.config import Config


def parsed_flags(trainer_flags: Sequence[str]) -> FlagValues:
    """The flags by name, each with whether it was given.

    Raises:
      UserError: one is not known or lacks its value, or asks for the trainer's help.
    """
    from absl import flags

    from trainer.config_flags import define_flags, parse_arguments

    if {"--help", "-help"} & set(trainer_flags):
        raise UserError("--help behind -- is the trainer's: python -m trainer.task --help lists its flags.")
    values = flags.FlagValues()
    define_flags(values)
    parse_arguments(values, trainer_flags)
    return values


def config_of(trainer_flags: Sequence[str]) -> Config:
    """What the flags come to; `--config` names a file of this machine.

    Raises:
      UserError: the file, a flag or a value is not accepted.
    """
    from trainer.config_flags import config_from_flags

    return config_from_flags(parsed_flags(trainer_flags), read_text)


def read_text(path: str) -> str:
    """The text of a file of this machine, for `--config`.

    Raises:
      UserError: it is on gs://, is not there or cannot be read.
    """
    from trainer.config_flags import read_local_text

    if path.startswith("gs://"):
        raise UserError(f"--config={path}: launch reads files of this machine; copy it here and give that path.")
    return read_local_text(path)


def without_end_marks(trainer_flags: Sequence[str]) -> list[str]:
    """The flags without further "--" at their end, behind which absl would read none that are added."""
    flags = list(trainer_flags)
    while flags and flags[-1] == "--":
        flags.pop()
    return flags
