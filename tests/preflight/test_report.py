"""What a run takes at best, and how a report is told."""

from __future__ import annotations

import dataclasses
import json

import pytest
from compiled_steps import GIB, MEMORY, step

from trainer.accelerators import slice_named
from trainer.preflight.report import Report, table
from trainer.preflight.roofline import Work, numbers, shown_seconds, step_seconds
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN, DoesNot, Fits, Number, Problem, Unchecked

SLICE = slice_named("v5litepod-8")
IO = (MEMORY.arguments + MEMORY.outputs) / 819e9
ALLOWED = int(15.75 * GIB)
WORK = Work(global_batch=64, steps=100, evaluated=65, extracted=4097, extraction_batch=2048)
HERE = Number.measured(500.0, "images/s", "here")
STEPS = {name: step(name) for name in (TRAIN, EVALUATE)}


def test_a_step_is_bound_by_what_takes_longer() -> None:
    assert step_seconds(step(TRAIN, flops=1.0), SLICE) == pytest.approx(IO)
    assert step_seconds(step(TRAIN, flops=197e12), SLICE) == pytest.approx(1.0)


def test_the_bound_counts_all_steps_of_a_run() -> None:
    found = numbers(STEPS, SLICE, WORK, HERE, "image")
    assert found["step"].value == pytest.approx(IO)
    assert "10 ms if all bytes" in found["step"].note
    assert found["hours"].value == pytest.approx((100 + 2) * IO / 3600)
    assert found["input_needed"].value == pytest.approx(64 / IO)
    with_features = numbers({**STEPS, EXTRACT: step(EXTRACT, flops=197e12)}, SLICE, WORK, HERE, "image")
    assert with_features["hours"].value == pytest.approx(((100 + 2) * IO + 3 * 1.0) / 3600)
    assert with_features["input_needed"].value == pytest.approx(2048)
    kinds = {name: number.kind for name, number in found.items()}
    assert kinds["input_here"] == kinds["flops"] == "measured"
    assert kinds["step"] == kinds["hours"] == kinds["input_needed"] == "bound"
    assert kinds["price"] == "unknown"


FITS = Report(
    Fits(SLICE.name, "libtpu 0.0.51", tuple(STEPS.values()), ALLOWED),
    64,
    remarks=(Problem(TRAIN, "emulated", "Takes float64.", "model.py:1"),),
    numbers=numbers(STEPS, SLICE, WORK, HERE, "image"),
    seconds={"trace": 1.0},
)
DOES_NOT = Report(DoesNot(SLICE.name, (Problem(EXTRACT, "host", "It prints.", "a.py:3"),)), 64, largest_batch=32)
UNCHECKED = Report(Unchecked(SLICE.name, "libtpu is missing."), 64)


@pytest.mark.parametrize("report", [FITS, DOES_NOT, UNCHECKED], ids=lambda report: report.verdict.word)
def test_a_report_survives_json(report: Report) -> None:
    written = json.loads(json.dumps(report.to_json()))
    assert written["verdict"] == report.verdict.word
    assert written["exit_code"] == report.verdict.exit_code
    assert Report.from_json(written) == report


def test_a_report_is_told() -> None:
    lines = "\n".join(FITS.lines())
    assert lines.startswith("v5litepod-8: compiles and fits\n")
    assert "  training      takes 6.00 GiB of 15.75 GiB a device: arguments 3.00 GiB, outputs 1.00 GiB" in lines
    assert (
        "(bound)" in lines
        and "500 images/s (measured)" in lines
        and "unknown: python -m launch plan multiplies" in lines
    )
    assert "libtpu 0.0.51; how it runs and what it computes, only the slice can show" in lines
    assert DOES_NOT.lines() == ["v5litepod-8: does not compile", "  features      It prints. [a.py:3]"]
    assert UNCHECKED.lines() == ["v5litepod-8: could not be checked", "  why           libtpu is missing."]


def test_a_table_has_no_numbers_for_what_nobody_knows() -> None:
    other = dataclasses.replace(UNCHECKED, verdict=Unchecked("v2-8", "why"))
    header, fits, unchecked = table([FITS, other])
    assert header.split("  ")[0] == "accelerator"
    assert fits.startswith("v5litepod-8  compiles and fits     6.00 GiB  15.75 GiB  ")
    assert unchecked == "v2-8         could not be checked"


@pytest.mark.parametrize(("seconds", "shown"), [(2e-6, "2 us"), (0.0123, "12.3 ms"), (59.0, "59 s"), (7200.0, "2 h")])
def test_times_have_units(seconds: float, shown: str) -> None:
    assert shown_seconds(seconds) == shown
