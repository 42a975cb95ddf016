"""Retrains a TensorFlow Hub module on labelled images.

    python -m trainer.task                                                    the built-in sample, no network
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE             your photos, a Hub module
    python -m trainer.task --config=RUN_DIR/config.json --seed=1              a run again, with a change
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE --dry_run   what it would do

This is the only place that reads flags. Every field of `trainer.config.Config` is one.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import get_args

from absl import app, flags
from pydantic.fields import FieldInfo

from trainer.config import Config
from trainer.config_errors import values_from_json
from trainer.config_fields import field_topic
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.records.console import printable
from trainer.records.goodput import Stopwatch
from trainer.startup import import_tensorflow_quietly, require_temporary_folder

FLAGS = flags.FLAGS

_CONFIG = flags.DEFINE_string("config", "", "Read the configuration from this JSON file; flags override it.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved configuration and the plan; train nothing.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print nothing but warnings and errors.")


def define_config_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines a flag for every field of `Config`, with its default and description."""
    for name, field in Config.model_fields.items():
        text = f"[{field_topic(field)}] {field.description}"
        if field.annotation is bool:
            flags.DEFINE_bool(name, field.default, text, flag_values=flag_values)
        else:
            shown = _choices(field)
            text = f"{text} One of {', '.join(shown)}." if shown else text
            flags.DEFINE_string(name, as_flag(field.default), text, flag_values=flag_values)


def config_from_flags(flag_values: flags.FlagValues, read_text: Callable[[str], str]) -> Config:
    """The configuration: defaults, overridden by --config, overridden by the flags that were given.

    Args:
      flag_values: parsed flags that `define_config_flags` defined.
      read_text: reads a file, local or gs://.

    Raises:
      UserError: the file or a value is not accepted.
    """
    given = {name: flag_values[name].value for name in Config.model_fields if flag_values[name].present}
    if not flag_values.config:
        return Config.parse(given)
    origin = f"--config={flag_values.config}"
    values = values_from_json(read_text(flag_values.config), origin=origin)
    try:
        return Config.parse(values | given)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def main(argv: Sequence[str]) -> int:
    """Trains as the flags say.

    Args:
      argv: the program's name and whatever was no flag.

    Returns:
      The exit code (`trainer.errors`).
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stopwatch = Stopwatch()
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]} is not a flag: every argument starts with --, as in --data=folder:PATH.")
        config = config_from_flags(FLAGS, read_text)
        require_temporary_folder()
        with stopwatch.measure("startup"):
            import_tensorflow_quietly()
            from trainer import run

        return run.execute(config, dry_run=_DRY_RUN.value, quiet=_QUIET.value, stopwatch=stopwatch)
    except UserError as error:
        _print_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt:
        _print_error("interrupted before the run began; nothing was written.")
        return EXIT_PREEMPTED


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with our exit codes and without its usage text for a flag that is not known."""
    try:
        return list(FLAGS(argv))
    except flags.Error as error:
        sentence = re.sub(r" \?$", "?", str(error).strip().removeprefix("ERROR:: "))
        boolean = re.match(r"flag (--.+): \('Non-boolean argument to boolean flag', .+\)$", sentence, re.DOTALL)
        sentence = f"{boolean[1]}: must be true or false" if boolean else sentence
        _print_error(f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'}")
        raise SystemExit(EXIT_USER) from None
    except SystemExit:  # What --help and its like raise, with 1.
        raise SystemExit(EXIT_DONE) from None


def _print_error(sentence: str) -> None:
    """Prints on one line, whatever control codes and line ends a name in it has."""
    text = printable(sentence, sys.stderr.encoding).replace("\n", "\\n")
    print(f"error: {text}", file=sys.stderr)


def read_text(path: str) -> str:
    """A text file, local or gs://.

    Raises:
      UserError: it is not there or cannot be read.
    """
    if not path.startswith("gs://"):
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(
                f"--config={path} cannot be read ({reason}): give a JSON file such as a run directory's config.json."
            ) from None
    from trainer.storage import RunDirectory

    folder, _, name = path.rpartition("/")
    return RunDirectory(folder, "--config").read_text(name)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    choices = get_args(field.annotation)
    return choices if choices and all(isinstance(choice, str) for choice in choices) else ()


def as_flag(default: object) -> str:
    """A default as one would write it on the command line: "75,15,10"."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def console_main() -> None:
    """Entry point of the installed program."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before the program started.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    # `--help | head` ends as other programs do; a run goes on without its reader (`trainer.records.console`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app.run(main, flags_parser=parse_flags)


define_config_flags()

if __name__ == "__main__":
    console_main()
