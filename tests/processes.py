"""Looks after processes by their ids."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PATIENCE_SECONDS = 5.0


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody has asked about yet is not running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError):  # Linux alone has it.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return not Path("/proc/self").exists()


def assert_gone(pids: list[int]) -> None:
    """Fails if one of them is still running after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if is_running(pid)]}"
        time.sleep(0.01)
