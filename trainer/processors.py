"""How much of this machine is ours. No TensorFlow."""

from __future__ import annotations

import os


def processors() -> int:
    """How many processors this process may use: a container or `taskset` may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
