"""A program of ours in a process of its own, which cannot hurt this one: bounded in time, and ended with its children.

It writes what it found as JSON, an object a line, so that what was found before it ended is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.terminal import printable

LONGEST_WORDS = 300
"""Characters of another program's sentence that are handed on."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
      failure: a clause on what went wrong, as in "its process was killed (SIGKILL), …"; "" if nothing did.
      said: its standard output and error.
    """

    failure: str
    said: str


def run_bounded(
    command: Sequence[str],
    *,
    folder: Path,
    seconds: float,
    program: Path | None = None,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs a command to its end.

    Args:
      command: to run.
      folder: an own one, which gets what it says.
      seconds: after which it is killed.
      program: what it reads as standard input; None: nothing.
      directory: to run in; None: this process's.
      environment: instead of this process's.

    Raises:
      OSError: the command cannot be run.
    """
    source = program or Path(os.devnull)
    with source.open("rb") as given, (folder / "said").open("w+b") as said:
        process = subprocess.Popen(
            list(command),
            stdin=given,
            stdout=said,
            stderr=said,
            cwd=directory,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            failure = ""
        except subprocess.TimeoutExpired:
            code, failure = 0, f"it had not answered after {seconds:.0f} s: give it longer, by --timeout"
        finally:
            # Also where this process is interrupted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        words = said.read().decode(errors="replace")
    return Ended(failure or _failure(code, words), words)


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The objects that a process wrote; a last line that was cut off is left out. [] where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1]]


def last_line(said: str) -> str:
    """The last line with something in it, fit to be printed."""
    lines: Iterable[str] = (line.strip() for line in reversed(said.splitlines()))
    return printable(next(filter(None, lines), "it said nothing")[:LONGEST_WORDS], None)


def _failure(code: int, said: str) -> str:
    """What an exit code means; "" for success."""
    if "MemoryError" in said or "bad_alloc" in said or "Cannot allocate memory" in said:
        return "this machine has not enough memory for it: take one with more, or a smaller --batch_size"
    if code == -signal.SIGKILL:
        return (
            "its process was killed (SIGKILL), which is how a machine that runs out of memory ends one: take one with "
            "more memory"
        )
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}: {last_line(said)}"
    return f"its process failed with exit code {code}: {last_line(said)}" if code else ""
