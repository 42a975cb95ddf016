"""What was found out before, by a hash of all that it depends on: the second time takes no compiler.

    answers/KEY.json    what the compiler said of a program; the key is the program, the slice, and the compiler
    reports/KEY.json    what preflight said of a run; the key is all that its programs come from

All of it may be deleted. A file that is no longer what was written, by its own checksum, counts as none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.storage import RunDirectory

FLAG = "--cache_dir"

REPORTS, ANSWERS = "reports", "answers"
"""The two kinds of things that are kept."""


class Cache:
    """A folder with JSON objects by key."""

    def __init__(self, folder: str) -> None:
        """Names the folder, which may not exist yet; "" keeps nothing."""
        self._folder = RunDirectory(folder, FLAG) if folder else None

    def load(self, kind: str, key: str) -> Any:
        """What was saved under a key, or None."""
        name = _name(kind, key)
        if not self._folder or not self._folder.exists(name):
            return None
        text = self._folder.read_text(name)
        checksum, _, content = text.partition("\n")
        return json.loads(content) if checksum == _digest(content) else None

    def save(self, kind: str, key: str, value: Any) -> None:
        """Keeps a value that JSON can hold.

        Raises:
          UserError: the folder cannot be written.
        """
        if self._folder:
            content = json.dumps(value, sort_keys=True)
            self._folder.write_text(_name(kind, key), f"{_digest(content)}\n{content}")


def key_of(ingredients: Mapping[str, Any]) -> str:
    """64 hexadecimal digits that differ wherever the ingredients, which JSON can hold, do."""
    return _digest(json.dumps(ingredients, sort_keys=True))


def code_digest() -> str:
    """A hash of this project's own code and of the versions of what it stands on: programs depend on both."""
    import keras
    import tensorflow as tf

    digest = hashlib.sha256(f"{sys.version} {tf.__version__} {keras.__version__}".encode())
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\0{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def program_digest(hlo: bytes) -> str:
    """A hash of a program that is the same in every process, though names in it count from other numbers.

    Args:
      hlo: serialized HloModuleProto.
    """
    from tensorflow.compiler.xla.service import hlo_pb2

    module = hlo_pb2.HloModuleProto.FromString(hlo)
    module.name, module.entry_computation_name, module.id = "", "", 0
    module.ClearField("stack_frame_index")
    for computation in module.computations:
        computation.name = ""
        for instruction in computation.instructions:
            instruction.name = ""
            instruction.ClearField("metadata")
    return hashlib.sha256(module.SerializeToString(deterministic=True)).hexdigest()


def _name(kind: str, key: str) -> str:
    return f"{kind}/{key}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
