"""Three verdicts: what could not be checked cannot come out as "fits"."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from trainer.preflight.verdict import (
    EVALUATE,
    EXTRACT,
    TRAIN,
    CompiledStep,
    DoesNot,
    Fits,
    Memory,
    Number,
    Problem,
    Unchecked,
    Verdict,
    combined_exit_code,
    verdict_from_json,
    verdict_to_json,
)

SLICE = "v5litepod-8"
ALLOWED = 1000


def step(name: str, **fields: Any) -> CompiledStep:
    memory = Memory(arguments=500, outputs=400, shared=390, temporaries=200, code=50)
    return dataclasses.replace(CompiledStep(name, memory, 100, 1e9, 2e9, 3.0), **fields)


FITS = Fits(SLICE, "libtpu 0.0.51", (step(TRAIN), step(EVALUATE), step(EXTRACT)), ALLOWED)
DOES_NOT = DoesNot(SLICE, (Problem(TRAIN, "host", "tf.print would make every step wait.", "model.py:3"),))
UNCHECKED = Unchecked(SLICE, "libtpu is not installed: run pip install '.[preflight]'.")


def test_the_words_and_exit_codes() -> None:
    assert FITS.sentence == "compiles and fits for v5litepod-8"
    assert DOES_NOT.sentence == "does not compile for v5litepod-8"
    assert UNCHECKED.sentence == "could not be checked for v5litepod-8"
    assert [verdict.exit_code for verdict in (FITS, DOES_NOT, UNCHECKED)] == [0, 2, 3]
    too_large = DoesNot(SLICE, (Problem(TRAIN, "memory", "15.75G is all."),))
    assert too_large.sentence == "does not fit for v5litepod-8"


@pytest.mark.parametrize("verdict", [FITS, DOES_NOT, UNCHECKED], ids=lambda verdict: verdict.word)
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(verdict)))) == verdict


def test_memory_adds_up() -> None:
    assert step(TRAIN).memory.total == 500 + 400 - 390 + 200 + 50
    assert step(TRAIN).needed == step(TRAIN).memory.total + 100


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": ()}, "nobody compiled evaluate, train"),
        ({"steps": (step(TRAIN),)}, "nobody compiled evaluate"),
        ({"steps": (step(TRAIN), step(EVALUATE, beside=ALLOWED))}, "more memory"),
        ({"compiler": ""}, "no compiler"),
    ],
)
def test_nothing_fits_without_evidence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(FITS, **fields)
    written = verdict_to_json(FITS) | {name: value for name, value in fields.items() if name != "steps"}
    if "steps" in fields:
        written["steps"] = [dataclasses.asdict(each) for each in fields["steps"]]
    with pytest.raises(ValueError, match=said):
        verdict_from_json(written)


def test_a_refusal_and_a_lack_of_knowledge_have_reasons() -> None:
    with pytest.raises(ValueError, match="no reason"):
        DoesNot(SLICE, ())
    with pytest.raises(ValueError, match="no reason"):
        Unchecked(SLICE, "")


@pytest.mark.parametrize("word", ["", "Fits", "runs", None, 1, "fits "])
def test_another_word_is_no_verdict(word: Any) -> None:
    with pytest.raises(ValueError, match="no verdict"):
        verdict_from_json(verdict_to_json(FITS) | {"verdict": word})


def test_a_relabelled_lack_of_knowledge_is_refused() -> None:
    with pytest.raises(ValueError, match="no verdict"):
        verdict_from_json(verdict_to_json(UNCHECKED) | {"verdict": "fits"})


def test_one_doubt_is_enough() -> None:
    assert combined_exit_code([FITS, FITS]) == 0
    assert combined_exit_code([FITS, UNCHECKED]) == 3
    assert combined_exit_code([FITS, UNCHECKED, DOES_NOT]) == 2
    assert combined_exit_code([]) == 3


def test_what_is_unknown_has_no_value() -> None:
    assert Number.unknown("h", "nobody measured it").value is None
    for value, kind in ((None, "measured"), (None, "bound"), (1.0, "unknown")):
        with pytest.raises(ValueError, match=kind):
            Number(value, "s", kind)  # type: ignore[arg-type]
