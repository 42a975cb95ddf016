"""The preflight as `launch` asks for it: a process, three answers, and what each means for the job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from jobs import ONE_GPU, V5E_8, make_job

from launch.jobs.preflight import Mode, Preflight, ask, objections
from launch.jobs.prices import Price

TPU_JOB = make_job(V5E_8, "--strategy=tpu", "--quiet")

PRICE = Price(9.6, "8 chips", "a list", "2026-11-22")
UNKNOWN = Price(None, "8 chips", "no public price was found for it")

Run = Callable[..., subprocess.CompletedProcess[str]]


def answering(stdout: str, code: int = 0, stderr: str = "") -> Run:
    return lambda command, **_: subprocess.CompletedProcess(command, code, stdout, stderr)


def of(verdict: str, **rest: Any) -> str:
    return "a line\n" + json.dumps({"verdict": verdict, "sentence": f"{verdict} for v5litepod-8", **rest}) + "\n"


def test_what_is_asked() -> None:
    asked = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        assert options["timeout"] > 0 and options["stdin"] == subprocess.DEVNULL
        return subprocess.CompletedProcess(command, 0, of("fits"), "")

    assert ask(TPU_JOB, "auto", run) == Preflight("fits", "fits for v5litepod-8")
    program = [sys.executable, "-m", "trainer.preflight", "--accelerator=v5litepod-8", "--json", "--timeout=500", "--"]
    assert asked == [[*program, "--strategy=tpu"]]


def test_nobody_is_asked_about_gpus_or_if_it_is_off() -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        raise AssertionError("it was asked")

    assert ask(TPU_JOB, "off", run) is None and ask(make_job(ONE_GPU), "require", run) is None
    assert objections(None, "require") == []


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (answering(of("could not be checked", reason="No compiler."), 3), "No compiler."),
        (answering("", 1, "Traceback\nerror: --epoch is not a flag.\n"), "exit code 1 (--epoch is not a flag)."),
        (answering("no json", -9), "it ended with exit code -9."),
        (answering('{"verdict": "fits"}'), "it ended with exit code 0."),
        (answering("[1]"), "it ended with exit code 0."),
    ],
)
def test_what_is_not_known_is_never_said_to_fit(run: Run, reason: str) -> None:
    answer = ask(TPU_JOB, "auto", run)
    assert answer and answer.verdict == "could not be checked" and answer.text.endswith(reason)
    assert answer.text.startswith("could not be checked for v5litepod-8: ")
    assert objections(answer, "auto") == []
    (objection,) = objections(answer, "require")
    assert objection.startswith("The preflight is required, and it could not be checked for v5litepod-8: ")


def test_a_preflight_that_takes_too_long() -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 1)

    answer = ask(TPU_JOB, "auto", run)
    assert answer and answer.text == "could not be checked for v5litepod-8: it took longer than 20 minutes."


@pytest.mark.parametrize("mode", ["auto", "require"])
def test_what_does_not_compile_is_refused(mode: Mode) -> None:
    problems = [{"message": "tf.print makes every step wait."}, {"message": "Take --batch_size=512."}]
    answer = ask(TPU_JOB, mode, answering(of("does not", problems=problems), 2))
    assert answer
    assert objections(answer, mode) == [
        "The preflight: it does not for v5litepod-8: tf.print makes every step wait. Take --batch_size=512. "
        "(--preflight=off makes the job all the same.)"
    ]


@pytest.mark.parametrize("mode", ["auto", "require"])
def test_what_fits_is_made(mode: Mode) -> None:
    assert objections(ask(TPU_JOB, mode, answering(of("fits"))), mode) == []


@pytest.mark.parametrize(
    ("hours", "price", "told"),
    [
        (2.0, PRICE, "; at best it computes for 2 hours (bound; real steps are slower), $19.20 (bound)"),
        (0.05, PRICE, "; at best it computes for 3 minutes (bound; real steps are slower), $0.48 (bound)"),
        (
            2.0,
            UNKNOWN,
            "; at best it computes for 2 hours (bound; real steps are slower), what it costs is unknown (no",
        ),
        (None, PRICE, ""),
    ],
)
def test_what_a_run_costs_at_best_is_told(hours: float | None, price: Price, told: str) -> None:
    numbers = {} if hours is None else {"numbers": {"hours": {"value": hours, "kind": "bound"}}}
    answer = ask(TPU_JOB, "auto", answering(of("fits", **numbers)))
    assert answer and answer.text_with(price).startswith(f"fits for v5litepod-8{told}")
    assert (answer.text_with(price) == answer.text) == (hours is None)
