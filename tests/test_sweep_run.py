"""A sweep: every point runs once, whatever stops it or fails, and all are compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from absl.testing import flagsaver
from written_runs import write_run

from trainer import task
from trainer.config import Config
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.records.console import Console
from trainer.sweep import points
from trainer.sweep_run import ChildProcess, new_sweep_dir, run_sweep

ROOT = Path(__file__).resolve().parents[1]


class PretendedProcess(ChildProcess):
    """Stands in for the process of a point: writes the run directory of one that is done."""

    def __init__(self, ends: Callable[[Config], int] = lambda config: EXIT_DONE) -> None:
        super().__init__(None)
        self.seeds: list[int] = []
        self._ends = ends

    def run(self, command: Sequence[str]) -> int:
        assert command[:3] == [sys.executable, "-m", "trainer.task"]
        given = dict(argument.removeprefix("--").split("=", 1) for argument in command[3:] if "=" in argument)
        config = Config.from_json(Path(given["config"]).read_text("utf-8"))
        self.seeds.append(config.seed)
        code = self._ends(config)
        if code == EXIT_DONE:
            set_fields = {name: getattr(config, name) for name in ("seed", "epochs")}
            write_run(Path(given["run_dir"]), "a" * (90 + config.seed) + "b" * (10 - config.seed), config=set_fields)
        return code


def swept(folder: Path, process: ChildProcess, text: str = "seed=1,2,3", **common: object) -> int:
    return run_sweep(points(common, text), str(folder), Console(), process)


def test_every_point_runs_in_its_own_folder_and_all_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = PretendedProcess()
    assert swept(tmp_path / "s", process) == EXIT_DONE
    assert process.seeds == [1, 2, 3]
    assert sorted(os.listdir(tmp_path / "s")) == ["compare.html", "seed=1", "seed=2", "seed=3"]
    told = capsys.readouterr().out
    assert "run 3 of 3: seed=3" in told
    assert "No difference between seed=3 and seed=1 can be told from 100 test examples" in told
    assert "Comparison of 3 runs" in (tmp_path / "s" / "compare.html").read_text("utf-8")


def test_the_same_command_runs_what_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = PretendedProcess(lambda config: EXIT_PREEMPTED if config.seed == 2 else EXIT_DONE)
    assert swept(tmp_path / "s", first) == EXIT_PREEMPTED
    assert first.seeds == [1, 2]
    told = capsys.readouterr()
    assert f"stopped at run 2 of 3: seed=2. The same command with --run_dir={tmp_path / 's'} goes on" in told.err
    assert not (tmp_path / "s" / "compare.html").exists()
    second = PretendedProcess()
    assert swept(tmp_path / "s", second) == EXIT_DONE
    assert second.seeds == [2, 3]
    assert "run 1 of 3: seed=1: done already" in capsys.readouterr().out


def test_a_run_of_other_settings_or_that_is_not_done_is_not_taken_for_done(tmp_path: Path) -> None:
    write_run(tmp_path / "s" / "seed=1", "aab", config={"seed": 1, "epochs": 7})
    write_run(tmp_path / "s" / "seed=2", "aab", config={"seed": 2}, status={"state": "failed"})
    write_run(tmp_path / "s" / "seed=3", "aab", config={"seed": 3})
    (tmp_path / "s" / "seed=3" / "status.json").write_text("{", encoding="utf-8")
    process = PretendedProcess()
    assert swept(tmp_path / "s", process) == EXIT_DONE
    assert process.seeds == [1, 2, 3]


def test_a_point_that_fails_does_not_stop_the_others_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = PretendedProcess(lambda config: {2: 139, 3: EXIT_USER}.get(config.seed, EXIT_DONE))
    assert swept(tmp_path / "s", process, "seed=1,2,3,4") == 139
    assert process.seeds == [1, 2, 3, 4]
    told = capsys.readouterr()
    assert "error: 2 of 4 runs failed, first seed=2 with exit code 139" in told.err
    assert "seed=4 and seed=1" in told.out


def test_fewer_than_two_runs_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept(tmp_path / "s", PretendedProcess(), "seed=1") == EXIT_DONE
    assert "1 run of this sweep: nothing to compare." in capsys.readouterr().out
    assert not (tmp_path / "s" / "compare.html").exists()


def test_a_folder_that_is_a_run_is_refused(tmp_path: Path) -> None:
    process = PretendedProcess()
    with pytest.raises(UserError, match="holds a run: give --sweep a folder of its own"):
        swept(Path(write_run(tmp_path / "r", "ab")), process)
    assert process.seeds == []


def test_a_sweep_without_a_folder_gets_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moment = datetime(2026, 11, 22, 9, 30)
    assert [new_sweep_dir(moment) for _ in range(2)] == ["runs/20261122-093000-sweep", "runs/20261122-093000-sweep-2"]
    assert all(path.is_dir() for path in (tmp_path / "runs").iterdir())


SAVES_WHEN_ASKED = """
import signal, sys, time
from pathlib import Path
asked = []
signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
Path(sys.argv[1]).write_text("ready")
end = time.monotonic() + 30
while not asked and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.2)
Path(sys.argv[1]).write_text(" ".join(str(int(number)) for number in asked))
sys.exit(75)
"""


def ask_when_ready(log: Path, number: signal.Signals) -> threading.Thread:
    def ask() -> None:
        deadline = time.monotonic() + 20
        while not (log.exists() and log.read_text("utf-8")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "number, heard", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)]
)
def test_a_signal_reaches_the_run_once_and_is_waited_for(
    tmp_path: Path, number: signal.Signals, heard: signal.Signals
) -> None:
    log, process, before = tmp_path / "log", ChildProcess(None), signal.getsignal(number)
    with process.listening():
        asking = ask_when_ready(log, number)
        code = process.run([sys.executable, "-c", SAVES_WHEN_ASKED, str(log)])
        asking.join()
        assert process.run([sys.executable, "-c", "raise SystemExit(3)"]) == EXIT_PREEMPTED
    assert (code, log.read_text("utf-8")) == (75, str(int(heard)))
    assert process.asked and signal.getsignal(number) is before


def test_a_run_does_not_hear_of_the_terminals_ctrl_c_itself(tmp_path: Path) -> None:
    """Twice would mean: at once, without saving."""
    program = "import os, sys; sys.exit(os.getpgid(0) == int(sys.argv[1]))"
    assert ChildProcess(None).run([sys.executable, "-c", program, str(os.getpgid(0))]) == 0


def test_after_its_time_a_run_is_asked_to_end(tmp_path: Path) -> None:
    log, process = tmp_path / "log", ChildProcess(1.0)
    assert process.run([sys.executable, "-c", SAVES_WHEN_ASKED, str(log)]) == 75
    assert log.read_text("utf-8") == str(int(signal.SIGTERM))
    assert process.run([sys.executable, "-c", ""]) == EXIT_PREEMPTED


@pytest.mark.parametrize("program, code", [("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_one_a_shell_tells(program: str, code: int) -> None:
    assert ChildProcess(None).run([sys.executable, "-c", program]) == code


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.task", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_a_dry_run_lists_the_points_and_leaves_nothing(tmp_path: Path) -> None:
    done = program("--sweep=seed=1,2 epochs=3", f"--run_dir={tmp_path / 's'}", "--dry_run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 runs, one after the other:\n  seed=1,epochs=3\n  seed=2,epochs=3\n"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--sweep="], "--sweep is empty"),
        (["--sweep=seed=1,2", "--strategy=multi_worker"], "--strategy=multi_worker does not go with it"),
        (["--sweep=seed=1,2", "--epochs=0"], "--sweep, seed=1: --epochs=0"),
    ],
)
def test_what_no_sweep_can_be_made_of_ends_with_a_sentence(arguments: list[str], sentence: str) -> None:
    with flagsaver.flagsaver():
        task.parse_flags(["task", *arguments])
        with pytest.raises(UserError, match=sentence):
            task.sweep()


def test_a_sweep_of_real_runs_and_again(tmp_path: Path) -> None:
    """Over a setting that changes no result: the runs are equal."""
    common = [
        "--data=synthetic:3",
        "--image_size=8",
        "--epochs=1",
        "--examples_per_class=40",
        "--export=",
        "--noreport",
    ]
    command = [*common, "--sweep=keep_checkpoints=1,3", f"--run_dir={tmp_path / 's'}"]
    done = program(*command)
    assert done.returncode == EXIT_DONE, done.stderr
    status = json.loads((tmp_path / "s" / "keep_checkpoints=3" / "status.json").read_text("utf-8"))
    examples = status["test"]["examples"]
    verdict = f"keep_checkpoints=1 and keep_checkpoints=3 do not differ: they answer all {examples} test examples alike"
    assert verdict in " ".join(done.stdout.split())
    assert "other settings that differ\n  --keep_checkpoints=1: keep_checkpoints=1\n" in done.stdout
    assert (tmp_path / "s" / "compare.html").is_file()
    again = program(*command)
    assert again.returncode == EXIT_DONE
    assert again.stdout.count("done already") == 2 and "epoch" not in again.stdout
