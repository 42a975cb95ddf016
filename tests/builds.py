"""Builds for tests, and what Cloud Build does with substitutions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.services.build_config import read_build_config
from launch.services.build_request import Build, JobInBuild

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "fake-project"
IMAGE = f"europe-west4-docker.pkg.dev/{PROJECT}/images/trainer-gpu:abc1234"

HOSTILE_WORDS = (
    '--data=folder:gs://b/it\'s a "photo" folder',
    "--label=a,b;c|d#e^f=g",
    "--note=$HOME ${_REGION} $$ $(id) `id`",
    "--empty=",
    "",
    " spaces at both ends ",
    "line\nend and ü \\ backslash",
    "[1]",
)
"""What a shell, gcloud or Cloud Build would make something else of."""


def make_build(job: JobInBuild | None = None, **changes: Any) -> Build:
    """A build of this repository's own cloudbuild.yaml."""
    given = {"name": "flowers", "project": PROJECT, "location": "europe-west4", "image": IMAGE, "job": job}
    return Build(**{"config": read_build_config(ROOT / "cloudbuild.yaml"), **given, **changes})


def substituted(part: Any, values: Mapping[str, str]) -> Any:
    """A part of a build as its steps get it: substitutions replaced, all but in scripts.

    Args:
      part: of the build.
      values: of all substitutions, the built-in ones too. As with dynamicSubstitutions, they may name others.
    """
    if isinstance(part, str):
        return _replaced(part, {name: _replaced(value, values) for name, value in values.items()})
    if isinstance(part, Mapping):
        return {name: value if name == "script" else substituted(value, values) for name, value in part.items()}
    return [substituted(value, values) for value in part] if isinstance(part, list) else part


def _replaced(text: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return values.get(name, "") if name else "$"

    return re.sub(r"\$\$|\$\{([A-Z0-9_]+)\}|\$([A-Z0-9_]+)", one, text)
