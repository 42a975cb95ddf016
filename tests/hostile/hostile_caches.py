"""Damage to the files of caches, whose content the tests make; by name."""

from __future__ import annotations

from mutations import cuts, flips

_CUTS, _FLIPS = 5, 8

DAMAGES = [*(f"cut {number}" for number in range(_CUTS)), *(f"flip {number}" for number in range(_FLIPS)), "empty"]

KINDS = 3
"""Shards of features, listings, indices of records."""

COUNT = KINDS * len(DAMAGES)


def damaged(content: bytes, damage: str) -> bytes:
    """The content with one of `DAMAGES`."""
    kind, _, number = damage.partition(" ")
    if kind == "empty":
        return b""
    variants = cuts(content, _CUTS) if kind == "cut" else flips(content, 4 * _FLIPS)
    return list(variants.values())[int(number)]
