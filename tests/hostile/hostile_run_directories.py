"""Damage to the files of a finished run, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(bytes(content))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": _flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
    "nonsense": lambda file: file.write_bytes(b"\xff\xfe{[" * 20),
}

FILES = (
    "config.json",
    "status.json",
    "metrics.jsonl",
    "newest/position.json",
    "newest/variables.index",
    "newest/variables.data-00000-of-00001",
)
"""Of a run directory; "newest" is the newest checkpoint."""

COUNT = len(DAMAGE) * len(FILES)
