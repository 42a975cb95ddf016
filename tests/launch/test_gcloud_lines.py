"""Every command of gcloud that we tell people to type is one that the real gcloud takes."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fakes.gcloud import requires_gcloud

from launch.google.google_api import GoogleApi
from launch.records.records import RecordTarget
from launch.services.by_target import service_of

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS: dict[RecordTarget, str] = {
    "vertex": "projects/project-1/locations/us-central1/customJobs/7",
    "tpu-vm": "projects/project-1/locations/us-west4-a/queuedResources/flowers-1",
    "cloud-build": "projects/project-1/locations/us-central1/builds/3f0c2a6e-0000-4000-8000-000000000000",
}
PARSER = REPOSITORY / "tests/fakes/gcloud_parser.py"


def taken(lines: Sequence[Sequence[str]], folder: Path) -> tuple[list[bool], str]:
    """Whether gcloud's parser takes each of some command lines, and what it says against those that it does not."""
    program = shutil.which("gcloud")
    assert program
    root = Path(program).resolve().parents[1]
    bundled = root / "platform/bundledpythonunix/bin/python3"
    python = os.environ.get("CLOUDSDK_PYTHON") or (str(bundled) if bundled.exists() else "python3")
    done = subprocess.run(
        [python, str(PARSER), str(root)],
        input=json.dumps([list(line) for line in lines]),
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CLOUDSDK_CONFIG": str(folder / "gcloud")},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def lines_of_text(text: str) -> Iterator[str]:
    """Commands in a sentence, between backticks, or a text that is one."""
    yield from re.findall(r"`(gcloud [^`]+)`", text)
    if text.startswith("gcloud ") and "`" not in text and len(text.split()) > 2:
        yield text


def lines_of_source(source: str) -> Iterator[str]:
    """Commands in the strings of a program; what is filled in is "x-1"."""
    tree = ast.parse(source)
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield from lines_of_text(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "x-1" for part in node.values]
            yield from lines_of_text("".join(map(str, parts)))


def our_lines() -> dict[str, str]:
    """Every command, by where it stands."""
    found = {}
    for path in sorted([*REPOSITORY.glob("launch/**/*.py"), *REPOSITORY.glob("trainer/**/*.py")]):
        for line in lines_of_source(path.read_text(encoding="utf-8")):
            found[f"{path.relative_to(REPOSITORY)}: {line}"] = line
    for name in ("README.md", "cloudbuild.yaml"):
        text = (REPOSITORY / name).read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?:#)? {4}(gcloud .+)$", text, re.MULTILINE):
            found[f"{name}: {line}"] = line
    nobody: Any = None  # Is not asked.
    for target, resource in JOBS.items():
        service = service_of(target, GoogleApi(nobody, {}))
        for verb, words in service.gcloud_commands(resource).items():
            found[f"{target} {verb}"] = shlex.join(["gcloud", *words])
    return found


@requires_gcloud
def test_gcloud_takes_every_command_that_we_tell(tmp_path: Path) -> None:
    lines = our_lines()
    assert len(lines) > 15
    wrong = ["ai", "custom-jobs", "create", "--region=r", "--display-name=d", "--nope"]
    # A shell would run what is in $(...) first.
    split = [shlex.split(re.sub(r"\$\([^)]*\)", "x-1", line))[1:] for line in lines.values()]
    (*answers, of_wrong), said = taken([*split, wrong], tmp_path)
    assert not of_wrong and "unrecognized arguments: --nope" in said
    assert [where for where, is_taken in zip(lines, answers) if not is_taken] == [], said
