"""What workers print, line by line, with the name of who said it in front.

    [worker 0] epoch  1/10  loss 0.6300  accuracy 0.8214

A worker prints into a pipe, in pieces that end anywhere; only whole lines are passed on, so that no two are mixed. Of
a line that a carriage return starts anew, as progress bars do, the last state is shown.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from typing import IO, TextIO

from trainer.terminal import discard, printable

LONGEST_LINE = 2**16
"""Characters; what is longer is shown in pieces, so that a worker that never ends its line fills no memory."""

_READ_BYTES = 2**16

_SENTENCES = ("error: ", "warning: ")
"""How the trainer's errors and warnings begin."""

_OWN_NAME = "launch"
"""Who says the launcher's own lines."""

_COLORS = (36, 33, 32, 35, 34, 31)
"""Foreground colors of the prefixes (ECMA-48: cyan, yellow, green, magenta, blue, red), by the worker's number."""


class LineSplitter:
    """Cuts a stream of bytes into lines of text."""

    def __init__(self) -> None:
        """Begins at the start of a line."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """The lines that `data` completes, without their ends; all that is left, if nothing will follow.

        Args:
          data: the next bytes, UTF-8; what is not becomes escapes.
          final: nothing follows.
        """
        *lines, self._rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        # A carriage return at the very end may be half of a line end; what is before the one in front of it is gone.
        self._rest = _last_state(self._rest)
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return [_last_state(line).rstrip("\r") for line in lines]


class Printer:
    """Prints lines with a prefix.

    A run outlives who watches it: when nobody can read any more, lines vanish. A reader that is there and does not
    read, such as a pager, holds up the launcher once the pipe is full, and then the workers.
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str]) -> None:
        """Chooses by the stream whether prefixes are colored.

        Args:
          stream: where to; a terminal gets colors.
          environment: NO_COLOR (https://no-color.org) or TERM=dumb there mean no colors.
        """
        self._stream = stream
        self._colored = (
            stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
        )
        self._broken = False

    def print(self, name: str, color: int | None, lines: list[str]) -> None:
        """Prints lines at once.

        Args:
          name: who says it, as in "worker 0".
          color: a number that goes with the name; None for the terminal's own color.
          lines: without line ends; control codes in them and in the name, which could recolor or move, are shown as
            escapes.
        """
        if self._broken or not lines:
            return
        prefix = f"[{printable(name, self._stream.encoding)}]"
        if self._colored and color is not None:
            prefix = f"\x1b[{_COLORS[color % len(_COLORS)]}m{prefix}\x1b[0m"
        visible = [printable(line, self._stream.encoding, kept="\t") for line in lines]
        text = "".join(f"{prefix} {line}\n" for line in visible)
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._broken = True
            discard(self._stream)


class Console:
    """What a person sees of a launch: the workers' lines and the launcher's own, which say so in front."""

    def __init__(self, out: TextIO, err: TextIO, environment: Mapping[str, str], *, quiet: bool = False) -> None:
        """Prints nothing yet.

        Args:
          out: for notes and what workers print to standard output.
          err: for warnings and what workers print to standard error.
          environment: see `Printer`.
          quiet: print no notes.
        """
        self.out = Printer(out, environment)
        self.err = Printer(err, environment)
        self._quiet = quiet

    def note(self, text: str) -> None:
        """Prints a line, unless it is to be quiet."""
        if not self._quiet:
            self.out.print(_OWN_NAME, None, [text])

    def warning(self, text: str) -> None:
        """Prints a line to standard error, quiet or not."""
        self.err.print(_OWN_NAME, None, [text])


class WorkerOutput:
    """One of the two streams that a worker prints to, and where it is shown."""

    def __init__(self, pipe: IO[bytes], printer: Printer, name: str, color: int, said: dict[str, str]) -> None:
        """Takes over a pipe.

        Args:
          pipe: what the worker prints into.
          printer: shows it.
          name: of the worker.
          color: a number that goes with the name.
          said: errors and warnings, and who said them. One that another worker has said already is not shown again:
            what is wrong with a flag is wrong for all of them.
        """
        self._pipe = pipe
        self._printer = printer
        self._name = name
        self._color = color
        self._said = said
        self._splitter = LineSplitter()

    def fileno(self) -> int:
        """Of the pipe, for selectors."""
        return self._pipe.fileno()

    def pass_on(self) -> bool:
        """Shows what has come, and waits for something where nothing has; False at the end of the stream."""
        data = os.read(self.fileno(), _READ_BYTES)
        self._show(self._splitter.feed(data, final=not data))
        return bool(data)

    def close(self) -> None:
        """Closes the pipe; shows a line that was begun and not ended."""
        self._show(self._splitter.feed(b"", final=True))
        self._pipe.close()

    def _show(self, lines: list[str]) -> None:
        self._printer.print(self._name, self._color, [line for line in lines if self._is_news(line)])

    def _is_news(self, line: str) -> bool:
        return not line.startswith(_SENTENCES) or self._said.setdefault(line, self._name) == self._name


def _last_state(line: str) -> str:
    """What carriage returns leave of a line: the part behind the last one that something follows."""
    start = line.rfind("\r", 0, len(line.rstrip("\r")))
    return line[start + 1 :]
