"""The real gcloud, kept on this machine: it asks the fake cloud, and whatever else it asks fails at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fakes.cloud import NOWHERE, FakeCloud
from fakes.credentials import PROJECT

SECONDS = 60
"""What one command may take. A start alone is about 2 s of processor time."""

requires_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed here")


def environment(cloud: FakeCloud, folder: Path) -> dict[str, str]:
    """The variables that gcloud runs with; nothing of the configuration of whoever runs the tests is among them.

    Args:
      cloud: that it asks.
      folder: for its configuration.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "CLOUDSDK_PYTHON") if name in os.environ}
    return {
        **kept,
        **cloud.environment(),
        "HOME": str(folder),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "true",
        "NO_GCE_CHECK": "true",
        "http_proxy": NOWHERE,
        "https_proxy": NOWHERE,
        "no_proxy": "127.0.0.1",
    }


def run(
    arguments: Sequence[str], cloud: FakeCloud, folder: Path, files: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs gcloud to its end, for `SECONDS` at most.

    Args:
      arguments: behind "gcloud".
      cloud: that it asks.
      folder: where it runs, and keeps its configuration.
      files: that the arguments name, by their names in that folder.
    """
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    return subprocess.run(
        ["gcloud", *arguments],
        cwd=folder,
        env=environment(cloud, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
