"""Where results, warnings and the bar go: terminals of 60 columns, files and pipes."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from trainer.errors import UserError
from trainer.serving.result_printer import ResultPrinter


class Terminal:
    """A pseudo-terminal of 60 columns: what is written to `stream` can be read."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")

    def written(self) -> str:
        self.stream.flush()
        os.set_blocking(self._master, False)
        found = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._master, 2**16):
                found += part
        return found.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    opened = Terminal()
    yield opened
    opened.close()


def run_through(out: TextIO, err: TextIO) -> ResultPrinter:
    with ResultPrinter(out, err) as printer:
        printer.progress("images", 1, None)
        printer.results(["a.jpg  daisy 0.750", "b.jpg  rose 0.500"])
        printer.warning("c\x1b[31m\n.jpg: damaged")
        printer.progress("images", 3, 3)
        printer.note("error: 1 of 3 images could not be read.")
    return printer


def test_a_file_gets_results_alone_and_no_bar_without_a_terminal() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert run_through(out, err).width is None
    assert out.getvalue() == "a.jpg  daisy 0.750\nb.jpg  rose 0.500\n"
    assert err.getvalue().splitlines() == [
        r"warning: c\x1b[31m\n.jpg: damaged",
        "error: 1 of 3 images could not be read.",
    ]


def test_results_in_a_file_leave_the_bar_to_standard_error(terminal: Terminal) -> None:
    out = io.StringIO()
    assert run_through(out, terminal.stream).width is None
    assert out.getvalue() == "a.jpg  daisy 0.750\nb.jpg  rose 0.500\n"
    written = terminal.written()
    assert "images" in written and "3/3" in written and "None" not in written and "daisy" not in written
    assert r"warning: c\x1b[31m\n.jpg: damaged" in written


def test_a_terminal_gets_all_of_it(terminal: Terminal) -> None:
    assert run_through(terminal.stream, terminal.stream).width == 60
    written = terminal.written()
    for part in ("a.jpg  daisy 0.750\r\nb.jpg  rose 0.500\r\n", "3/3", "damaged", "1 of 3 images could not be read."):
        assert part in written
    assert written.endswith("could not be read.\r\n")


def test_results_on_a_terminal_have_the_bar_with_them_and_a_file_gets_warnings_alone(terminal: Terminal) -> None:
    err = io.StringIO()
    run_through(terminal.stream, err)
    written = terminal.written()
    assert "a.jpg  daisy 0.750" in written and "3/3" in written and "damaged" not in written
    assert err.getvalue().splitlines()[0] == r"warning: c\x1b[31m\n.jpg: damaged" and "3/3" not in err.getvalue()


def test_a_character_that_the_stream_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    ResultPrinter(out, io.StringIO()).results(["größe"])
    assert raw.getvalue() == b"gr\\xf6\\xdfe\n"


def test_a_full_disk_is_a_sentence_and_a_closed_pipe_is_not() -> None:
    class Broken(io.StringIO):
        def __init__(self, error: OSError) -> None:
            super().__init__()
            self._error = error

        def write(self, text: str) -> int:
            raise self._error

    with pytest.raises(UserError, match=r"The results cannot be written \(No space left on device\)"):
        ResultPrinter(Broken(OSError(28, "No space left on device")), io.StringIO()).results(["x"])
    with pytest.raises(BrokenPipeError):
        ResultPrinter(Broken(BrokenPipeError(32, "Broken pipe")), io.StringIO()).results(["x"])
