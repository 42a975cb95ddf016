"""Text that cannot garble a terminal, errors on one line, and streams that are there."""

from __future__ import annotations

import sys

import pytest

from trainer.terminal import ensure_standard_streams, print_error, printable


def test_control_codes_are_shown_and_not_obeyed() -> None:
    assert printable("\x1b[31mred\x07\ttab \u2028 ü", None, kept="\t") == "\\x1b[31mred\\x07\ttab \\u2028 ü"
    assert printable("two\nlines\r", None, kept="\n") == "two\nlines\\r"
    assert printable("ü", "ascii") == "\\xfc"


def test_an_error_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("no such folder: a\nb\t\x1b[2J")
    assert capsys.readouterr() == ("", "error: no such folder: a\\nb\\t\\x1b[2J\n")


def test_streams_that_were_closed_take_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    out = sys.stdout
    monkeypatch.setattr(sys, "stderr", None)
    ensure_standard_streams()
    assert sys.stdout is out
    with sys.stderr:
        print_error("nobody reads this")
