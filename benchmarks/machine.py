"""What a benchmark's numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version


def machine() -> str:
    """Cores, versions and date, in one line; imports neither TensorFlow nor Keras."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()}), Python {platform.python_version()}, "
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, {date.today()}"
    )
