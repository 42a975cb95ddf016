"""Deterministic damage: the same in every run, told apart by name."""

from __future__ import annotations

import random


def cuts(data: bytes, count: int) -> dict[str, bytes]:
    """The data cut off at places spread from its beginning to its last byte."""
    places = sorted({2 + place * (len(data) - 3) // max(count - 1, 1) for place in range(count)})
    return {f"cut at {place}": data[:place] for place in places}


def flips(data: bytes, count: int, first: int = 0, last: int | None = None) -> dict[str, bytes]:
    """The data with one bit another, at places drawn from a part of it."""
    draw = random.Random(len(data))
    flipped = {}
    for _ in range(count):
        place, bit = draw.randrange(first, last or len(data)), draw.randrange(8)
        flipped[f"bit {bit} of {place}"] = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    return flipped


def named(prefix: str, inputs: dict[str, bytes]) -> dict[str, bytes]:
    """The same inputs under longer names."""
    return {f"{prefix} {name}": data for name, data in inputs.items()}
