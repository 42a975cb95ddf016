"""Where programs keep what they can make anew: each kind in a folder of its own, all of which may be deleted."""

from __future__ import annotations

import os

PROGRAM = "hub-trainer"


def cache_home(kind: str) -> str:
    """A folder such as ~/.cache/hub-trainer/features, or under `XDG_CACHE_HOME`; it may not exist yet."""
    above = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(above, PROGRAM, kind)
