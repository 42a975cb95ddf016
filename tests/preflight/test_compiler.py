"""What becomes of an answer, and of a compiler that gives none."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.accelerators import slice_named
from trainer.preflight import compiler
from trainer.preflight.compiler import (
    VERSIONS,
    Accepted,
    Compiler,
    CompilerError,
    Refused,
    compiler_python,
)

SLICE = slice_named("v5litepod-8")
MEMORY = {"arguments": 5, "outputs": 4, "shared": 3, "temporaries": 2, "code": 1}
TAKEN = {"name": "train", "memory": MEMORY, "flops": 1e9, "bytes_accessed": 2e9, "seconds": 1.5}
TOO_LARGE = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (21.13G) exceeds available HBM (15.75G). HLO module: a_inference_program_6241__.113.\nSee https://…"
)

FAKE = """
import json, os, signal, sys, time
_, mark, request, results = sys.argv
versions, lines, then = json.loads({said!r})
with open(results, "w") as file:
    file.writelines(json.dumps(line) + "\\n" for line in ([{{"versions": versions}}] if versions else []) + lines)
if then == "sleep":
    time.sleep(60)
if then.startswith("SIG"):
    os.kill(os.getpid(), getattr(signal, then))
if then.startswith("cut"):
    open(results, "a").write('{{"name": "tra')
if then:
    sys.exit(then)
"""


def fake(folder: Path, *lines: dict[str, Any], versions: dict[str, str] | None = VERSIONS, then: str = "") -> Compiler:
    """A compiler that writes down what a test likes, and then does as it likes."""
    script = folder / "fake.py"
    script.write_text(FAKE.format(said=json.dumps([versions, lines, then])), encoding="utf-8")
    return Compiler(SLICE, [sys.executable, str(script)], timeout=20)


def test_an_answer_is_read(tmp_path: Path) -> None:
    answers = fake(tmp_path, TAKEN, {"name": "evaluate", "error": TOO_LARGE, "seconds": 2.0})(
        {"train": b"", "evaluate": b""}
    )
    taken, refused = answers["train"], answers["evaluate"]
    assert isinstance(taken, Accepted)
    assert (taken.memory.total, taken.flops, taken.bytes_accessed, taken.seconds) == (9, 1e9, 2e9, 1.5)
    assert isinstance(refused, Refused)
    assert (refused.rule, refused.needed) == ("memory", int(21.13 * 2**30))
    said = "the total memory required for HLO temporaries (21.13G) exceeds available HBM (15.75G)"
    assert refused.words == f"Ran out of memory on HBM, {said}"


@pytest.mark.parametrize("error", ["UNIMPLEMENTED: While rewriting: no such thing.", "INVALID_ARGUMENT: not so"])
def test_a_program_that_is_refused_for_another_reason(error: str, tmp_path: Path) -> None:
    (refused,) = fake(tmp_path, {"name": "train", "error": error, "seconds": 1.0})({"train": b""}).values()
    assert isinstance(refused, Refused)
    assert refused.rule == "compiler"


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        ([TAKEN], {"versions": {**VERSIONS, "libtpu": ""}}, "libtpu is not installed: run pip install"),
        ([TAKEN], {"versions": {**VERSIONS, "jaxlib": "0.9.0"}}, "jaxlib 0.9.0 is not the version"),
        ([], {"then": "SIGKILL"}, r"killed \(SIGKILL\)"),
        ([TAKEN], {"then": "SIGKILL"}, r"killed \(SIGKILL\)"),
        ([], {"then": "SIGSEGV"}, "ended by SIGSEGV"),
        ([], {"then": "terminate called after throwing an instance of 'std::bad_alloc'"}, "not enough memory"),
        ([], {"then": "MemoryError"}, "not enough memory"),
        ([], {"then": "ImportError: no\x1b[2J"}, r"exit code 1: ImportError: no\\x1b\[2J"),
        ([], {"then": ""}, "ended early: it said nothing"),
        ([], {"versions": None, "then": ""}, "ended early"),
        ([], {"then": "cut off"}, "exit code 1: cut off"),
        ([{"name": "train", "error": "INTERNAL: a bug", "seconds": 1.0}], {}, "it failed: a bug"),
        ([{"name": "train", "error": "gone", "seconds": 1.0}], {}, "it failed: gone"),
        ([{**TAKEN, "name": "evaluate"}], {}, "ended early"),
    ],
)
def test_whatever_goes_wrong_is_no_answer(
    lines: list[dict[str, Any]], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CompilerError, match=said):
        fake(tmp_path, *lines, **options)({"train": b"hlo"})


def test_a_compiler_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    kill = os.killpg

    def watched(group: int, number: int) -> None:
        ended.append(number)
        kill(group, number)

    monkeypatch.setattr(os, "killpg", watched)
    with pytest.raises(CompilerError, match="not answered after 1 s: give it longer, by --timeout"):
        fake(tmp_path, TAKEN, then="sleep")({"train": b"hlo"}, timeout=1)
    assert ended == [signal.SIGKILL]


def test_without_a_compiler_the_way_to_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert compiler_python({}) == ""
    assert compiler_python({compiler.PYTHON_VARIABLE: "/python"}) == "/python"
    with pytest.raises(CompilerError, match=r"not installed: run pip install '.\[preflight\]'"):
        Compiler(SLICE, [compiler_python({})], 1)({"train": b""})
    with pytest.raises(CompilerError, match="/no/python cannot be run"):
        Compiler(SLICE, ["/no/python"], 1)({"train": b""})


def test_the_process_itself_refuses_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program on a Python that has no jax, or has it, in another version than is asked for."""
    wanted = dict.fromkeys(VERSIONS, "0.0.0")
    monkeypatch.setattr(compiler, "VERSIONS", wanted)
    with pytest.raises(CompilerError, match="is not installed|is not the version"):
        Compiler(SLICE, [sys.executable], 60)({"train": b"no hlo"})
