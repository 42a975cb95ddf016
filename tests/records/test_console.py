"""What a person sees: in a log, and in terminals of several widths, by way of a pseudo-terminal."""

import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.records.console import SECONDS_BETWEEN_LINES, Console
from trainer.records.status import Status
from trainer.training.actions import ShowProgress
from trainer.training.loop import Boundary, Progress

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m")
METRICS = {"loss": 0.4321, "accuracy": 0.9123}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """The writing end of a pseudo-terminal of a given width, with all that was written to it."""

    encoding = "utf-8"

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._master, self._slave = os.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def isatty(self) -> bool:
        return os.isatty(self._slave)

    def fileno(self) -> int:
        return self._slave

    def close(self) -> None:
        if not self.closed:
            os.close(self._master)
            os.close(self._slave)
        super().close()

    def rows(self) -> list[str]:
        """All that was ever drawn, row by row, without control codes."""
        return [row.strip() for row in re.split(r"[\r\n]+", CONTROL.sub("", self.getvalue())) if row.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Opens pseudo-terminals as one of a person with no special environment."""
    opened = []
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def open_terminal(columns: int) -> Terminal:
        opened.append(Terminal(columns))
        # rich asks the process's own streams, not the one that it prints to, how wide the window is.
        monkeypatch.setenv("COLUMNS", str(columns))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def show(console: Console, step: int = 2580, epoch: int = 3) -> None:
    speed: dict[str, Any] = {"examples_per_second": 1834.2, "unit": "img"}
    console.progress(epoch=epoch, epochs=10, step=step, steps_total=4300, metrics=METRICS, **speed)


def run_through(out: Terminal, err: io.StringIO | None = None) -> Console:
    """Some progress, an epoch, a warning, more progress; each moment is drawn."""
    clock = Clock()
    console = Console(out=out, err=err or io.StringIO(), clock=clock)
    for step in (0, 2150, 2580):
        clock.now = step / 10
        show(console, step)
        assert console._bar is not None
        console._bar._live.refresh()
    console.epoch_done(epoch=3, epochs=10, train=METRICS, validation=METRICS)
    console.warning("odd")
    return console


class TestLog:
    def test_lines_come_every_few_seconds_and_for_every_epoch(self) -> None:
        out, clock = io.StringIO(), Clock()
        console = Console(out=out, clock=clock)
        console.note("images   [bold]5[/bold] classes")
        for second in range(int(3 * SECONDS_BETWEEN_LINES)):
            clock.now = float(second)
            show(console, step=second)
        console.epoch_done(epoch=3, epochs=10, train=METRICS, validation=METRICS)
        console.epoch_done(epoch=10, epochs=10, train=METRICS, validation={})
        console.close()
        assert out.getvalue().splitlines() == [
            "images   [bold]5[/bold] classes",
            "step 10/4300  loss 0.4321  accuracy 0.9123  1,834 img/s",
            "step 20/4300  loss 0.4321  accuracy 0.9123  1,834 img/s",
            "epoch  3/10  loss 0.4321  accuracy 0.9123  validation loss 0.4321  accuracy 0.9123",
            "epoch 10/10  loss 0.4321  accuracy 0.9123",
        ]

    def test_quiet_prints_warnings_only(self, terminal: Callable[[int], Terminal]) -> None:
        for out in (io.StringIO(), terminal(80)):
            err = io.StringIO()
            console = Console(quiet=True, out=out, err=err)
            console.note("x")
            show(console)
            console.epoch_done(epoch=1, epochs=1, train=METRICS, validation={})
            console.warning("careful")
            console.close()
            assert (out.getvalue(), err.getvalue()) == ("", "warning: careful\n")

    def test_no_control_codes_even_where_colour_is_forced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        out, clock = io.StringIO(), Clock()
        console = Console(out=out, clock=clock)
        clock.now = 2 * SECONDS_BETWEEN_LINES
        show(console)
        assert "\x1b" not in out.getvalue() and out.getvalue().startswith("step 2580/4300")

    def test_what_a_file_name_holds_is_harmless(self, tmp_path: Path) -> None:
        out = io.StringIO()
        Console(out=out).note("a \x1b[31mred\x07 \udcff[/bold] name\nß")
        assert out.getvalue() == "a \\x1b[31mred\\x07 \\udcff[/bold] name\nß\n"
        with open(tmp_path / "log", "w", encoding="ascii") as log:
            Console(out=log).note("größe …")
        assert (tmp_path / "log").read_text() == "gr\\xf6\\xdfe \\u2026\n"

    def test_a_dumb_terminal_gets_lines(
        self, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, clock = terminal(80), Clock()
        monkeypatch.setenv("TERM", "dumb")
        console = Console(out=out, clock=clock)
        clock.now = 2 * SECONDS_BETWEEN_LINES
        show(console)
        assert out.getvalue() == "step 2580/4300  loss 0.4321  accuracy 0.9123  1,834 img/s\n"


class TestTerminal:
    @pytest.mark.parametrize(
        ("columns", "left", "right"),
        [
            (100, "epoch 3/10", "2580/4300  loss 0.432  accuracy 0.912  1,834 img/s  2:52 left"),
            (80, "epoch 3/10", "2580/4300  loss 0.432  acc 0.912  1,834/s  2:52"),
            (60, "3/10", "2580/4300  loss 0.432  acc 0.912  2:52"),
            (40, "3/10", "2580/4300  2:52"),
            (20, "", "2580/4300"),
        ],
    )
    def test_the_bar_fits_the_window(
        self, terminal: Callable[[int], Terminal], columns: int, left: str, right: str
    ) -> None:
        out = terminal(columns)
        run_through(out).close()
        bars = [row for row in out.rows() if "━" in row]
        assert re.fullmatch(rf"{re.escape(left)} ?[━╸╺ ]+ {re.escape(right)}", bars[-1])
        assert max(len(row) for row in bars) < columns

    @pytest.mark.parametrize(
        ("columns", "lines"),
        [
            (100, ["epoch  3/10  loss 0.4321  accuracy 0.9123  validation loss 0.4321  accuracy 0.9123"]),
            (80, ["epoch  3/10 loss 0.4321 accuracy 0.9123, validation loss 0.4321 accuracy 0.9123"]),
            (60, ["epoch  3/10  loss 0.4321  accuracy 0.9123", "validation  loss 0.4321  accuracy 0.9123"]),
        ],
    )
    def test_an_epoch_fits_the_window(
        self, terminal: Callable[[int], Terminal], columns: int, lines: list[str]
    ) -> None:
        out = terminal(columns)
        run_through(out).close()
        rows = out.rows()
        start = rows.index(lines[0])
        assert rows[start : start + len(lines)] == lines
        assert max(map(len, lines)) < columns

    def test_an_entry_goes_on_under_its_text_and_no_word_is_cut(self, terminal: Callable[[int], Terminal]) -> None:
        narrow, wide, log = terminal(30), terminal(100), io.StringIO()
        for out in (narrow, wide, log):
            Console(out=out, err=out).entry("images", "folder /photos/two\nlines: 9 to train, 2 to test")
        assert narrow.getvalue().splitlines() == [
            "images   folder",
            "         /photos/two\\nlines: 9",
            "         to train, 2 to test",
        ]
        whole = "images   folder /photos/two\\nlines: 9 to train, 2 to test\n"
        assert wide.getvalue() == log.getvalue() == whole

    def test_notes_and_warnings_stand_above_the_bar_as_they_are(self, terminal: Callable[[int], Terminal]) -> None:
        out = terminal(60)
        console = run_through(out, err=out)
        console.note("[bold]not markup[/bold] and longer than the window is wide, so that the terminal wraps it")
        rows = out.rows()
        assert "warning: odd" in rows
        assert "[bold]not markup[/bold] and longer than the window is wide, so that the terminal wraps it" in rows
        assert "━" in rows[-1]
        console.close()

    def test_warnings_go_to_standard_error_where_that_is_a_file(self, terminal: Callable[[int], Terminal]) -> None:
        out, err = terminal(80), io.StringIO()
        run_through(out, err).close()
        assert err.getvalue() == "warning: odd\n"
        assert "odd" not in out.getvalue()

    def test_colours_only_where_they_are_wanted(
        self, terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        coloured = terminal(80)
        run_through(coloured).close()
        assert COLOUR.search(coloured.getvalue())
        monkeypatch.setenv("NO_COLOR", "1")
        plain = terminal(80)
        run_through(plain).close()
        assert not COLOUR.search(plain.getvalue())
        assert any("━" in row for row in plain.rows())

    def test_the_terminal_is_given_back_whatever_happens(self, terminal: Callable[[int], Terminal]) -> None:
        out, before, stdout = terminal(80), set(threading.enumerate()), sys.stdout
        with pytest.raises(KeyboardInterrupt), run_through(out):
            started = set(threading.enumerate()) - before
            raise KeyboardInterrupt
        hidden, shown = out.getvalue().rfind("\x1b[?25l"), out.getvalue().rfind("\x1b[?25h")
        assert 0 <= hidden < shown
        assert sys.stdout is stdout
        for thread in started:
            thread.join(timeout=10)
            assert not thread.is_alive()

    def test_no_time_is_promised_before_there_is_a_speed(self, terminal: Callable[[int], Terminal]) -> None:
        out = terminal(100)
        console = Console(out=out)
        console.progress(epoch=1, epochs=1, step=0, steps_total=9, metrics={}, examples_per_second=None, unit="img")
        console.close()
        assert re.fullmatch(r"epoch 1/1 ━+ 0/9", out.rows()[-1])


def test_work_shows_a_bar_on_a_terminal_and_takes_it_away(terminal: Callable[[int], Terminal]) -> None:
    out = terminal(60)
    console = Console(out=out, err=out)
    console.work("features", 30, 120)
    console.work("features", 60, 120)
    console.close()
    console.note("done")
    assert any(re.fullmatch(r"features .* 60/120", row) for row in out.rows())
    assert out.rows()[-1] == "done"


def test_work_tells_a_log_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(out=out, clock=clock)
    for done, now in ((10, 5.0), (20, SECONDS_BETWEEN_LINES), (30, SECONDS_BETWEEN_LINES + 1), (40, 25.0)):
        clock.now = now
        console.work("features", done, 120)
    assert out.getvalue() == "features 20 of 120\nfeatures 40 of 120\n"
    console = Console(quiet=True, out=out, clock=clock)
    clock.now = 99.0
    console.work("features", 50, 120)
    assert "50" not in out.getvalue()


class TestWaiting:
    @pytest.mark.parametrize(
        ("columns", "line"), [(60, "compile  the training step  1:15"), (24, "compile  the tra…  1:15")]
    )
    def test_a_terminal_shows_the_time_until_it_is_over(
        self, terminal: Callable[[int], Terminal], columns: int, line: str
    ) -> None:
        out, clock = terminal(columns), Clock()
        console = Console(out=out, err=out, clock=clock)
        with pytest.raises(ValueError, match="fails"), console.waiting("compile", "the training step"):
            clock.now = 75.0
            assert console._bar is not None
            console._bar._live.refresh()
            raise ValueError("fails")
        console.note("done")
        assert line in out.rows() and out.rows()[-1] == "done"

    def test_a_log_hears_less_and_less_often_of_what_takes_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trainer.records.console.SECONDS_BETWEEN_LINES", 0.05)
        out, deadline = io.StringIO(), time.monotonic() + 20
        with Console(out=out).waiting("compile", "the training step"):
            while out.getvalue().count("\n") < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        said = out.getvalue()
        assert said.splitlines()[:3] == [
            f"compile  the training step, {seconds:g} s so far" for seconds in (0.05, 0.1, 0.2)
        ]
        assert not any(thread.name == "reminder" for thread in threading.enumerate())

    def test_nothing_is_said_of_what_is_short_or_to_be_quiet(self, terminal: Callable[[int], Terminal]) -> None:
        for out, quiet in ((io.StringIO(), False), (io.StringIO(), True), (terminal(60), True)):
            with Console(quiet=quiet, out=out).waiting("compile", "the training step"):
                pass
            assert out.getvalue() == ""


def test_an_example_is_called_what_it_is() -> None:
    out, clock = io.StringIO(), Clock()
    console, status = Console(out=out, clock=clock), Status(steps_total=9, examples_per_second=1500.0)
    clock.now = 2 * SECONDS_BETWEEN_LINES
    steps = np.arange(1, 3)
    losses = {"loss": np.ones(2), "accuracy": np.ones(2)}
    boundary = Boundary(Progress(2, 0), 1, steps, losses, 1.0, compiled=False, epoch_ended=False, finished=False)
    ShowProgress(console, status, 1, "text")(boundary)
    assert out.getvalue().endswith("1,500 texts/s\n")
