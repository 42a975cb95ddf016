"""The step of cloudbuild.yaml that submits a job: words come through, and it submits when it is told to."""

from __future__ import annotations

import tempfile

import builds
import pytest

from launch.packaging import build_step
from launch.packaging.build_step import step, submit_arguments, substitution_of, words
from trainer.errors import UserError

ENVIRONMENT = {
    "SUBMIT": "true",
    "JOB_TARGET": "tpu-vm",
    "JOB_PROJECT": "p",
    "JOB_IMAGE": "image:1",
    "JOB_SUBMISSION": "5d1b",
    "JOB_RECORDS": "gs://b/jobs",
    "LAUNCH_OPTIONS": "--accelerator=v5litepod-8 --zone='us-west4-a'",
    "TRAINER_FLAGS": '["--data=digits", "--run_dir=gs://b/a folder"]',
}


def test_the_arguments_are_those_of_submit() -> None:
    assert submit_arguments(ENVIRONMENT) == [
        *("submit", "tpu-vm", "--project=p", "--image=image:1", "--submission=5d1b", "--records=gs://b/jobs"),
        *("--accelerator=v5litepod-8", "--zone=us-west4-a"),
        *("--", "--data=digits", "--run_dir=gs://b/a folder"),
    ]


def test_a_record_that_nobody_keeps_goes_where_anybody_may_write() -> None:
    assert f"--records={tempfile.gettempdir()}/hub-trainer-jobs" in submit_arguments({**ENVIRONMENT, "JOB_RECORDS": ""})


@pytest.mark.parametrize("said", ["false", "", "True"])
def test_nothing_is_submitted_unless_it_is_said(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_step, "main", lambda arguments: pytest.fail("it was submitted"))
    assert step({**ENVIRONMENT, "SUBMIT": said}) == 0
    assert f"_SUBMIT={said}: no job is submitted." in capsys.readouterr().out


def test_its_exit_code_is_that_of_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        given.append(arguments)
        return 7

    monkeypatch.setattr(build_step, "main", main)
    assert step(ENVIRONMENT) == 7
    assert given == [submit_arguments(ENVIRONMENT)]


def test_words_are_as_a_shell_splits_them_or_a_list() -> None:
    assert words("_A", "") == words("_A", "  ") == []
    assert words("_A", "--a='b c' --d=\"e,f\" g") == ["--a=b c", "--d=e,f", "g"]
    assert words("_A", "$HOME `id` $(id)") == ["$HOME", "`id`", "$(id)"]
    assert words("_A", ' ["--a=b c"]') == ["--a=b c"]


def test_what_is_made_of_words_is_read_back_and_holds_no_substitution() -> None:
    text = substitution_of(builds.HOSTILE_WORDS)
    assert "$" not in text and text.isascii() and "\n" not in text
    assert words("_A", text) == list(builds.HOSTILE_WORDS)
    assert substitution_of([]) == ""


@pytest.mark.parametrize("text", ["--a='b", '["--a"', '["--a", 1]', "[1]"])
def test_what_cannot_be_split_is_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="^_TRAINER_FLAGS="):
        submit_arguments({**ENVIRONMENT, "TRAINER_FLAGS": text})
    assert step({**ENVIRONMENT, "TRAINER_FLAGS": text}) == 2
    assert capsys.readouterr().err.startswith("error: _TRAINER_FLAGS=")
