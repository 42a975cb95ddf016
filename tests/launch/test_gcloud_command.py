"""What a person pastes is what is meant: a real shell reads it back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launch.google.gcloud_command import GcloudCommand

STAND_IN = "gcloud() { printf '%s\\0' \"$@\"; }\n"
"""A gcloud that prints what it was given."""


def pasted(command: GcloudCommand, folder: Path) -> tuple[str, ...]:
    """What gcloud gets when the command is pasted into a shell in that folder."""
    run = subprocess.run(
        ["sh", "-eu", "-c", STAND_IN + command.shell()], cwd=folder, capture_output=True, text=True, timeout=20
    )
    assert (run.returncode, run.stderr) == (0, "")
    return tuple(run.stdout.split("\0")[:-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ("ai", "custom-jobs", "list"),
        ("logging", "read", "--filter=resource.labels.job_id=\"1\" AND $x `y` 'z'", "--limit=5"),
        ("a", "--empty=", "--zone", "us-west4-a", "", "it's", "--text=two\nlines", "--labels=a=b,c=d", "-x"),
        ("builds", "submit", *(f"--substitutions=_NUMBER_{number}={'x' * 30}" for number in range(5)), "folder name"),
    ],
)
def test_a_shell_reads_back_what_was_meant(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert pasted(GcloudCommand(arguments), tmp_path) == arguments


def test_files_are_written_as_they_are(tmp_path: Path) -> None:
    files = {"job.json": '{"a": "$HOME `x` \\\\ \'"}\n', "two words.txt": "EOF\n EOF\nEOFF\n", "empty": ""}
    command = GcloudCommand(("ai", "--config=job.json"), files)
    assert pasted(command, tmp_path) == command.arguments
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == files


def test_a_file_ends_with_a_line_end() -> None:
    with pytest.raises(ValueError, match=r"job\.json must end with a line end"):
        GcloudCommand((), {"job.json": "{}"})


def test_a_long_command_has_a_line_for_each_flag() -> None:
    command = GcloudCommand(
        ("ai", "custom-jobs", "create", "--region=us-central1", "--zone", "z", "--labels=a=b,c=d", f"--name={'n' * 60}")
    )
    assert command.shell().splitlines() == [
        "gcloud ai custom-jobs create \\",
        "    --region=us-central1 \\",
        "    --zone z \\",
        "    --labels=a=b,c=d \\",
        f"    --name={'n' * 60}",
    ]


def test_a_short_command_stays_on_its_line() -> None:
    assert GcloudCommand(("ai", "custom-jobs", "list", "--filter=a b")).shell() == (
        "gcloud ai custom-jobs list --filter='a b'"
    )
