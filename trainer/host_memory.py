"""How much memory there is for us on this machine, and how much of it we take. No TensorFlow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUP_FILES = (
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Folder, limit and use of a container's memory: Linux' control groups, version 2 and version 1."""


def free_memory(proc: Path = Path("/proc"), control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that programs can still have: what Linux calls available, and no more than a container's limit leaves.

    Elsewhere all memory there is.

    Args:
      proc: Linux' tables of processes.
      control_groups: Linux' table of what groups of processes may take.
    """
    available = _kilobytes(proc / "meminfo", "MemAvailable")
    if available is None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([1024 * available, *_left_by_limits(control_groups)]))


def resident_memory(proc: Path = Path("/proc")) -> int:
    """Bytes that this process holds in memory now; where that is not told, the most that it ever held."""
    held = _kilobytes(proc / "self/status", "VmRSS")
    return peak_memory(proc) if held is None else 1024 * held


def peak_memory(proc: Path = Path("/proc")) -> int:
    """The most bytes that this process ever held in memory."""
    most = _kilobytes(proc / "self/status", "VmHWM")
    if most is not None:
        return 1024 * most
    import resource  # Not Linux' way: there it counts the process that this one was forked from, too.

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _left_by_limits(control_groups: Path) -> Iterator[int]:
    for folder, limit, used in _CGROUP_FILES:
        most, taken = _text(control_groups / folder / limit).strip(), _text(control_groups / folder / used).strip()
        if most.isdecimal() and taken.isdecimal():
            # What was read from files and can be given up counts as used there.
            given_up = re.findall(
                r"^(?:total_)?inactive_file (\d+)$", _text(control_groups / folder / "memory.stat"), re.M
            )
            yield int(most) - int(taken) + max(map(int, given_up), default=0)


def _kilobytes(table: Path, name: str) -> int | None:
    """A number of one of Linux' tables; None where there is no such table or number."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(table), re.M)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
