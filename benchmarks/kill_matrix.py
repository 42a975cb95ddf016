"""A run that is killed anywhere and started again leaves what an undisturbed one leaves, bit for bit.

    python benchmarks/kill_matrix.py --kills=100 --seed=0

Four runs of a tiny Hub module on small photos: frozen with a feature cache and fine-tuned, each with everything on the
local disk and on a pretended gs:// on loopback. Each goes undisturbed once, which tells how often it comes to each
phase (startup, features, compile, train, evaluate, export, and each write of features, a checkpoint, metrics, status)
and how long a phase takes. Then, for each kill, a phase, an occurrence of it and a moment within it are drawn from the
seed, and the process gets SIGKILL there (benchmarks/killed_task.py). The same command is started again and must end
with exit code 0 and leave the same bytes: all checkpoints, metrics.jsonl, the weights of both exports; and the same
status, but for times. The exit code is 0 where every kill passed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]

from machine import machine  # noqa: E402 (beside this file, or found through the line above, as those below)

EPOCHS = 3

FLAGS = [
    *(
        f"--epochs={EPOCHS}",
        "--batch_size=16",
        "--checkpoint_steps=3",
        "--steps_per_loop=2",
        "--dropout=0.3",
        "--quiet",
    ),
    "--keep_checkpoints=100",
    "--noreport",
]
"""All checkpoints are kept, to be compared; within an epoch one is left out while another is being written. The page is
no part of the comparison."""

MODES = {
    "frozen, cached": [],
    "fine-tuned": ["--train_backbone", "--backbone_statistics=update", "--ema_decay=0.9", "--augment=flip"],
}

IMAGES_A_CLASS = 60

RUN_SECONDS = 300.0
"""What a process may take."""

RESTARTS = 3
"""How often a run may be started again; once must do."""

STATUS_FIELDS = ("state", "step", "epoch", "steps_total", "train", "validation", "test", "best", "error")

NOT_AIMED_AT = ("write another file", "write config")
"""What is written once, in no time: the kills that come at startup hit it too."""


class Place(Protocol):
    """Where runs leave everything."""

    environment: Mapping[str, str]

    def folder(self, name: str) -> str:
        """The path of a folder for a run."""

    def contents(self, folder: str) -> dict[str, bytes]:
        """All files in such a folder, by their path inside."""


class LocalDisk:
    """Folders of this machine."""

    def __init__(self, root: Path) -> None:
        self.environment: Mapping[str, str] = {"NO_GCE_CHECK": "true"}
        self._root = root

    def folder(self, name: str) -> str:
        """See `Place.folder`."""
        return str(self._root / name)

    def contents(self, folder: str) -> dict[str, bytes]:
        """See `Place.contents`."""
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class PretendedBucket:
    """gs://runs of a server in this process."""

    def __init__(self, root: Path, running: contextlib.ExitStack) -> None:
        from fakes.certificates import make_certificate
        from fakes.gcs import TLS_HOSTS, serving, tensorflow_environment

        authority, certificate = make_certificate(root, TLS_HOSTS)
        server = running.enter_context(serving(certificate))
        self.environment: Mapping[str, str] = tensorflow_environment(server, authority)
        self._objects = server.bucket("runs")

    def folder(self, name: str) -> str:
        """See `Place.folder`."""
        return f"gs://runs/{name}"

    def contents(self, folder: str) -> dict[str, bytes]:
        """See `Place.contents`."""
        start = folder.removeprefix("gs://runs/") + "/"
        found = dict(self._objects.contents)
        return {name.removeprefix(start): content for name, content in found.items() if name.startswith(start)}


@dataclass(frozen=True)
class Kill:
    """SIGKILL, so many seconds after a phase has begun for the given time (from 1)."""

    phase: str
    times: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What came of a kill.

    Attributes:
      kill: the kill.
      killed: whether the process was still there.
      starts: how often it was started again.
      wrong: what differs from the undisturbed run; empty if nothing does.
    """

    kill: Kill
    killed: bool
    starts: int
    wrong: list[str]


class Matrix:
    """One kind of run at one place, undisturbed and killed."""

    def __init__(self, name: str, flags: list[str], place: Place, scratch: Path) -> None:
        self._name = name.replace(", ", "-")
        self._flags = flags
        self._place = place
        self._scratch = scratch
        self.phases: dict[str, dict[str, float]] = {}
        self._expected: dict[str, str] = {}

    def run_undisturbed(self) -> None:
        """Learns what a run leaves, and what phases it has."""
        file = self._scratch / f"{self._name}.json"
        done = self._start(f"{self._name}-undisturbed", "PHASES", str(file))
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.phases = json.loads(file.read_text(encoding="utf-8"))
        self._expected = self._left(f"{self._name}-undisturbed")

    def draw(self, generator: random.Random, phase: str) -> Kill:
        """A kill in a phase."""
        seen = self.phases[phase]
        return Kill(phase, generator.randint(1, int(seen["times"])), generator.uniform(0, seen["seconds"]))

    def killed(self, number: int, kill: Kill) -> Result:
        """Kills a run, starts it again, and looks at what it leaves."""
        run = f"{self._name}-{number}"
        first = self._start(run, kill.phase, str(kill.times), f"{kill.seconds:.6f}")
        starts, last = 0, first
        while last.returncode and starts < RESTARTS:
            last = self._start(run)
            starts += 1
        if last.returncode:
            return Result(kill, True, starts, [f"exit code {last.returncode}: {last.stderr[-2000:]}"])
        left = self._left(run)
        names = sorted(left.keys() | self._expected.keys())
        wrong = [
            name for name in names if left.get(name) != self._expected.get(name) and not self._may_lack(name, left)
        ]
        return Result(kill, first.returncode == -signal.SIGKILL, starts, wrong)

    def _may_lack(self, name: str, left: Mapping[str, str]) -> bool:
        """Whether it is a checkpoint within an epoch, and one of the two runs just did not write it."""
        within = re.fullmatch(r"checkpoints/step-(\d+)\.safetensors", name)
        ends = json.loads(self._expected["status.json steps_total"]) // EPOCHS
        if within is None or int(within[1]) % ends == 0:
            return False
        return not (name in left and name in self._expected)

    def _start(self, run: str, *killer: str) -> subprocess.CompletedProcess[str]:
        flags = [f"--run_dir={self._place.folder(run)}", f"--feature_cache={self._place.folder(run + '-features')}"]
        program = [str(ROOT / "benchmarks" / "killed_task.py"), *killer] if killer else ["-m", "trainer.task"]
        cache = self._scratch / f"{run}-cache"
        return subprocess.run(
            [sys.executable, *program, *FLAGS, *self._flags, *flags],
            cwd=ROOT,
            env={**os.environ, **self._place.environment, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )

    def _left(self, run: str) -> dict[str, str]:
        """What a run left, each thing in a form that can be compared."""
        contents = self._place.contents(self._place.folder(run))
        left = {
            name: hashlib.sha256(content).hexdigest()
            for name, content in contents.items()
            if name.startswith("checkpoints/")
            or name == "metrics.jsonl"
            or "variables.data" in name
            or "/assets/" in name
        }
        status = json.loads(contents["status.json"])
        left |= {f"status.json {field}": json.dumps(status[field]) for field in STATUS_FIELDS}
        # Nothing half-written stays behind.
        return left | {f"leftover {name}": "" for name in contents if "/." in f"/{name}"}


@contextlib.contextmanager
def matrices(scratch: Path) -> Iterator[dict[str, Matrix]]:
    """The four kinds of runs, by what they are called in the table."""
    module, photos = _module_and_photos(scratch)
    data = [f"--data=folder:{photos}", f"--backbone={module}"]
    with contextlib.ExitStack() as running:
        places: dict[str, Place] = {
            "local": LocalDisk(scratch / "runs"),
            "gs://": PretendedBucket(scratch, running),
        }
        yield {
            f"{mode}, {kind}": Matrix(f"{mode}, {kind.rstrip(':/')}", [*data, *flags], place, scratch)
            for mode, flags in MODES.items()
            for kind, place in places.items()
        }


def _module_and_photos(scratch: Path) -> tuple[Path, Path]:
    from image_folders import write_classes

    program = (
        "import sys; from pathlib import Path; from trainer.startup import import_tensorflow_quietly; "
        "import_tensorflow_quietly(); import modules; modules.with_training(Path(sys.argv[1]))"
    )
    module = scratch / "module"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    subprocess.run([sys.executable, "-c", program, str(module)], check=True, env=environment, capture_output=True)
    return module, write_classes(scratch / "photos", {"dark": IMAGES_A_CLASS, "light": IMAGES_A_CLASS})


def aims(matrix: Matrix, kills: int, generator: random.Random) -> list[Kill]:
    """So many kills, spread evenly over the phases."""
    phases = sorted(set(matrix.phases) - set(NOT_AIMED_AT))
    return [matrix.draw(generator, phases[number % len(phases)]) for number in range(kills)]


def main() -> int:
    """Runs all and prints the matrix; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all four kinds of runs")
    parser.add_argument("--seed", type=int, default=0, help="what the kills are drawn from")
    parser.add_argument("--jobs", type=int, default=2, help="how many runs go on at a time")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    table: dict[str, Counter[str]] = {}
    wrong = missed = 0
    with tempfile.TemporaryDirectory() as folder, matrices(Path(folder)) as kinds:
        for place, (kind, matrix) in enumerate(kinds.items()):
            matrix.run_undisturbed()
            share = options.kills // len(kinds) + (place < options.kills % len(kinds))
            with ThreadPoolExecutor(options.jobs) as pool:
                results = list(pool.map(matrix.killed, range(share), aims(matrix, share, generator)))
            for result in results:
                counts = table.setdefault(result.kill.phase, Counter())
                counts[f"{kind} kills"] += 1
                counts[f"{kind} equal"] += not result.wrong
                missed += not result.killed
                if result.wrong:
                    wrong += 1
                    print(f"{kind}: {result.kill}: {', '.join(result.wrong)}", file=sys.stderr, flush=True)
            print(f"{kind}: {sum(not result.wrong for result in results)} of {len(results)} equal", flush=True)
    _print_table(table, list(kinds))
    print(f"\n{options.kills - wrong} of {options.kills} equal the undisturbed run; {missed} kills came after the end.")
    print(f"Seed {options.seed}. {machine()}.")
    return 1 if wrong else 0


def _print_table(table: Mapping[str, Counter[str]], kinds: list[str]) -> None:
    print(f"\n| killed in | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for phase, counts in sorted(table.items()):
        cells = [f"{counts[f'{kind} equal']} of {counts[f'{kind} kills']}" for kind in kinds]
        print(f"| {phase} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
