"""Retrains a TensorFlow Hub module on labelled images.

    python -m trainer.task                                                    the built-in sample, no network
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE             your photos, a Hub module
    python -m trainer.task --config=RUN_DIR/config.json --seed=1              a run again, with a change
    python -m trainer.task --data=folder:PHOTOS --backbone=HANDLE --dry_run   what it would do

Every field of `trainer.config.Config` is a flag (`trainer.config_flags`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

from absl import app, flags

from trainer.config_flags import config_from_flags, define_flags, parse_arguments, read_local_text
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.preemption_notice import watch_for_notice
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.run_dir import take_run_dir
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.stop_request import StopRequest
from trainer.terminal import ensure_standard_streams, print_error

FLAGS = flags.FLAGS


def main(_: Sequence[str]) -> int:
    """Trains as the flags say; gives the exit code (`trainer.errors`)."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stopwatch = Stopwatch()
    try:
        config = config_from_flags(FLAGS, read_text)
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


def read_text(path: str) -> str:
    """A text file, local or gs://.

    Raises:
      UserError: it is not there or cannot be read.
    """
    if not path.startswith("gs://"):
        return read_local_text(path)
    from trainer.storage import RunDirectory

    folder, _, name = path.rpartition("/")
    return RunDirectory(folder, "--config").read_text(name)


def console_main() -> None:
    """Entry point of the installed program."""
    ensure_standard_streams()
    # `--help | head` ends as other programs do; a run goes on without its reader (`trainer.records.console`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app.run(main, flags_parser=parse_flags)


define_flags(FLAGS)

if __name__ == "__main__":
    console_main()
