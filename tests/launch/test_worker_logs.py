"""Lines from pieces, prefixes, colors, and text that cannot garble a terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from launch.local.worker_logs import LONGEST_LINE, LineSplitter, Printer, WorkerOutput


class Terminal(io.StringIO):
    """What a terminal is to a program that asks."""

    def isatty(self) -> bool:
        return True


def lines_of(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return found + splitter.feed(b"", final=True)


def test_lines_are_whole_however_the_bytes_come() -> None:
    text = "grün\n\nzwei\nthree".encode()
    for size in range(1, len(text) + 1):
        assert lines_of(*(text[at : at + size] for at in range(0, len(text), size))) == ["grün", "", "zwei", "three"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b" 10%\r 20%\r100%\ndone\n", ["100%", "done"]),
        (b" 10%\r 20%\r", [" 20%"]),
        (b"windows\r\nline\r\n", ["windows", "line"]),
        (b"\r\r\n", [""]),
        (b"\rbar", ["bar"]),
    ],
)
def test_of_a_progress_bar_the_last_state_is_shown(text: bytes, lines: list[str]) -> None:
    assert lines_of(text) == lines
    assert lines_of(*(text[at : at + 1] for at in range(len(text)))) == lines


def test_a_progress_bar_that_never_ends_its_line_is_no_long_line() -> None:
    assert lines_of(*[b" 50%\r" * 1000] * 100) == [" 50%"]


def test_a_line_without_end_is_shown_in_pieces() -> None:
    splitter = LineSplitter()
    shown = [line for _ in range(10) for line in splitter.feed(b"x" * 50_000)]
    assert {len(line) for line in shown} == {LONGEST_LINE}
    assert sum(map(len, shown + splitter.feed(b"", final=True))) == 500_000


def test_bytes_that_are_no_text_are_shown_as_escapes() -> None:
    assert lines_of(b"\xff\xfe\n", b"\xc3") == ["\\xff\\xfe", "\\xc3"]


def test_control_codes_are_shown_and_not_obeyed() -> None:
    terminal = Terminal()
    Printer(terminal, {}).print("worker 0", 0, ["\x1b[2J"])
    assert terminal.getvalue() == "[worker 0] \\x1b[2J\n"


@pytest.mark.parametrize(
    ("stream", "environment", "colored"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_only_a_terminal_gets_colors(stream: io.StringIO, environment: dict[str, str], colored: bool) -> None:
    Printer(stream, environment).print("worker 1", 1, ["a", "b"])
    prefix = "\x1b[33m[worker 1]\x1b[0m" if colored else "[worker 1]"
    assert stream.getvalue() == f"{prefix} a\n{prefix} b\n"


def test_neighbours_have_different_colors() -> None:
    terminal = Terminal()
    printer = Printer(terminal, {"TERM": "xterm"})
    for index in range(7):
        printer.print("w", index, ["x"])
    colors = [line.split("m", 1)[0] for line in terminal.getvalue().splitlines()]
    assert len(set(colors[:6])) == 6
    assert colors[6] == colors[0]


def test_what_nobody_can_read_any_more_vanishes() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        printer = Printer(stream, {})
        printer.print("worker 0", 0, ["a"])
        printer.print("worker 0", 0, ["b"])


@pytest.mark.parametrize("sentence", ["error: no such folder", "warning: Interrupted."])
def test_an_error_or_warning_that_all_workers_have_is_said_once(sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "printed"
    file.write_text(f"{sentence}\nepoch 1\n", encoding="utf-8")
    shown, said = io.StringIO(), dict[str, str]()
    for index in range(2):
        output = WorkerOutput(file.open("rb"), Printer(shown, {}), f"worker {index}", index, said)
        assert output.pass_on()
        assert not output.pass_on()
        output.close()
    assert shown.getvalue() == f"[worker 0] {sentence}\n[worker 0] epoch 1\n[worker 1] epoch 1\n"
