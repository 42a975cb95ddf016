"""Golden files: texts as they came out when somebody last looked at them. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def check_golden(path: Path, text: str) -> None:
    """Fails unless the file holds that text; where files are written anew it fails too, after it has written one.

    Args:
      path: of the file, which belongs under version control.
      text: what came out now.
    """
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"{path} was written: look at the difference, and run again without UPDATE_GOLDEN")
    assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; UPDATE_GOLDEN=1 writes it anew"
