"""What Linux tells of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.host_memory import free_memory, peak_memory, resident_memory

MIB = 2**20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8388608 kB\nMemAvailable:    4096 kB\n")
    return tmp_path / "proc"


def test_free_is_what_this_machine_can_give() -> None:
    assert MIB < free_memory() < 2**50


@pytest.mark.parametrize(
    ("folder", "limit", "used", "statistics"),
    [
        ("", "memory.max", "memory.current", "inactive_file 524288"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "inactive_file 4\ntotal_inactive_file 524288"),
    ],
)
def test_a_container_leaves_less(
    proc: Path, tmp_path: Path, folder: str, limit: str, used: str, statistics: str
) -> None:
    groups = tmp_path / "groups"
    (groups / folder).mkdir(parents=True)
    assert free_memory(proc, groups) == 4 * MIB, "no limit at all"
    (groups / folder / used).write_text(f"{3 * MIB}\n")
    (groups / folder / limit).write_text("max\n")
    assert free_memory(proc, groups) == 4 * MIB
    (groups / folder / limit).write_text(f"{5 * MIB}\n")
    assert free_memory(proc, groups) == 2 * MIB
    (groups / folder / "memory.stat").write_text(f"anon 7\n{statistics}\n")
    assert free_memory(proc, groups) == 2.5 * MIB
    (groups / folder / limit).write_text(f"{2 * MIB}\n")
    assert free_memory(proc, groups) == 0


def test_without_linux_all_memory_counts(tmp_path: Path) -> None:
    assert free_memory(tmp_path) > 4 * MIB


def test_memory_that_was_given_back_is_in_the_peak_alone(tmp_path: Path) -> None:
    before = resident_memory()
    assert MIB < before <= peak_memory()
    assert peak_memory(tmp_path) == resident_memory(tmp_path) > MIB
    block = np.ones(128 * MIB, np.uint8)
    assert resident_memory() >= before + 120 * MIB and block[-1] == 1
    del block
    assert resident_memory() < before + 60 * MIB
    assert peak_memory() >= before + 120 * MIB
