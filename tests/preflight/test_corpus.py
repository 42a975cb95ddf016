"""Every step and module of the corpus gets the verdict that it is to get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import modules
import pytest
import tensorflow as tf
import tpu_corpus
from tpu_corpus import CASES, Case

from trainer.preflight.origins import origin
from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.readiness import check_program
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.tracing import trace_replica

pytestmark = pytest.mark.strategies


def program_of(case: Case, folder: Path) -> ReplicaProgram:
    """Of a step that does nothing but the case, for two replicas."""
    strategy, compute = pretend_slice(2), case.compute
    if case.as_module:
        saved = modules.computing(folder / "module", case.spec, case.compute)
        with strategy.scope():
            compute = tf.saved_model.load(str(saved))

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"y": compute(batch["x"])}

    return trace_replica(strategy, step, {"x": case.spec})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_right(case: Case, tmp_path: Path) -> None:
    program = program_of(case, tmp_path)
    findings = check_program(program)
    assert {finding.rule for finding in findings} - {"emulated"} == {case.rule} - {"", "emulated"}
    assert any(finding.rule == case.rule and case.said in finding.message for finding in findings) or not case.rule
    for finding in findings:
        assert finding.name or finding.rule == "lowering"
        if finding.rule == "host":
            where = origin(program, finding.name)
            assert Path(where.split(":")[0]) == Path(__file__ if case.as_module else tpu_corpus.__file__).relative_to(
                Path(__file__).parents[2]
            ), where
            assert where.endswith(f"which calls {finding.name}") == (
                case.as_module or case.compute in (tpu_corpus.called_printing, tpu_corpus.printing_in_a_branch)
            )


def test_the_corpus_is_what_it_says() -> None:
    assert len(CASES) >= 30
    assert len({(case.name, case.spec) for case in CASES}) == len(CASES)
    assert 10 <= sum(not case.rule for case in CASES) <= len(CASES) - 20
