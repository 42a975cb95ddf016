"""Every step and module of the corpus gets the verdict that it is to get."""

from __future__ import annotations

from pathlib import Path

import pytest
import tpu_corpus
from tpu_corpus import CASES, Case, program_of

from trainer.preflight.origins import origin
from trainer.preflight.readiness import check_program

pytestmark = pytest.mark.strategies


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
            assert where.startswith("tests/tpu_corpus.py:"), where
            assert where.endswith(f"which calls {finding.name}") == (
                case.as_module or case.compute in (tpu_corpus.called_printing, tpu_corpus.printing_in_a_branch)
            )


def test_the_corpus_is_what_it_says() -> None:
    assert len(CASES) >= 30
    assert len({(case.name, case.spec) for case in CASES}) == len(CASES)
    assert 10 <= sum(not case.rule for case in CASES) <= len(CASES) - 20
