"""Flags from the fields of a Config, and a Config from flags.

`trainer.task` reads the command line with it, and `launch` the flags that it will hand on, so that a wrong one is said
once and before anything is started. It imports no TensorFlow.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_args

from absl import flags
from pydantic.fields import FieldInfo

from trainer.config import Config
from trainer.config_errors import values_from_json
from trainer.config_fields import field_topic
from trainer.config_values import credentials_problem
from trainer.errors import UserError

# What is defined here belongs to the module that asks for it: `--help` shows the flags of the program's own module.
flags.disclaim_key_flags()


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the trainer's flags: config, dry_run, quiet, and one for every field of `Config`, with its default."""
    flags.DEFINE_string(
        "config", "", "Read the configuration from this JSON file; flags override it.", flag_values=flag_values
    )
    flags.DEFINE_bool(
        "dry_run", False, "Print the resolved configuration and the plan; train nothing.", flag_values=flag_values
    )
    flags.DEFINE_bool("quiet", False, "Print nothing but warnings and errors.", flag_values=flag_values)
    for name, field in Config.model_fields.items():
        text = f"[{field_topic(field)}] {field.description}"
        if field.annotation is bool:
            flags.DEFINE_bool(name, field.default, text, flag_values=flag_values)
        else:
            shown = _choices(field)
            text = f"{text} One of {', '.join(shown)}." if shown else text
            flags.DEFINE_string(name, as_flag(field.default), text, flag_values=flag_values)


def parse_arguments(flag_values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Sets flags from a command line.

    Args:
      flag_values: as `define_flags` left them.
      arguments: without the program's name.

    Raises:
      UserError: a flag that is not known or lacks its value, or an argument that is no flag.
      SystemExit: what absl raises for --help and its like, where they are defined.
    """
    rest = parse_command_line(flag_values, arguments)
    if rest:
        raise UserError(f"{rest[0]} is not a flag: every argument starts with --, as in --data=folder:PATH.")


def parse_command_line(flag_values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Sets flags from a command line and gives the arguments that are none.

    Args:
      flag_values: with the flags that there are.
      arguments: without the program's name.

    Raises:
      UserError: a flag that is not known or lacks its value, or a value that is not accepted.
      SystemExit: what absl raises for --help and its like, where they are defined.
    """
    try:
        return list(flag_values(["", *arguments])[1:])
    except flags.Error as error:
        raise UserError(flag_sentence(error)) from None


def flag_sentence(error: flags.Error) -> str:
    """What absl says of a flag, as one sentence."""
    sentence = re.sub(r" \?$", "?", str(error).strip().removeprefix("ERROR:: "))
    boolean = re.match(r"flag (--.+): \('Non-boolean argument to boolean flag', .+\)$", sentence, re.DOTALL)
    sentence = f"{boolean[1]}: must be true or false" if boolean else sentence
    unknown = error.flagname if isinstance(error, flags.UnrecognizedFlagError) else ""
    if unknown.startswith("no") and unknown[2:] in Config.model_fields:
        sentence = f"--{unknown} is not a flag: --{unknown[2:]} takes a value, and --{unknown[2:]}= an empty one"
    elif unknown in Config.model_fields:
        sentence = f"--{unknown} is a flag of trainer.task; trainer.preflight takes those too, behind --"
    return f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'}"


def config_from_flags(flag_values: flags.FlagValues, read_text: Callable[[str], str]) -> Config:
    """The configuration: defaults, overridden by --config, overridden by the flags that were given.

    Args:
      flag_values: parsed flags that `define_flags` defined.
      read_text: reads the file of --config.

    Raises:
      UserError: the file or a value is not accepted.
    """
    values = values_from_flags(flag_values, read_text)
    if not flag_values.config:
        return Config.parse(values)
    try:
        return Config.parse(values)
    except UserError as error:
        raise UserError(f"--config={flag_values.config}: {error}") from None


def values_from_flags(flag_values: flags.FlagValues, read_text: Callable[[str], str]) -> dict[str, Any]:
    """What --config and the flags set, unchecked; `config_from_flags` makes a Config of it.

    Raises:
      UserError: the file of --config cannot be read, or is no JSON object.
    """
    given = {name: flag_values[name].value for name in Config.model_fields if flag_values[name].present}
    if not flag_values.config:
        return given
    problem = credentials_problem(flag_values.config)
    if problem:
        raise UserError(f"--config {problem}.")
    return values_from_json(read_text(flag_values.config), origin=f"--config={flag_values.config}") | given


def read_local_text(path: str) -> str:
    """A text file of this machine, for `config_from_flags`.

    Raises:
      UserError: it is not there or cannot be read.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(
            f"--config={path} cannot be read ({reason}): give a JSON file such as a run directory's config.json."
        ) from None


def as_flag(default: object) -> str:
    """A default as one would write it on the command line: "75,15,10"."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def command_line(config: Config) -> str:
    """The command that does a run again in a new directory: what is not at its default, quoted for a shell."""
    return " ".join(["python -m trainer.task", *map(shlex.quote, flags_of(config, leave_out=_ABOUT_ONE_START))])


def flags_of(config: Config, *, leave_out: Collection[str] = ()) -> list[str]:
    """The flags that come to a configuration: one for each field that is not at its default.

    Args:
      config: what they come to.
      leave_out: fields that get no flag.
    """
    written = config.model_dump()
    return [
        _argument(name, written[name])
        for name, field in type(config).model_fields.items()
        if name not in leave_out and getattr(config, name) != field.default
    ]


_ABOUT_ONE_START = ("run_dir", "run_dir_layout", "resume", "inject", "inject_on_tpu", "max_minutes")
"""What whoever repeats a run does not want repeated."""


def _argument(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={as_flag(value)}"


def _choices(field: FieldInfo) -> tuple[str, ...]:
    choices = get_args(field.annotation)
    return choices if choices and all(isinstance(choice, str) for choice in choices) else ()
