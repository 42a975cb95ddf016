"""From a run and a slice to a report, with a compiler that says what a test likes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modules
import numpy as np
import pytest
import tensorflow as tf
from compiled_steps import GIB, FakeCompiler, accepted, out_of_memory

from trainer.accelerators import slice_named
from trainer.config import Config
from trainer.errors import UserError
from trainer.preflight import check, report_key
from trainer.preflight.cache import Cache, program_digest
from trainer.preflight.check import Checker, Options
from trainer.preflight.compiler import Answer
from trainer.preflight.report import Report
from trainer.preflight.search import Largest
from trainer.preflight.steps import RunSteps, StepPrograms, trace_steps
from trainer.preflight.too_large import with_way_out
from trainer.preflight.verdict import EVALUATE, EXTRACT, TRAIN, DoesNot, Fits, Number, Problem, Unchecked
from trainer.records.console import Console

SLICE = slice_named("v5litepod-1")
"""Of one replica: tracing for more tells nothing more here, and takes longer."""

ALLOWED = SLICE.device.usable_bytes
BATCH = 64
RATE = Number.measured(1.0, "images/s", "made up")


def config_of(**fields: Any) -> Config:
    return Config.parse({"strategy": "tpu", "batch_size": BATCH, "optimizer": "sgd"} | fields)


OPTIONS = Options("b", search_seconds=100.0)
QUIET = Console(quiet=True)


def checker_of(compiler: FakeCompiler, folder: str = "", stage: Any = "b", **fields: Any) -> Checker:
    options = dataclasses.replace(OPTIONS, stage=stage)
    return Checker(
        config_of(**fields),
        options,
        compiler.make,
        Cache(folder),
        QUIET,
        measure=lambda prepared, built: RATE,
    )


@pytest.fixture()
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that steps are traced with."""
    batches: list[int] = []
    trace = RunSteps.trace

    def noted(run: RunSteps, batch: int) -> StepPrograms:
        batches.append(batch)
        return trace(run, batch)

    monkeypatch.setattr(RunSteps, "trace", noted)
    return batches


@pytest.fixture(scope="module")
def programs() -> StepPrograms:
    """Of the run that the tests have."""
    return trace_steps(config_of(), 1)


@pytest.fixture()
def pretended(programs: StepPrograms, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As `traced`, but the programs are always the same, which takes no time."""
    batches: list[int] = []

    def noted(run: RunSteps, batch: int) -> StepPrograms:
        batches.append(batch)
        return programs

    monkeypatch.setattr(RunSteps, "trace", noted)
    monkeypatch.setattr(check, "check_program", lambda program: [])
    return batches


def test_a_run_fits_when_the_compiler_took_every_step(tmp_path: Path) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    module = modules.with_training(tmp_path / "module")
    report = checker_of(compiler, data="synthetic:3", backbone=str(module)).check(SLICE)
    assert isinstance(report.verdict, Fits)
    assert compiler.asked == [TRAIN, EVALUATE, EXTRACT]
    assert [step.name for step in report.verdict.steps] == compiler.asked
    assert all(step.beside > 0 for step in report.verdict.steps)
    assert report.numbers["input_here"] == RATE
    assert report.numbers["steps"].value == trace_length(report)


def trace_length(report: Report) -> float:
    run = RunSteps(config_of(data="synthetic:3", batch_size=report.batch_size), 1)
    return float(run.prepared.steps_total)


def test_stage_a_alone_never_says_that_it_fits(pretended: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    report = checker_of(compiler, stage="a").check(SLICE)
    assert isinstance(report.verdict, Unchecked)
    assert "its compiler was not asked" in report.verdict.reason
    assert not compiler.asked
    assert not report.numbers


def test_a_compiler_that_fails_is_no_verdict(tmp_path: Path, pretended: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    compiler.failure = "its process was killed (SIGKILL)"
    report = checker_of(compiler, str(tmp_path)).check(SLICE)
    assert isinstance(report.verdict, Unchecked)
    assert "killed (SIGKILL)" in report.verdict.reason
    compiler.failure = ""
    assert isinstance(checker_of(compiler, str(tmp_path)).check(SLICE).verdict, Fits)


def test_what_stage_a_refuses_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", lambda self, operation, value: value)
    compiler = FakeCompiler(lambda name: accepted())
    report = checker_of(compiler).check(slice_named("v5litepod-4"))
    assert isinstance(report.verdict, DoesNot)
    assert {(problem.step, problem.rule) for problem in report.verdict.problems} == {(TRAIN, "gradients")}
    assert not compiler.asked


def test_a_problem_names_the_line_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf, "argmax", lambda logits, axis, output_type: tf.numpy_function(len, [logits], output_type))
    report = checker_of(FakeCompiler(lambda name: accepted())).check(SLICE)
    assert isinstance(report.verdict, DoesNot)
    first = report.verdict.problems[0]
    assert (first.step, first.rule) == (TRAIN, "host")
    assert Path(first.where.split(":")[0]).name == Path(__file__).name


def by_batch(needed: Callable[[int], int], batches: list[int]) -> Callable[[str], Answer]:
    """Answers about a training step that takes so many bytes with the batch that was traced last."""

    def answer(name: str) -> Answer:
        size = needed(batches[-1])
        assert ALLOWED
        if name == TRAIN and size > ALLOWED:
            return out_of_memory(size)
        return accepted(temporaries=0)

    return answer


def test_the_largest_batch_is_searched_and_right_when_tried(pretended: list[int]) -> None:
    compiler = FakeCompiler(by_batch(lambda batch: 4 * GIB + batch * GIB // 3, pretended))
    report = checker_of(compiler).check(SLICE)
    assert isinstance(report.verdict, DoesNot)
    (problem,) = report.verdict.problems
    assert (problem.step, problem.rule) == (TRAIN, "memory")
    assert "Ran out of memory on HBM." in problem.message
    assert "largest that compiles and fits is --batch_size=35." in problem.message  # 4 + 35 / 3 = 15.67
    assert "--accumulation_steps=2" in problem.message
    assert report.largest_batch == 35
    assert {35, 36} <= set(pretended)
    fitting, next_one = (checker_of(compiler, batch_size=batch).check(SLICE).verdict for batch in (35, 36))
    assert isinstance(fitting, Fits) and isinstance(next_one, DoesNot)


def test_what_the_run_keeps_beside_a_step_counts(pretended: list[int]) -> None:
    assert ALLOWED
    plenty = accepted(temporaries=0)
    exact = ALLOWED - plenty.memory.total
    report = checker_of(FakeCompiler(lambda name: accepted(temporaries=exact))).check(SLICE)
    assert isinstance(report.verdict, DoesNot)
    assert "with what the run keeps beside it" in report.verdict.problems[0].message
    assert "Not even --batch_size=1 does" in report.verdict.problems[0].message
    assert report.largest_batch == 0


class Forgetful(Cache):
    """Finds nothing; notes what it was to keep."""

    def __init__(self) -> None:
        super().__init__("")
        self.kept: list[str] = []

    def save(self, kind: str, key: str, value: Any) -> None:
        self.kept.append(kind)


def searched(compiler: FakeCompiler, seconds: float, clock: Callable[[], float]) -> tuple[Report, list[str]]:
    """A report, and what was kept of it."""
    cache = Forgetful()
    checker = Checker(config_of(), Options("b", seconds), compiler.make, cache, QUIET, clock=clock)
    return checker.check(SLICE), cache.kept


def test_what_takes_long_is_told(pretended: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    compiler = FakeCompiler(by_batch(lambda batch: batch * GIB, pretended))
    Checker(config_of(), OPTIONS, compiler.make, Cache(""), Console()).check(SLICE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tracing the steps for 1 replica"
    assert lines[1].startswith(f"compiling training, evaluation for {SLICE.name}: minutes")
    tried = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("looking for the largest batch: trying")]
    assert len(tried) > 1 and set(tried) <= set(pretended)


def test_a_search_that_the_compiler_ends_says_so(pretended: list[int]) -> None:
    compiler = FakeCompiler(by_batch(lambda batch: batch * GIB, pretended))
    answer = compiler.answer

    def once(name: str) -> Answer:
        compiler.failure = "it had not answered" if name == EVALUATE else ""
        return answer(name)

    compiler.answer = once
    report, kept = searched(compiler, 100.0, lambda: 0.0)
    assert isinstance(report.verdict, DoesNot)
    assert "A smaller --batch_size needs less" in report.verdict.problems[0].message
    assert "it had not answered" in report.remarks[0].message
    assert report.largest_batch is None
    assert "reports" not in kept


@pytest.mark.parametrize(("seconds", "exact"), [(10.0, False), (100.0, True)])
def test_a_search_without_time_says_what_it_knows(seconds: float, exact: bool, pretended: list[int]) -> None:
    compiler = FakeCompiler(by_batch(lambda batch: batch * GIB, pretended))
    clock = map(float, itertools.count())  # Each look at it takes a second.
    report, kept = searched(compiler, seconds, clock.__next__)
    assert isinstance(report.verdict, DoesNot)
    assert ("fits is --batch_size=15." in report.verdict.problems[0].message) == exact
    assert (report.settled, "reports" in kept) == (exact, exact)


def test_where_features_are_too_large_no_batch_helps(tmp_path: Path, traced: list[int]) -> None:
    compiler = FakeCompiler(lambda name: out_of_memory(100 * GIB) if name == EXTRACT else accepted())
    module = modules.with_training(tmp_path / "module")
    report = checker_of(compiler, data="synthetic:3", backbone=str(module)).check(SLICE)
    assert isinstance(report.verdict, DoesNot)
    assert "--feature_cache=off" in report.verdict.problems[0].message
    assert traced == [BATCH]


def test_the_second_time_nothing_is_traced_or_compiled(tmp_path: Path, traced: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    first = checker_of(compiler, str(tmp_path)).check(SLICE)
    second = checker_of(compiler, str(tmp_path)).check(SLICE)
    assert first == second
    assert (len(traced), len(compiler.asked)) == (1, 2)
    checker_of(compiler, str(tmp_path), learning_rate=0.5).check(SLICE)
    checker_of(compiler, str(tmp_path)).check(slice_named("v6e-1"))
    assert (len(traced), len(compiler.asked)) == (3, 5)  # The evaluation step has no learning rate.


def test_a_program_that_was_compiled_before_is_not_compiled_again(tmp_path: Path, traced: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    checker_of(compiler, str(tmp_path)).check(SLICE)
    # It says when and not what.
    assert isinstance(checker_of(compiler, str(tmp_path), checkpoint_minutes=5.0).check(SLICE).verdict, Fits)
    assert (len(traced), len(compiler.asked)) == (2, 2)


def test_a_damaged_cache_is_no_answer(tmp_path: Path, pretended: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    damages = ("", "fits", '{"verdict": "fits"}', "0" * 64 + '\n{"verdict": "fits"}')
    for number, content in enumerate(damages):
        assert len(compiler.asked) == 2 * number
        checker_of(compiler, str(tmp_path)).check(SLICE)
        kept = list(tmp_path.rglob("*.json"))
        assert len(kept) == 3
        for path in kept:
            path.write_text(content, encoding="utf-8")
    checker_of(compiler, str(tmp_path)).check(SLICE)
    assert len(compiler.asked) == 2 * len(damages) + 2


def test_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretended: list[int]) -> None:
    compiler = FakeCompiler(lambda name: accepted())
    for digest in ("one", "other"):
        monkeypatch.setattr(report_key, "code_digest", lambda digest=digest: digest)
        checker_of(compiler, str(tmp_path)).check(SLICE)
    assert len(pretended) == 2


def test_other_data_is_another_run() -> None:
    prepared = RunSteps(config_of(), 1).prepared
    source = prepared.source
    variants = [
        prepared,
        dataclasses.replace(prepared, train=prepared.train[1:]),
        dataclasses.replace(prepared, class_weights=np.ones(10, np.float32)),
        dataclasses.replace(prepared, splits=dataclasses.replace(prepared.splits, test=prepared.splits.test[1:])),
        dataclasses.replace(prepared, source=dataclasses.replace(source, native_size=9)),
        dataclasses.replace(prepared, source=dataclasses.replace(source, class_names=(*source.class_names, "11"))),
    ]
    keys = {report_key.report_key(config_of(), variant, {"slice": SLICE.name}) for variant in variants}
    keys.add(report_key.report_key(config_of(), prepared, {"slice": "v6e-8"}))
    assert len(keys) == len(variants) + 1


def test_names_of_operations_are_no_part_of_a_program(programs: StepPrograms) -> None:
    first, second = programs.train.hlo_proto, trace_steps(config_of(), 1).train.hlo_proto
    assert first != second  # TensorFlow counts its functions.
    assert program_digest(first) == program_digest(second)
    other = trace_steps(config_of(label_smoothing=0.1), 1).train.hlo_proto
    assert program_digest(other) != program_digest(first)


def test_a_slice_too_large_to_trace_is_not_guessed_about() -> None:
    report = checker_of(FakeCompiler(lambda name: accepted())).check(slice_named("v5p-1024"))
    assert isinstance(report.verdict, Unchecked) and "at most 256 replicas" in report.verdict.reason


@pytest.mark.parametrize(("free", "said"), [(10**7, "as much again: check a smaller slice"), (10**9, "")])
def test_there_must_be_memory_for_the_copies_of_a_large_slice(free: int, said: str) -> None:
    checker = Checker(
        config_of(),
        OPTIONS,
        FakeCompiler(lambda name: accepted()).make,
        Cache(""),
        QUIET,
        free=lambda: free,
    )
    assert said in checker._too_many(64) and bool(checker._too_many(64)) == bool(said)
    assert checker._too_many(32) == ""


def test_a_batch_that_the_chips_do_not_divide() -> None:
    with pytest.raises(UserError, match="batch_size=62"):
        checker_of(FakeCompiler(lambda name: accepted()), batch_size=62).check(slice_named("v5litepod-4"))


def test_float64_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    exp = tf.exp
    tanh = tf.nn.gelu
    monkeypatch.setattr(tf.nn, "gelu", lambda x: tanh(x) + tf.cast(exp(tf.cast(x, tf.float64) - 100.0), x.dtype))
    report = checker_of(FakeCompiler(lambda name: accepted())).check(SLICE)
    assert isinstance(report.verdict, Fits)
    assert {remark.rule for remark in report.remarks} == {"emulated"}


@pytest.mark.parametrize(
    ("step", "largest", "said"),
    [
        (
            TRAIN,
            Largest(32, 40, 8),
            "The largest that compiles and fits is --batch_size=32. --accumulation_steps=4 keeps",
        ),
        (EVALUATE, Largest(32, 40, 8), "The largest that compiles and fits is --batch_size=32."),
        (TRAIN, Largest(32, 64, 8), "--batch_size=32 compiles and fits, and 64 does not; for lack of time"),
        (TRAIN, Largest(0, 8, 8), "Not even --batch_size=8 does"),
        (TRAIN, Largest(0, 64, 8), "No batch was found that fits, and not even --batch_size=64 does"),
        (TRAIN, None, "A smaller --batch_size needs less. --accumulation_steps=4"),
        (EXTRACT, None, "--feature_cache=off"),
    ],
)
def test_the_way_out_of_a_full_memory(step: str, largest: Largest | None, said: str) -> None:
    message = with_way_out(Problem(step, "memory", "Full."), largest, 2).message
    assert message.startswith("Full. ") and said in message
    assert ("--accumulation_steps" in message) == ("--accumulation_steps" in said or "lack of time" in said)
    other = Problem(step, "compiler", "No.")
    assert with_way_out(other, largest, 2) == other
