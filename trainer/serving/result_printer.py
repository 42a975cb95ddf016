"""Results on standard output, one a line, and a progress bar wherever a person looks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from trainer.errors import UserError
from trainer.records.console import Console
from trainer.terminal import printable


class ResultPrinter:
    """Prints results to a terminal, above the bar, or to a file or pipe, while the bar goes to standard error.

    A context manager: at its end the bar is taken away.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        """Looks at the streams.

        Args:
          out: for results.
          err: for notes, warnings and, unless `out` is a terminal, the bar; without any terminal there is none.
        """
        self._out = out
        self._err = err
        self._console = Console(out=out if out.isatty() else err, err=err)
        self.width: int | None = _columns(out) if out.isatty() else None
        """Columns of a terminal that results go to; None has room for all."""

    def __enter__(self) -> ResultPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.close()

    def results(self, lines: Sequence[str]) -> None:
        """Prints lines.

        Raises:
          BrokenPipeError: nobody reads them any more.
          UserError: they cannot be written, as to a full disk.
        """
        if not lines:
            return
        text = "\n".join(lines)
        if self._out.isatty():
            self._console.note(text)
            return
        try:
            print(printable(text, self._out.encoding, kept="\n"), file=self._out, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"The results cannot be written ({error.strerror}): send them elsewhere.") from None

    def warning(self, text: str) -> None:
        """Prints a line to standard error, whatever control codes a name in it has."""
        self._console.warning(printable(text, None))

    def note(self, text: str) -> None:
        """Prints a line that is no result to standard error, after the last result."""
        self._console.close()
        print(printable(text, self._err.encoding), file=self._err, flush=True)

    def progress(self, title: str, done: int, total: int | None) -> None:
        """Shows how many images are done, on a terminal alone."""
        if self._out.isatty() or self._err.isatty():
            self._console.work(title, done, total)


def _columns(terminal: TextIO) -> int:
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
