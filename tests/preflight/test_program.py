"""`python -m trainer.preflight`: what it takes, prints and ends with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from trainer.accelerators import Gpus, gpu_named, slice_named
from trainer.config import Config
from trainer.config_flags import parse_command_line
from trainer.errors import UserError
from trainer.preflight import __main__ as program
from trainer.preflight import check
from trainer.preflight.report import Report
from trainer.preflight.verdict import DoesNot, Problem, Unchecked, Verdict

ROOT = Path(__file__).resolve().parents[2]
SLICE = "v5litepod-8"


def asked(*arguments: str) -> program.Request:
    values = flags.FlagValues()
    program.define_flags(values)
    values.set_gnu_getopt(True)
    return program.request_from_flags(values, parse_command_line(values, arguments))


def test_flags_behind_the_dashes_are_the_trainers() -> None:
    request = asked(f"--accelerator={SLICE}", "--json", "--", "--batch_size=512", "--optimizer=sgd", "--quiet")
    assert request.accelerators == (slice_named(SLICE),)
    assert request.config == Config(strategy="tpu", batch_size=512, optimizer="sgd")
    assert (request.json, request.quiet, request.stage) == (True, False, "auto")


def test_gpus_are_asked_about_as_launch_names_them() -> None:
    request = asked("--accelerator=nvidia-l4:4", "--", "--strategy=mirrored")
    assert request.accelerators == (Gpus(gpu_named("l4"), 4),)
    assert request.config.strategy == "mirrored"


def test_all_is_a_slice_of_each_generation() -> None:
    generations = {slice_.generation.name for slice_ in asked("--accelerator=all").accelerators}  # type: ignore[union-attr]
    assert generations == {"v2", "v3", "v4", "v5e", "v5p", "v6e"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--accelerator=v5litepod-8"),
        (["--accelerator=v5lightpod-8"], "did you mean v5litepod-8"),
        (["--accelerator=l4:0"], "a whole number of GPUs behind the colon, as in l4:2"),
        ([f"--accelerator={SLICE}", "--", "--batchsize=3"], "batchsize"),
        (
            [f"--accelerator={SLICE}", "--batch_size=512"],
            "flag of trainer.task; trainer.preflight takes those too, behind --",
        ),
        ([f"--accelerator={SLICE}", "--", "--strategy=mirrored"], "--strategy=mirrored does not run on TPUs"),
        ([f"--accelerator={SLICE}", "--", "--virtual_devices=2"], "--virtual_devices=2 needs --strategy=mirrored"),
        ([f"--accelerator={SLICE}", "folder"], "folder is not a flag"),
        ([f"--accelerator={SLICE}", "--", "--config=/no/such.json"], "--config=/no/such.json cannot be read"),
    ],
)
def test_what_is_not_accepted_is_said_in_a_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        asked(*arguments)


@pytest.mark.parametrize("fields", [{"precision": "float64"}, {"batch_size": "auto"}, {"batch_size": 12}])
def test_a_run_that_no_slice_takes_is_said_in_a_sentence(fields: dict[str, Any]) -> None:
    config = Config.parse({"strategy": "tpu", **fields})
    request = dataclasses.replace(asked(f"--accelerator={SLICE}", "--cache_dir=off"), config=config)
    with pytest.raises(UserError, match=str(next(iter(fields.values())))):
        program.preflight(request)


def test_reports_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts: dict[str, Verdict] = {
        SLICE: Unchecked(SLICE, "because"),
        "v6e-8": DoesNot("v6e-8", (Problem("train", "host", "prints \x1b[2J"),)),
    }
    monkeypatch.setattr(check.Checker, "check", lambda self, slice_: Report(verdicts[slice_.name], 64))
    request = asked(f"--accelerator={SLICE}", "--cache_dir=off")
    both = dataclasses.replace(request, accelerators=(slice_named(SLICE), slice_named("v6e-8")))

    program.preflight(request)
    assert capsys.readouterr().out == f"{SLICE}: could not be checked\n  why           because\n"
    program.preflight(dataclasses.replace(request, quiet=True))
    assert capsys.readouterr().out == f"{SLICE}: could not be checked\n"
    program.preflight(dataclasses.replace(both, quiet=True))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["accelerator", SLICE, "v6e-8"]
    program.preflight(dataclasses.replace(both, json=True))
    assert [json.loads(line)["exit_code"] for line in capsys.readouterr().out.splitlines()] == [3, 2]
    program.preflight(dataclasses.replace(request, accelerators=both.accelerators[1:]))
    assert "\x1b" not in capsys.readouterr().out


def test_the_program_ends_with_the_verdict(tmp_path: Path) -> None:
    """As a process of its own, and without a compiler."""
    command = [sys.executable, "-m", "trainer.preflight", f"--accelerator={SLICE}", "--json", "--stage=b"]
    done = subprocess.run(
        [*command, "--", "--batch_size=8", "--optimizer=sgd"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TRAINER_PREFLIGHT_PYTHON": "/no/python"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["verdict"] == "could not be checked"
    assert "/no/python cannot be run" in json.loads(line)["reason"]
