"""Writes what the images install, every package with its version:

    python3.11 -m launch.images.pin cpu gpu tpu

pip chooses the versions by setup.py and installs nothing; it takes the Python and the kind of machine that it runs on,
so run this with the images' Python 3.11 on Linux and x86-64. Commit what changed after the tests have passed with it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ASKED_FOR = {"cpu": ".", "gpu": ".[gpu]", "tpu": "."}
"""What pip is asked to install for each target."""

PYTHON = (3, 11)
"""Of the images."""


def main(targets: list[str]) -> int:
    """Writes the files of some targets; gives the exit code."""
    if sys.version_info[:2] != PYTHON:
        print(f"error: the images have Python {PYTHON[0]}.{PYTHON[1]}: run this with it.", file=sys.stderr)
        return 2
    unknown = [target for target in targets if target not in ASKED_FOR]
    if unknown or not targets:
        print(f"error: targets are {', '.join(ASKED_FOR)}.", file=sys.stderr)
        return 2
    for target in targets:
        Path(__file__).with_name(f"{target}.txt").write_text(pinned_text(target), encoding="utf-8")
    return 0


def pinned_text(target: str) -> str:
    """The text of a target's file."""
    lines = chosen(target)
    if target == "tpu":  # These would bring in the other TensorFlow by their dependencies: see setup.py.
        needed = (ROOT / "requirements-tpu.txt").read_text(encoding="utf-8").splitlines()
        lines += [line for line in needed if line and not line.startswith("#")]
    head = f"# Written by `python3.11 -m launch.images.pin {target}`."
    return "\n".join([head, *sorted(lines)]) + "\n"


def chosen(target: str) -> list[str]:
    """The packages that pip would install for a target, but ours, as in "numpy==2.4.6".

    Raises:
      CalledProcessError: pip found no versions that go together.
    """
    environment = {**os.environ, "TRAINER_TENSORFLOW": "tpu" if target == "tpu" else "default"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        arguments = ["--quiet", "--dry-run", "--ignore-installed", f"--report={report}", ASKED_FOR[target]]
        subprocess.run([sys.executable, "-m", "pip", "install", *arguments], cwd=ROOT, env=environment, check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    metadata = [each["metadata"] for each in installed if not each["download_info"]["url"].startswith(ROOT.as_uri())]
    # One spelling, as in setup.py, whatever an author's own (PyPA, "Name normalization").
    return [f"{re.sub(r'[-_.]+', '-', each['name']).lower()}=={each['version']}" for each in metadata]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
