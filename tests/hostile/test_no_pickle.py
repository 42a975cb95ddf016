"""Nothing here unpickles: a pickle from outside runs whatever its author likes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MODULES = frozenset(
    {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
)
CALLS = frozenset({"eval", "exec", "compile", "__import__", "unsafe_load", "full_load"})


def violations(source: str) -> list[str]:
    """What a program does that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        found += [name for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            if isinstance(node.func, ast.Attribute) and node.func.attr in CALLS - {"compile"}:
                found.append(node.func.attr)
            # False alone is allowed: anything else may be true.
            found += [
                "allow_pickle"
                for keyword in node.keywords
                if keyword.arg == "allow_pickle"
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            ]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import marshal as m",
        "from shelve import open",
        "from multiprocessing import pickle",
        "import dill.session",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "eval(text)",
        "yaml.unsafe_load(text)",
    ],
)
def test_what_is_looked_for_is_found(source: str) -> None:
    assert violations(source)


def test_no_program_of_ours_unpickles() -> None:
    programs = [path for package in ("trainer", "launch") for path in (ROOT / package).rglob("*.py")]
    assert len(programs) > 100
    assert {str(path): found for path in programs if (found := violations(path.read_text(encoding="utf-8")))} == {}
