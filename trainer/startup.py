"""Imports TensorFlow without the chatter that it prints before anybody can ask it to be quiet."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.errors import UserError

_GCS_SETTINGS = {
    # By default TensorFlow believes for 5 s what it knew of an object, though another writer has replaced it.
    "GCS_STAT_CACHE_MAX_AGE": "0",
    # Whoever asks for less than this many bytes of an object gets as many: 64 MiB by default, for each single record.
    "GCS_READAHEAD_BUFFER_SIZE_BYTES": str(2**18),
    # After 1, 2, 4, ... at most 32 s, so that it gives up after 63 s; 10 by default, which is 191 s.
    "GCS_RETRY_CONFIG_MAX_RETRIES": "6",
    # To connect; 120 by default. Each of the seven attempts may take that long.
    "GCS_REQUEST_CONNECTION_TIMEOUT_SECS": "10",
    # Without a single byte, until a request is ended and repeated; 60 by default.
    "GCS_REQUEST_IDLE_TIMEOUT_SECS": "20",
    # For a whole request about an object, whose answer is short; an hour by default.
    "GCS_METADATA_REQUEST_TIMEOUT_SECS": "60",
    # For a whole read, of 256 KiB or of one tensor; an hour by default. To upload an object may take TensorFlow's hour:
    # a large checkpoint on a slow line does, and what stands still has ended long before.
    "GCS_READ_REQUEST_TIMEOUT_SECS": "600",
}
"""What TensorFlow's own gs:// file system is told where nobody told it otherwise, with its defaults as of 2.21."""

_TEMPORARY_BYTES = 2**20
"""What TensorFlow's generated code and the like may need among the temporary files."""


def require_temporary_folder() -> None:
    """Makes sure that there is room for temporary files: without, TensorFlow fails with errors about other things.

    Raises:
      UserError: the folder for them is full or cannot be written.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_TEMPORARY_BYTES))
    except OSError as error:
        where = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
        raise UserError(
            f"Temporary files cannot be written to {where} ({error.strerror}): free some space there, or let the "
            "environment variable TMPDIR name another folder."
        ) from None


def import_tensorflow_quietly(*, local_tpu: bool = False) -> None:
    """Imports TensorFlow; what it printed is shown only if the import fails.

    Args:
      local_tpu: whether the chips of this very machine will be used.

    TensorFlow 2.21 (2026) writes some lines to standard error before its log level counts. Its level is set to errors
    for all that follows, unless `TF_CPP_MIN_LOG_LEVEL` says otherwise; absl's Python log is set to warnings. Its gs://
    file system gets other defaults (`_GCS_SETTINGS`); variables that are set already stay as they are. Keras 3.15 would
    import Matplotlib, jax and scikit-learn where they are installed, for galleries, a backend and wrappers that nothing
    here uses: 0.4 s, 0.7 s and 0.7 s of each start.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name, value in _GCS_SETTINGS.items():
        os.environ.setdefault(name, value)
    if not local_tpu:
        # With it, importing tensorflow-tpu 2.20.0 looks for chips, for more than 300 s where there are none; and on the
        # first worker of a slice, which reaches its chips through servers, it must not take them itself.
        os.environ.setdefault("TPU_LOAD_LIBRARY", "0")
    with (
        standard_error_held_back(),
        _without("matplotlib"),
        _without("jax"),
        _without("sklearn"),
        _without_garbage_collection(),
    ):
        import keras  # noqa: F401
        import tensorflow as tf
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Has a package look as if it were not installed, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Does not look for garbage while TensorFlow is imported, nor later among what is there then.

    Modules make a million objects and hardly any garbage: to look for it took 0.5 of the 2.7 s of processor time that
    importing TensorFlow 2.21 takes (2026).
    """
    enabled, imported_before = gc.isenabled(), "tensorflow" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if not imported_before:  # Otherwise there may be garbage by now.
            gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def standard_error_held_back() -> Iterator[None]:
    """Keeps what is written to file descriptor 2, by C++ too, and writes it out only if an exception passes."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
