"""`launch run`: which processes a command line stands for, and which command lines are refused."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from launch.__main__ import main
from launch.commands.run_command import add_options, planned_launch
from launch.local.supervise import Launch, supervise
from launch.local.worker_logs import Console
from trainer.config import Config
from trainer.errors import EXIT_USER, UserError

MOMENT = datetime(2026, 11, 21, 9, 30)
RUN_DIR = "runs/20261121-093000-digits-convnet"


def planned(options: Sequence[str], flags: Sequence[str]) -> tuple[Launch, bool]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return planned_launch(parser.parse_args(options), flags, MOMENT)


def added(options: Sequence[str], *flags: str) -> list[str]:
    """What the workers' command has beside the given flags."""
    launch, _ = planned(options, flags)
    start = [sys.executable, "-m", "trainer.task", *flags]
    assert launch.command[: len(start)] == start
    return list(launch.command[len(start) :])


def test_a_worker_is_the_trainer_with_the_given_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launch, quiet = planned(["--workers=2", "--max_restarts=3"], ["--epochs", "3", "--notrain_backbone"])
    assert (launch.workers, launch.max_restarts, quiet) == (2, 3, False)
    assert list(launch.command[3:]) == [
        *("--epochs", "3", "--notrain_backbone"),
        "--strategy=multi_worker",
        f"--run_dir={RUN_DIR}",
    ]
    assert launch.how_to_go_on == f"The same command with --run_dir={RUN_DIR} goes on from the last checkpoint."


def test_a_new_run_directory_is_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in (RUN_DIR, f"{RUN_DIR}-2", f"{RUN_DIR}-3"):
        assert f"--run_dir={expected}" in added(["--workers=1"])
        Path(expected).mkdir(parents=True)


def test_a_run_directory_that_is_given_stays(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(Config(run_dir="there", strategy="mirrored").to_json(), encoding="utf-8")
    for flag in ("--run_dir=here", f"--config={file}"):
        assert added(["--workers=2"], flag) == ["--strategy=multi_worker"]
        launch, _ = planned(["--workers=2"], [flag])
        assert launch.how_to_go_on == "The same command goes on from the last checkpoint."
    assert added(["--workers=2"], "--dry_run") == ["--strategy=multi_worker"]


def test_options_of_the_launcher_are_handed_on() -> None:
    assert added(["--workers=2", "--virtual_devices=4", "--quiet"], "--run_dir=r") == [
        "--strategy=multi_worker",
        "--virtual_devices=4",
        "--quiet",
    ]
    assert added(["--workers=2", "--quiet"], "--run_dir=r", "--quiet") == ["--strategy=multi_worker"]
    _, quiet = planned(["--workers=2"], ["--quiet", "--run_dir=r"])
    assert quiet
    added(["--workers=2", "--virtual_devices=4"], "--run_dir=r", "--strategy=multi_worker", "--virtual_devices=4")


def test_what_is_added_is_not_lost_behind_an_end_of_flags() -> None:
    launch, _ = planned(["--workers=2"], ["--run_dir=r", "--"])
    assert list(launch.command[3:]) == ["--run_dir=r", "--strategy=multi_worker"]


@pytest.mark.parametrize(
    ("flags", "added_flags"),
    [
        (["--run_dir=r", "--resume=never"], ["--resume=auto"]),
        (["--run_dir=r"], []),
        # Their own checkpoints come first anyway, and without any it is the place to start from.
        (["--run_dir=r", "--resume=other"], []),
    ],
)
def test_a_restart_goes_on_with_what_the_run_has_left(flags: list[str], added_flags: list[str]) -> None:
    launch, _ = planned(["--workers=2"], flags)
    assert [*launch.command, *added_flags] == launch.restart_command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run", "The following arguments are required: --workers; python -m launch run --help shows what there is."),
        ("run --workers=0", "--workers=0: must be a whole number from 1 to 64."),
        ("run --workers=two", "--workers=two: must be a whole number from 1 to 64."),
        ("run --workers=2 --max_restarts=-1", "--max_restarts=-1: must be a whole number from 0 to 10000."),
        ("run --workers=2 --virtual_devices=65", "--virtual_devices=65: must be a whole number from 0 to 64."),
        ("run --work=2", "The following arguments are required: --workers;"),
        (
            "run --workers=2 --data=digits",
            "--data=digits is no option of launch; the trainer's flags stand behind --, as in python -m launch run",
        ),
        ("run --workers=2 -- --epoch=3", "Unknown command line flag 'epoch'. Did you mean: epochs?"),
        ("run --workers=2 -- --epochs=0", "--epochs=0: must be greater than or equal to 1."),
        ("run --workers=2 -- --epochs", "Missing value for flag --epochs."),
        ("run --workers=2 -- digits", "digits is not a flag: every argument starts with --"),
        (
            "run --workers=2 -- --data=digit",
            "--data=digit: must be digits, folder:PATH, tfrecord:PATTERN, tfds:NAME, csv:FILE or",
        ),
        ("run --workers=2 -- --help", "--help behind -- is the trainer's: python -m trainer.task --help lists its"),
        ("run --workers=2 -- --strategy=mirrored", "--strategy=mirrored does not go with launch run"),
        ("run --workers=2 -- --strategy=default", "--strategy=default does not go with launch run"),
        ("run --workers=2 -- --config=/no/file.json", "--config=/no/file.json cannot be read (No such file"),
        ("run --workers=2 -- --config=gs://b/c.json", "--config=gs://b/c.json: launch reads files of this machine"),
        ("run --workers=3", "--batch_size=32 cannot be shared by 3 replicas; take 30 or 33."),
        (
            "run --workers=2 --virtual_devices=4 -- --batch_size=28",
            "--batch_size=28 cannot be shared by 8 replicas; take 24 or 32.",
        ),
        (
            "run --workers=2 --virtual_devices=4 -- --batch_size=6",
            "--batch_size=6 cannot be shared by 8 replicas; take 8.",
        ),
        (
            "run --workers=3 -- --virtual_devices=2",
            "--batch_size=32 cannot be shared by 6 replicas; take 30 or 36.",
        ),
        (
            "run --workers=2 --virtual_devices=2 -- --virtual_devices=4",
            "--virtual_devices=2 stands before -- and --virtual_devices=4 behind it: give one.",
        ),
        ("", "The following arguments are required: COMMAND; python -m launch --help shows what there is."),
        ("walk", "Argument COMMAND: invalid choice: 'walk'"),
    ],
)
def test_what_is_wrong_is_said_once_before_anything_starts(
    arguments: str, sentence: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def start(*_: object) -> int:
        raise AssertionError("workers were started")

    monkeypatch.setattr("launch.local.supervise.supervise", start)
    assert main(arguments.split()) == EXIT_USER
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_name_with_control_codes_is_shown_on_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--workers=2", "--", "--data=folder\n\x1b[31m"]) == EXIT_USER
    assert capfd.readouterr().err.startswith("error: --data=folder\\n\\x1b[31m: must be digits")


def test_the_system_may_refuse_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(["/no/such/program"], [], 2)
    with pytest.raises(
        UserError, match=r"Worker 0 could not be started \(.*No such file.*\): are --workers too many\?"
    ):
        supervise(launch, Console(io.StringIO(), io.StringIO(), {}), {})
