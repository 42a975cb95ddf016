"""Retrains a TensorFlow Hub module on labelled images.

    python -m trainer.task                                                    the built-in sample, no network
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE             your photos, a Hub module
    python -m trainer.task --config=RUN_DIR/config.json --seed=1              a run again, with a change
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE --dry_run   what it would do
    python -m trainer.task --sweep='learning_rate=1e-4,1e-3 backbone=A,B'     four runs, and how they compare

Every field of `trainer.config.Config` is a flag (`trainer.config_flags`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from datetime import datetime

from absl import app, flags

from trainer.config_flags import (
    config_from_flags,
    define_flags,
    parse_arguments,
    values_from_flags,
)
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.preemption_notice import watch_for_notice
from trainer.program import prepare_storage, read_text
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.run_dir import take_run_dir
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.stop_request import StopRequest
from trainer.terminal import ensure_standard_streams, print_error
from trainer.vertex_output import output_directory, with_vertex_output
from trainer.wording import counted

FLAGS = flags.FLAGS


def main(_: Sequence[str]) -> int:
    """Trains as the flags say; gives the exit code (`trainer.errors`)."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stopwatch = Stopwatch()
    try:
        if FLAGS["sweep"].present:
            return sweep()
        config = with_vertex_output(config_from_flags(FLAGS, read_text), os.environ)
        require_temporary_folder()
        stop = StopRequest(max_minutes=config.max_minutes, within_seconds=config.stop_seconds)
        with stop.listening(), contextlib.ExitStack() as held:
            watch_for_notice(stop.interrupt, os.environ)
            with stopwatch.measure("startup"):
                for fault in config.faults:
                    if fault.kind == "gcs_503":
                        from trainer.injection_proxy import Gcs503Proxy  # Here: few runs need what it imports.

                        held.enter_context(Gcs503Proxy(fault.amount, config.seed))
                # First: a second job on the same directory ends at once.
                lease = None if FLAGS.dry_run else take_run_dir(config, os.environ, Console(quiet=FLAGS.quiet).note)
                if lease:
                    held.enter_context(lease)
                import_tensorflow_quietly(local_tpu=config.strategy == "tpu" and config.tpu == "local")
                from trainer import run

            return run.execute(
                config, dry_run=FLAGS.dry_run, quiet=FLAGS.quiet, stopwatch=stopwatch, stop=stop, lease=lease
            )
    except UserError as error:
        print_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt as interruption:
        print_error(f"{str(interruption) or 'interrupted'} before the run began; nothing was written.")
        return EXIT_PREEMPTED


def sweep() -> int:
    """Runs the points of --sweep one after the other, or lists them with --dry_run; gives the exit code.

    Raises:
      UserError: --sweep is not accepted, or its folder cannot be used.
    """
    from trainer import sweep_run
    from trainer.sweep import points

    console = Console(quiet=FLAGS.quiet)
    found = points(values_from_flags(FLAGS, read_text), FLAGS.sweep)
    if any(point.config.strategy == "multi_worker" for point in found):
        raise UserError("--sweep runs on one machine: --strategy=multi_worker does not go with it.")
    if FLAGS.dry_run:
        console.note(f"{counted(len(found), 'run')}, one after the other:")
        for point in found:
            console.note(f"  {point.name}")
        return EXIT_DONE
    require_temporary_folder()
    minutes = max(point.config.max_minutes for point in found)
    process = sweep_run.ChildProcess(60 * minutes if minutes else None)
    with process.listening():
        sweep_dir = found[0].config.run_dir or output_directory(os.environ) or sweep_run.new_sweep_dir(datetime.now())
        prepare_storage([sweep_dir])
        flags_of_each = ["--quiet"] if FLAGS.quiet else []
        return sweep_run.run_sweep(found, sweep_dir, console, process, flags=flags_of_each)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with our exit codes and sentences; gives the program's name, since nothing else may be left."""
    try:
        parse_arguments(FLAGS, argv[1:])
    except UserError as error:
        print_error(str(error))
        raise SystemExit(EXIT_USER) from None
    except SystemExit:  # What --help and its like raise, with 1.
        raise SystemExit(EXIT_DONE) from None
    return list(argv[:1])


def console_main() -> None:
    """Entry point of the installed program."""
    ensure_standard_streams()
    # `--help | head` ends as other programs do; a run goes on without its reader (`trainer.records.console`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app.run(main, flags_parser=parse_flags)


define_flags(FLAGS)
flags.DEFINE_string(
    "sweep",
    "",
    "Run every combination of some values, each in a folder of its own in --run_dir, and compare them: fields with "
    "their values, as in 'learning_rate=1e-4,1e-3 backbone=A,B'; quotation marks hold a value with commas or blanks "
    'together, as in \'splits="75,15,10","50,25,25"\'. The same command goes on where it stopped.',
)

if __name__ == "__main__":
    console_main()
