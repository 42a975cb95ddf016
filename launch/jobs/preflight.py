"""What `python -m trainer.preflight` says of a job on a TPU: asked as a process, since launch imports no TensorFlow."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from launch.jobs.job import Job
from launch.jobs.prices import Price

Mode = Literal["auto", "off", "require"]

MODES: tuple[Mode, ...] = ("auto", "off", "require")

FITS, DOES_NOT, UNCHECKED = "fits", "does not", "could not be checked"
"""The three verdicts, as `trainer.preflight` words them."""

_COMPILER_SECONDS = 500
"""What compiling may take, and as much again the search for the largest batch where the run's own does not fit."""

_SECONDS = 1200.0
"""What all of it may take."""

_HOW = ("--json", f"--timeout={_COMPILER_SECONDS}")


@dataclass(frozen=True)
class Preflight:
    """The answer.

    Attributes:
      verdict: one of the three.
      sentence: the verdict with what it is for, such as "compiles and fits for v5litepod-8".
      reasons: why not, and what to change.
      hours: that the run takes at best, by the work of its compiled steps and the peak rates of the slice; None where
        nobody knows.
    """

    verdict: str
    sentence: str
    reasons: tuple[str, ...] = ()
    hours: float | None = None

    @property
    def text(self) -> str:
        """All of it on one line."""
        return f"{self.sentence}: {' '.join(self.reasons)}" if self.reasons else self.sentence

    def text_with(self, price: Price) -> str:
        """The same with what the run takes and costs at best.

        Args:
          price: of an hour of the job's machines.
        """
        if self.hours is None:
            return self.text
        hours = f"{self.hours:.2g} hours" if self.hours >= 0.1 else f"{60 * self.hours:.2g} minutes"
        cost = (
            f"what it costs is unknown ({price.source})"
            if price.dollars is None
            else f"${self.hours * price.dollars:,.2f} (bound)"
        )
        return f"{self.text}; at best it computes for {hours} (bound; real steps are slower), {cost}"


def add_preflight_option(parser: argparse.ArgumentParser) -> None:
    """Adds --preflight."""
    parser.add_argument(
        "--preflight",
        choices=MODES,
        default="auto",
        help="for TPUs: ask first whether the steps compile and fit, and make no job that does not (auto), or none "
        "that is not known to (require)",
    )


def ask(
    job: Job, mode: Mode, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> Preflight | None:
    """Asks, where there is something to ask.

    Args:
      job: any.
      mode: see `add_preflight_option`.
      run: starts the process.

    Returns:
      The answer; None for a job without a TPU, and with "off".
    """
    if mode == "off" or not job.hardware.is_tpu:
        return None
    accelerator = job.hardware.accelerator
    flags = [flag for flag in job.trainer_flags if not flag.startswith("--run_dir=") and flag != "--quiet"]
    command = [sys.executable, "-m", "trainer.preflight", f"--accelerator={accelerator}", *_HOW, "--", *flags]
    try:
        done = run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return _unchecked(accelerator, f"it took longer than {_SECONDS / 60:.0f} minutes.")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        reasons = [answer["reason"]] if "reason" in answer else [each["message"] for each in answer.get("problems", ())]
        hours = answer.get("numbers", {}).get("hours", {}).get("value")
        return Preflight(answer["verdict"], answer["sentence"], tuple(reasons), hours)
    except (IndexError, ValueError, KeyError, TypeError, AttributeError):
        return _unchecked(accelerator, f"it ended with exit code {done.returncode}{_last_line(done.stderr)}.")


def objections(answer: Preflight | None, mode: Mode) -> list[str]:
    """What an answer says against making the job; [] if nothing does.

    Args:
      answer: of `ask`.
      mode: that it was asked in.
    """
    if answer is None or answer.verdict == FITS:
        return []
    if answer.verdict == DOES_NOT:
        return [f"The preflight: it {answer.text} (--preflight=off makes the job all the same.)"]
    return [f"The preflight is required, and it {answer.text}"] if mode == "require" else []


def _unchecked(accelerator: str, reason: str) -> Preflight:
    return Preflight(UNCHECKED, f"{UNCHECKED} for {accelerator}", (reason,))


def _last_line(stderr: str) -> str:
    lines: Sequence[str] = stderr.strip().splitlines()
    return f" ({lines[-1].removeprefix('error: ').rstrip('.')})" if lines else ""
