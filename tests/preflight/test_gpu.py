"""What preflight says of GPUs that are not there: an estimate with its error, and nothing where it is too close."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.accelerators import GIB, Gpus, gpu_named
from trainer.config import Config
from trainer.errors import UserError
from trainer.preflight import gpu, gpu_memory
from trainer.preflight.cache import Cache
from trainer.preflight.gpu_memory import MeasuringError, StepBytes
from trainer.preflight.report import Report
from trainer.preflight.step_memory import assigned_bytes
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN, DoesNot, EstimatedStep, Fits, Unchecked
from trainer.records.console import Console

L4 = Gpus(gpu_named("l4"))
USABLE = L4.model.device.usable_bytes
NOT_KEPT = Cache("")
QUIET = Console(quiet=True)


def step(name: str, run: float, compiled: float, **fields: Any) -> EstimatedStep:
    made = EstimatedStep(name, 64, 32, int(run * GIB), int(compiled * GIB), error=0.25, beside=GIB)
    return dataclasses.replace(made, **fields)


def test_the_error_is_on_both_sides_of_what_was_run_and_xla_is_believed_too() -> None:
    assert (step(TRAIN, 8, 7).least, step(TRAIN, 8, 7).needed) == (7 * GIB, 11 * GIB)
    assert (step(TRAIN, 8, 4).least, step(TRAIN, 8, 12).needed) == (5 * GIB, 13 * GIB)


@pytest.mark.parametrize(
    ("run", "compiled", "verdict"),
    [
        (15.2, 10.0, Fits),  # An l4 has 20.07 GiB.
        (15.3, 10.0, Unchecked),
        (15.2, 19.1, Unchecked),
        (30.0, 19.0, Unchecked),
        (25.0, 30.0, Unchecked),
        (25.5, 19.1, DoesNot),
    ],
)
def test_a_verdict_needs_both_estimates(run: float, compiled: float, verdict: type) -> None:
    steps = [step(TRAIN, run, compiled), step(EVALUATE, 1, 1)]
    assert isinstance(gpu.verdict_of(steps, Config(batch_size=64), L4), verdict)


@pytest.mark.parametrize("verdict", [Unchecked, DoesNot])
def test_the_batch_that_is_named_fits_and_one_that_is_an_eighth_larger_does_not(verdict: type) -> None:
    size = {Unchecked: 17, DoesNot: 40}[verdict]
    four = Gpus(L4.model, 4)
    config = Config(batch_size=64, accumulation_steps=2)

    def steps(batch: int) -> list[EstimatedStep]:
        grown = size * batch / 64
        return [step(TRAIN, grown, grown, batch=batch), step(EVALUATE, 1, 1, batch=batch), step(EXTRACT, 2, 2)]

    found = gpu.verdict_of(steps(64), config, four)
    assert isinstance(found, verdict)
    largest = gpu.largest_batch(steps(64), config, four)
    assert f"--batch_size={largest} fits by this estimate" in str(found)
    assert largest % 8 == 0  # Two pieces on each of four GPUs.
    assert isinstance(gpu.verdict_of(steps(largest // 4), config, four), Fits)
    assert not isinstance(gpu.verdict_of(steps(largest * 9 // 8 // 4 + 2), config, four), Fits)


def test_ways_out_of_a_full_memory() -> None:
    said = gpu.verdict_of([step(TRAIN, 2000, 2000), step(EVALUATE, 1, 1)], Config(batch_size=64), L4)
    assert isinstance(said, DoesNot) and "No batch fits" in said.problems[0].message
    said = gpu.verdict_of([step(TRAIN, 1, 1), step(EXTRACT, 30, 30)], Config(batch_size=64), L4)
    assert isinstance(said, DoesNot) and "--feature_cache=off" in said.problems[0].message
    said = gpu.verdict_of([step(TRAIN, 30, 30), step(EVALUATE, 1, 1)], Config(batch_size=64), L4)
    assert isinstance(said, DoesNot) and "--accumulation_steps=2 keeps the batch" in said.problems[0].message


def test_what_was_run_goes_on_in_a_straight_line() -> None:
    def found(*trials: tuple[int, int]) -> int:
        return StepBytes(TRAIN, 64, trials, 0, 1.0).run

    assert found((8, 100), (32, 340)) == 660
    assert found((8, 100), (64, 500)) == 500
    assert found((8, 100)) == 800
    assert found((8, 100), (32, 90)) == 90


def test_xlas_words_are_read() -> None:
    text = (
        "BufferAssignment:\nallocation 0: size 4096, parameter 12, shape |f32[32,32]| at ShapeIndex {}:\n"
        " value: <1 a @0> (size=4096,offset=0): f32[32,32]\n"
        "allocation 1: size 100, output shape is |f32[25]|, maybe-live-out:\n"
        "allocation 2: size 4, thread-local:\nallocation 3: size 896, preallocated-temp:\n"
        "\nTotal bytes used: 5096 (5.0KiB)\n"
    )
    assert assigned_bytes(text) == 1000
    with pytest.raises(ValueError, match="does not say"):
        assigned_bytes("another text")


def fails(config: Config) -> list[StepBytes]:
    raise AssertionError("nothing need be measured")


def test_a_state_that_is_too_large_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    device = dataclasses.replace(L4.model.device, usable_bytes=1000)
    report = gpu.check_gpus(Config(), Gpus(dataclasses.replace(L4.model, device=device)), fails, NOT_KEPT, QUIET)
    assert isinstance(report.verdict, DoesNot)
    assert "eights, optimizer state and their copy" in report.verdict.problems[0].message


def test_auto_is_left_to_the_gpu() -> None:
    report = gpu.check_gpus(Config.parse({"batch_size": "auto"}), L4, fails, NOT_KEPT, QUIET)
    assert isinstance(report.verdict, Unchecked) and "--batch_size=auto finds" in report.verdict.reason


@pytest.mark.parametrize(
    ("fields", "gpus", "said"),
    [
        ({"strategy": "tpu", "batch_size": 64}, 1, "--strategy=tpu does not run on l4"),
        ({"batch_size": 62}, 4, "--batch_size=62 cannot be shared by 4 replicas; take 60 or 64"),
        ({"batch_size": 64, "accumulation_steps": 3}, 4, "--accumulation_steps=3 does not divide the 16 images"),
    ],
)
def test_what_no_gpu_takes_is_said_in_a_sentence(fields: dict[str, Any], gpus: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        gpu.check_gpus(Config.parse(fields), Gpus(L4.model, gpus), fails, NOT_KEPT, QUIET)


def process(folder: Path, then: str) -> list[str]:
    """A process that writes down two steps, and then does something else."""
    lines = [
        {"name": name, "batch": 64, "trials": [{"batch": 8, "bytes": 100}], "compiled": 5, "seconds": 1.0}
        for name in (TRAIN, EVALUATE)
    ]
    script = folder / "process.py"
    written = "".join(json.dumps(line) + "\n" for line in lines)
    script.write_text(f"import os, sys, time\nfile = open(sys.argv[2], 'w')\nfile.write({written!r})\n{then}\n")
    return [sys.executable, str(script)]


def test_what_was_measured_is_read(tmp_path: Path) -> None:
    found = gpu_memory.measure(Config(), 20, process(tmp_path, ""))
    assert [(entry.name, entry.run, entry.compiled) for entry in found] == [(TRAIN, 800, 5), (EVALUATE, 800, 5)]


@pytest.mark.parametrize(("asked", "run"), [("mixed_float16", "mixed_bfloat16"), ("float32", "float32")])
def test_float16_is_run_in_bfloat16(tmp_path: Path, asked: str, run: str) -> None:
    """CPUs have no kernels for float16 that would end in time, and one takes as much as the other."""
    rewrite = (
        "import json\nconfig = json.load(open(sys.argv[1]))['config']\nfile.truncate(0); file.seek(0)\n"
        "trial = {'batch': 8, 'bytes': 100}\n"
        "found = dict(name=config['precision'], batch=8, trials=[trial], compiled=5, seconds=1.0)\n"
        "file.write(json.dumps(found) + chr(10))"
    )
    (found,) = gpu_memory.measure(Config.parse({"precision": asked}), 20, process(tmp_path, rewrite))
    assert found.name == run


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("file.flush(); os.kill(os.getpid(), 9)", "killed .SIGKILL., which is how a machine that runs out of memory"),
        ("time.sleep(60)", "it had not answered after 1 s: give it longer"),
        ("sys.exit('error: the module is broken')", "exit code 1: error: the module is broken"),
        ("raise MemoryError", "not enough memory"),
        ('file.write(\'{"name": "extract", "refusal": "No kernel"}\\n\')', "XLA cannot compile extract .No kernel"),
        ("file.truncate(0)", "ended early"),
    ],
)
def test_what_keeps_it_from_being_measured_is_said(tmp_path: Path, then: str, said: str) -> None:
    with pytest.raises(MeasuringError, match=said):
        gpu_memory.measure(Config(), 1 if "sleep" in then else 20, process(tmp_path, then))


def test_what_could_not_be_measured_is_unchecked_and_not_kept(tmp_path: Path) -> None:
    def fail(config: Config) -> list[StepBytes]:
        raise MeasuringError("it was killed")

    report = gpu.check_gpus(Config(), L4, fail, Cache(str(tmp_path)), QUIET)
    assert isinstance(report.verdict, Unchecked) and "could not be estimated: it was killed." in report.verdict.reason
    assert not list(tmp_path.rglob("*.json"))


def test_a_real_run_is_estimated_and_kept(tmp_path: Path) -> None:
    """In a real process of its own; both estimates are compared with what the layers must hold for backpropagation."""
    asked = []

    def measured(config: Config) -> list[StepBytes]:
        asked.append(config)
        return gpu_memory.measure(config, 110)

    config = Config.parse({"data": "synthetic:3", "image_size": 64, "batch_size": 64, "precision": "mixed_float16"})
    two = Gpus(L4.model, 2)
    report = gpu.check_gpus(config, two, measured, Cache(str(tmp_path)), QUIET)
    (of_one,) = asked
    assert of_one.batch_size == 32
    verdict = report.verdict
    assert isinstance(verdict, Fits) and verdict.sentence == "fits by estimate for l4:2"
    train, evaluate = verdict.steps
    assert isinstance(train, EstimatedStep) and isinstance(evaluate, EstimatedStep)
    # The first layer's 32 channels of two bytes at half the resolution, and a quarter of it with 64 in the second.
    kept = 32 * (32 * 32 * 32 + 32 * 32 * 64) * 2
    for size in (train.run, train.compiled):
        assert kept < size < 20 * kept
    assert train.run > evaluate.run and train.compiled > evaluate.compiled
    assert train.tried == train.batch == 32
    assert train.beside > evaluate.beside  # Gradients are exchanged.
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert gpu.check_gpus(config, two, fails, Cache(str(tmp_path)), QUIET) == report
    lines = "\n".join(report.lines())
    assert (
        "a GPU: " in lines and "25% more or less (run here)" in lines and "nobody has compared it with a GPU" in lines
    )
