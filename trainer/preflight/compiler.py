"""Asks the real TPU compiler about programs, in a process of its own that cannot hurt this one. No TensorFlow.

Whatever keeps the compiler from answering is a `CompilerError`, and never an answer.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.accelerators import Slice
from trainer.preflight.bounded_process import LONGEST_WORDS, Ended, last_line, run_bounded, whole_lines
from trainer.preflight.verdict import Memory
from trainer.terminal import printable

VERSIONS = {"jax": "0.10.2", "jaxlib": "0.10.2", "libtpu": "0.0.51"}
"""What this was made for and tested with (2026-11): the extra [preflight] of setup.py has the same."""

COMPILER = f"libtpu {VERSIONS['libtpu']}"

PYTHON_VARIABLE = "TRAINER_PREFLIGHT_PYTHON"
"""The environment variable that names another Python which has the compiler."""

_INSTALL = (
    f"run pip install '.[preflight]', or let {PYTHON_VARIABLE} name the Python of another environment with "
    + ", ".join(f"{name}=={version}" for name, version in VERSIONS.items())
)

EXCHANGE_MARK = "preflight.all_to_all"
"""The target of the custom call that stands for an exchange between replicas in HLO, for which tf2xla has no form; its
backend_config has the dimensions, as JSON."""

_TOPOLOGY_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "v4": {"chip_config_name": "megacore", "chips_per_host_bounds": [2, 2, 1]},
}
"""What libtpu must be told beside the topology: that the two cores of a v4 chip work as one, as TensorFlow has them."""

_REFUSALS = ("UNIMPLEMENTED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
"""The compiler's errors that are about the program. The others are about itself."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class CompilerError(Exception):
    """The compiler gave no answer. The message is a clause that says why, as in "it was killed (SIGKILL)"."""


@dataclass(frozen=True)
class Accepted:
    """What the compiler made of a program; see `trainer.preflight.verdict.CompiledStep`."""

    memory: Memory
    flops: float
    bytes_accessed: float
    seconds: float


@dataclass(frozen=True)
class Refused:
    """The compiler refused a program.

    Attributes:
      rule: "memory" where it is too large, "compiler" otherwise.
      words: the compiler's own.
      needed: bytes that it would have needed, of temporaries or in all; None where it did not say.
      seconds: that it took.
    """

    rule: Literal["memory", "compiler"]
    words: str
    needed: int | None
    seconds: float


Answer = Accepted | Refused


def compiler_python(environment: Mapping[str, str]) -> str:
    """The Python to run the compiler with: `TRAINER_PREFLIGHT_PYTHON`, or this one if it has libtpu; "" if neither."""
    named = environment.get(PYTHON_VARIABLE, "")
    return named or (sys.executable if importlib.util.find_spec("libtpu") else "")


class Compiler:
    """The compiler for one slice."""

    def __init__(self, slice_: Slice, python: Sequence[str], timeout: float) -> None:
        """Notes what to ask.

        Args:
          slice_: what to compile for.
          python: command of an interpreter that reads its program from standard input, without the "-".
          timeout: seconds after which an answer is not waited for any more.
        """
        self._slice = slice_
        self._python = list(python)
        self._timeout = timeout

    def __call__(self, programs: Mapping[str, bytes], timeout: float | None = None) -> dict[str, Answer]:
        """Compiles programs one after the other.

        Args:
          programs: serialized HloModuleProtos by name.
          timeout: seconds for all of them, if less than usual.

        Returns:
          An answer for each.

        Raises:
          CompilerError: for one of them there is none.
        """
        if not self._python or not self._python[0]:
            raise CompilerError(f"the TPU compiler is not installed: {_INSTALL}")
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        with tempfile.TemporaryDirectory(prefix="hub-trainer-preflight-") as folder:
            ended = self._run(Path(folder), programs, seconds)
            results = whole_lines(Path(folder) / "results.jsonl")
        _check_versions(results)
        answers = {entry["name"]: _answer(entry) for entry in results[1:]}
        if ended.failure or set(answers) != set(programs):
            raise CompilerError(ended.failure or f"its process ended early: {last_line(ended.said)}")
        return answers

    def _run(self, folder: Path, programs: Mapping[str, bytes], seconds: float) -> Ended:
        """Runs the process to its end."""
        entries = []
        for number, (name, hlo) in enumerate(programs.items()):
            path = folder / f"{number}.hlo.pb"
            path.write_bytes(hlo)
            entries.append({"name": name, "hlo": str(path)})
        generation = self._slice.generation.name
        request = {
            "versions": VERSIONS,
            "topology": f"{generation}:{self._slice.topology}",
            "options": _TOPOLOGY_OPTIONS.get(generation, {}),
            "replicas": self._slice.replicas,
            "exchange_mark": EXCHANGE_MARK,
            "programs": entries,
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [*self._python, "-", str(folder / "request.json"), str(folder / "results.jsonl")]
        # Read from standard input, so that no folder of this project comes before that interpreter's own packages.
        program = Path(__file__).with_name("compiler_process.py")
        try:
            return run_bounded(command, folder=folder, seconds=seconds, program=program, directory=folder)
        except OSError as error:
            return Ended(f"{command[0]} cannot be run ({error.strerror}): {_INSTALL}", "")


def _check_versions(results: Sequence[Mapping[str, Any]]) -> None:
    found = results[0]["versions"] if results else VERSIONS
    missing = [name for name, version in found.items() if not version]
    if missing:
        raise CompilerError(f"{', '.join(missing)} is not installed: {_INSTALL}")
    others = [f"{name} {version}" for name, version in found.items() if version != VERSIONS[name]]
    if others:
        raise CompilerError(f"{', '.join(others)} is not the version that this was made for: {_INSTALL}")


def _answer(entry: Mapping[str, Any]) -> Answer:
    if "memory" in entry:
        memory = Memory(**entry["memory"])
        return Accepted(memory, entry["flops"], entry["bytes_accessed"], entry["seconds"])
    error = entry["error"]
    status = error.split(":")[0]
    if status not in _REFUSALS:
        raise CompilerError(f"it failed: {_words(error)}")
    too_large = status == "RESOURCE_EXHAUSTED" and "HBM" in error.upper()
    return Refused("memory" if too_large else "compiler", _words(error), _needed(error), entry["seconds"])


def _words(error: str) -> str:
    """The compiler's sentence, without codes before it and addresses behind it."""
    line = error.strip().split("\n")[0]
    line = re.sub(r"^(?:[A-Z_]+: )?(?:E\d+: )?(?:\w+: )?", "", line)
    line = re.sub(r"\.? HLO module: .*$", "", line)
    return printable(line[:LONGEST_WORDS], None)


def _needed(error: str) -> int | None:
    found = re.search(r"\((\d+(?:\.\d+)?)([KMGT]?)\) exceeds available HBM", error)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None
