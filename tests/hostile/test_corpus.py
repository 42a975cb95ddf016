"""The corpus cannot shrink unnoticed."""

from __future__ import annotations

import hostile_archives
import hostile_caches
import hostile_configs
import hostile_images
import hostile_modules
import hostile_records
import hostile_run_directories

LEAST = {
    hostile_images: 170,
    hostile_records: 85,
    hostile_configs: 90,
    hostile_archives: 50,
    hostile_modules: 50,
    hostile_run_directories: 30,
    hostile_caches: 40,
}
"""Inputs of each kind (2026-11)."""


def test_there_are_enough_hostile_inputs_of_every_kind() -> None:
    counts = {kind.__name__: (kind.COUNT, least) for kind, least in LEAST.items()}
    assert {name: both for name, both in counts.items() if both[0] < both[1]} == {}
    assert sum(count for count, _ in counts.values()) >= 200


def test_the_inputs_differ() -> None:
    for inputs in (
        [*hostile_images.TOO_LARGE.values(), *hostile_images.BAD.values(), *hostile_images.FLIPPED.values()],
        [*hostile_records.REFUSED.values(), *hostile_records.SKIPPABLE.values()],
        [*hostile_configs.REFUSED.values(), *hostile_configs.CHANGED.values()],
        [content for content, _ in hostile_archives.corpus(b"x" * 20_000).values()],
    ):
        assert len(set(inputs)) == len(inputs)
