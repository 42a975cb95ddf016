"""Gets data sets of TensorFlow Datasets that are not prepared yet, and never waits for a network that is silent."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from trainer.errors import UserError

PUBLIC_DATA_DIR = "gs://tfds-data/datasets"
"""Google's bucket of prepared data sets (TensorFlow Datasets 4.9.10, 2026-11)."""

_PUBLIC_LISTING = "https://storage.googleapis.com/storage/v1/b/tfds-data/o"

_ANSWER_SECONDS = 10.0

_SILENT_SECONDS = 180.0
"""So long may a preparation say nothing: its progress bars move with every file, part of a file and example."""

_RETRYING_SECONDS = 30.0
"""So long may it do nothing but try to connect; by itself it would for many minutes."""

_RETRYING = b"Retrying (Retry("
"""What urllib3 warns of when a connection fails."""

_SECONDS_BETWEEN_REPORTS = 10.0


def public_data_dir(name: str) -> str | None:
    """The public bucket, if it has the data set; None if it has not.

    Raises:
      UserError: the bucket does not answer.
    """
    import requests

    prefix = "datasets/" + "/".join(filter(None, re.split("[/:]", name))) + "/"
    try:
        answer = requests.get(
            _PUBLIC_LISTING, params={"prefix": prefix, "maxResults": "1"}, timeout=_ANSWER_SECONDS, stream=False
        )
        answer.raise_for_status()
        found = answer.json().get("items")
    except (requests.RequestException, ValueError, AttributeError) as error:
        raise UserError(
            f"{PUBLIC_DATA_DIR} cannot be asked for data set {name} ({type(error).__name__}): check the network, or "
            f"prepare the data set where there is one, with {shown(command(name, None))}, and give its --data_dir."
        ) from None
    return PUBLIC_DATA_DIR if found else None


def prepare(name: str, data_dir: str | None, report: Callable[[str], None]) -> None:
    """Downloads and prepares a data set, by TensorFlow Datasets in a process of its own.

    Args:
      name: NAME[/CONFIG][:VERSION].
      data_dir: where to; None for the default.
      report: called with sentences on the progress.

    Raises:
      UserError: it failed, or said nothing for so long that the network must be silent.
    """
    report(f"Data set {name} is not prepared yet; downloading and preparing it with {shown(command(name, data_dir))}.")
    problem = _run([sys.executable, *command(name, data_dir)[1:]], name, report)
    if not problem:
        return
    raise UserError(
        f"Data set {name} is not prepared and cannot be downloaded here ({problem}): where there is a network, run "
        f"{shown(command(name, data_dir))}, and give that --data_dir."
    )


def command(name: str, data_dir: str | None, file_format: str = "") -> list[str]:
    """What prepares a data set on any machine with a network and TensorFlow Datasets.

    Not `tfds build`, which does not start without apache-beam (4.9.10, 2026-11).

    Args:
      name: NAME[/CONFIG][:VERSION].
      data_dir: where to; None for the default.
      file_format: of the files, "" for the default.
    """
    where = f", data_dir={data_dir!r}" if data_dir else ""
    form = f"file_format={file_format!r}" if file_format else ""
    program = f"import tensorflow_datasets as tfds; tfds.builder({name!r}{where}).download_and_prepare({form})"
    return ["python", "-c", program]


def shown(words: Sequence[str]) -> str:
    """A command as one types it into a shell, in double quotes where those do."""
    *plain, last = words
    return shlex.join(words) if set(last) & set('"$`\\!') else f'{shlex.join(plain)} "{last}"'


def _run(words: Sequence[str], name: str, report: Callable[[str], None]) -> str:
    """Runs a command until it ends, falls silent, or does nothing any more but try to connect.

    Returns:
      Why it did not succeed, as a short phrase; "" if it did.
    """
    # A session of its own, so that what it starts ends with it.
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )
    assert process.stdout is not None
    tail = _Tail(process.stdout)
    last_report = time.monotonic()
    try:
        while process.poll() is None:
            if problem := tail.problem():
                return problem
            if time.monotonic() - last_report > _SECONDS_BETWEEN_REPORTS:
                report(f"Preparing {name}: {tail.last_line()}")
                last_report = time.monotonic()
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        tail.finish()
    return tail.last_line() if process.returncode else ""


class _Tail:
    """The end of what a process prints, read in a thread."""

    _KEPT_BYTES = 4096

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._end = b""
        self._heard = time.monotonic()
        self._retrying = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._stream.fileno(), self._KEPT_BYTES):
            self._end = (self._end + chunk)[-self._KEPT_BYTES :]
            self._retrying = _RETRYING in chunk
            if not self._retrying:
                self._heard = time.monotonic()

    def problem(self) -> str:
        """Why there is no point in waiting on, as a short phrase; "" if there may be one."""
        silence = time.monotonic() - self._heard
        if self._retrying and silence > _RETRYING_SECONDS:
            return "its servers cannot be reached"
        return f"nothing happened for {silence:.0f} seconds" if silence > _SILENT_SECONDS else ""

    def finish(self) -> None:
        """Waits until the process's last words are read."""
        self._thread.join(timeout=5)
        self._stream.close()

    def last_line(self) -> str:
        """The last line that is not empty, 300 characters of it."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self._end.decode(errors="replace")) if line.strip()]
        return lines[-1][:300] if lines else "it has said nothing yet"
