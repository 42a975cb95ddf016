"""Starts `python -m trainer.task` as a process of its own, for benchmarks of whole runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

POLL_SECONDS = 0.02

RUN_SECONDS = 900.0
"""What a run may take."""


class WholeRun(NamedTuple):
    """What a run took.

    Attributes:
      first_step_seconds: from the command to the end of the first training step (one step a loop).
      peak_bytes: the most resident memory that the process had.
    """

    first_step_seconds: float
    peak_bytes: int


def whole_run(flags: Sequence[str], environment: Mapping[str, str] | None = None, *, steps: int) -> WholeRun:
    """Trains, and ends the run with Ctrl-C when it has come so far.

    Args:
      flags: of the trainer; --run_dir and --steps_per_loop are added.
      environment: variables beside those of this process.
      steps: after how many steps to end it; 0 lets it come to its own end.

    Raises:
      RuntimeError: the run failed or took longer than `RUN_SECONDS`; with what it printed.
    """
    with tempfile.TemporaryDirectory() as run_dir, tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "trainer.task", *flags, f"--run_dir={run_dir}/run", "--steps_per_loop=1"]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
        first_step = 0.0
        interrupted = False
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            done = _steps_done(Path(run_dir) / "run/status.json")
            if done and not first_step:
                first_step = time.perf_counter() - start
            if steps and done >= steps and not interrupted:
                interrupted = True
                process.send_signal(signal.SIGINT)
            if time.perf_counter() - start > RUN_SECONDS:
                process.kill()
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != (75 if interrupted else 0) or not first_step:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()}")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return WholeRun(first_step, usage.ru_maxrss * kilobyte)


def _steps_done(status: Path) -> int:
    """How many steps a run's status tells of; 0 while there is none."""
    try:
        return int(json.loads(status.read_text(encoding="utf-8"))["step"])
    except FileNotFoundError:
        return 0


def link_photos(photos: Path, folder: Path, images: int, classes: int) -> None:
    """Makes a folder of class folders of links to copies of photos, which come into a folder "p" beside it.

    Args:
      photos: with JPEG files in it or in folders of it.
      folder: to make.
      images: how many links, over all classes.
      classes: how many folders, with as many links each, one more in some.

    Raises:
      FileNotFoundError: there are no photos.
    """
    sources = sorted(photos.rglob("*.jpg"))
    if not sources:
        raise FileNotFoundError(f"no .jpg file in {photos}")
    # Links of up to 59 bytes lie in the inode itself (ext4); a longer one is a block of its own to read.
    copies = folder.parent / "p"
    copies.mkdir(exist_ok=True)
    for number, source in enumerate(sources):
        shutil.copyfile(source, copies / f"{number}.jpg")
    for number in range(classes):
        inside = folder / f"class_{number:04d}"
        inside.mkdir(parents=True)
        for index in range(number, images, classes):
            os.symlink(f"../../p/{index % len(sources)}.jpg", f"{inside}/photo_{index:07d}.jpg")
