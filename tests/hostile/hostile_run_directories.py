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

FILES = ("config.json", "status.json", "metrics.jsonl", "newest checkpoint", "one before", "all checkpoints")
"""What is damaged in a run directory that has two checkpoints."""


def files(folder: Path, name: str) -> list[Path]:
    """The files of a run directory that one of `FILES` means."""
    before, newest = sorted((folder / "checkpoints").iterdir())
    checkpoints = {"newest checkpoint": [newest], "one before": [before], "all checkpoints": [before, newest]}
    return checkpoints.get(name, [folder / name])


COUNT = len(DAMAGE) * len(FILES)
