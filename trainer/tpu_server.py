"""TensorFlow's server for the TPU chips of one host, on every host of a slice that has several.

    python -m trainer.tpu_server --port=8470

The trainer on the slice's first host drives all of them by `--tpu=grpc://HOST0:8470,HOST1:8470,...` (`trainer.tpu`).
The server is of the same TensorFlow as the trainer, from the same image; it ends on SIGTERM. Whoever reaches the port
can run anything here, as with every server of TensorFlow: it belongs behind a firewall.

Proven without a TPU: servers like this one and a client become one cluster, whose operations run on the host they are
meant for. Not proven: that their chips start as one slice; no TPU was ever at hand.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import flags

from trainer.errors import EXIT_DONE, UserError
from trainer.program import start
from trainer.startup import import_tensorflow_quietly

DEFAULT_PORT = 8470
"""Where the TPU servers of Google Cloud listen (TensorFlow 2.21)."""


_ENDING = (signal.SIGTERM, signal.SIGINT)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines --port."""
    flags.DEFINE_integer("port", DEFAULT_PORT, "Where the server listens, on all interfaces.", flag_values=flag_values)


def main(arguments: Sequence[str]) -> NoReturn:
    """Serves as the flags say.

    Raises:
      UserError: a flag is not accepted, or TensorFlow cannot serve.
    """
    if arguments:
        raise UserError(f"{arguments[0]} is not a flag: give --port=NUMBER alone.")
    port: int = flags.FLAGS.port
    check_port(port)
    hold_signals()
    import_tensorflow_quietly(local_tpu=True)
    from trainer.tpu import has_tpu_support

    require_tpu_support(has_tpu_support)
    serve(port)


def hold_signals() -> None:
    """Keeps SIGTERM and Ctrl-C for `serve`, from all threads that are started after this.

    When a client connects, TensorFlow puts a handler of its own in the place of ours, which lets the server go on
    (2.21, "preemption_notifier"). A signal that every thread has blocked is waited for, and needs none.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def require_tpu_support(supported: Callable[[], bool]) -> None:
    """Makes sure that this TensorFlow can use TPUs.

    Args:
      supported: whether it can.

    Raises:
      UserError: it cannot.
    """
    import tensorflow as tf

    if not supported():
        raise UserError(f"This TensorFlow ({tf.__version__}) has no TPU support: take the image's target tpu.")


def check_port(port: int) -> None:
    """Makes sure that the port is free: TensorFlow would share it silently with another server.

    Raises:
      UserError: it is no port, or taken.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port={port}: must be a number from 1 to 65535.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Connections of a server that has just ended do not matter, as they do not to TensorFlow.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--port={port} cannot be listened on ({error.strerror}): end the other TPU server of this machine, or "
                "give another port."
            ) from None


def serve(port: int) -> NoReturn:
    """Serves until SIGTERM or Ctrl-C, which `hold_signals` must have been told before TensorFlow was imported.

    Args:
      port: free.

    Raises:
      UserError: the server does not start.
    """
    import tensorflow as tf

    try:
        # The cluster of which this host is a part comes with the client; until then it is one of its own.
        _server = tf.distribute.Server({"worker": [f"localhost:{port}"]}, job_name="worker", task_index=0)
    except tf.errors.OpError as error:
        raise UserError(f"No TPU server starts at --port={port} ({error.message.splitlines()[0]}).") from error
    print(f"TPU server of TensorFlow {tf.__version__} at port {port}", flush=True)
    number = signal.sigwait(_ENDING)
    print(f"TPU server: {signal.Signals(number).name}", flush=True)
    sys.stderr.flush()
    os._exit(EXIT_DONE)  # TensorFlow cannot stop a server, and aborts where one is deleted (2.21).


if __name__ == "__main__":
    start(main, define_flags)
