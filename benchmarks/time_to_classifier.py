"""Time to a trained and tested flower classifier, beside the tutorial's way: whole processes, the same split.

    python benchmarks/time_to_classifier.py PHOTOS MODULE --epochs=1,6 --rounds=3

In every round and for each number of epochs, one after the other:

    tutorial    benchmarks/tutorial_way.py: tf_keras, hub.KerasLayer, fit; timed once it has tested, once it has saved
    ours        python -m trainer.task with an empty feature cache, once with --export= and once with the export and
                its parity gate
    again       another head (dropout 0.2, learning rate 4e-3) from the cache that the former left, with --export=

Seconds are those of the clock from the start of the process, medians over the rounds with the smallest and the largest.
Accuracies are over validation and test images together, medians as well; ours is of the best checkpoint by
validation, the tutorial's of the last weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from flowers_accuracy import run_ours, write_split
from machine import machine

from trainer.config import Config

OTHER_HEAD = ["--dropout=0.2", "--learning_rate=4e-3"]

Times = dict[str, list[float]]


def time_tutorial(split: Path, module: str, epochs: int, seed: int, folder: Path) -> tuple[float, float, float]:
    """Accuracy, seconds until it has tested, and seconds until it has saved and ended."""
    script = Path(__file__).with_name("tutorial_way.py")
    command = [sys.executable, str(script), str(split), module, f"--epochs={epochs}", f"--seed={seed}"]
    start = time.perf_counter()
    tested, result = 0.0, {}
    with subprocess.Popen([*command, f"--save={folder}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{"):
                tested, result = time.perf_counter() - start, json.loads(line)
    if process.returncode or not result:
        raise RuntimeError(f"the tutorial's way failed with code {process.returncode}")
    parts = [result["validation"], result["test"]]
    accuracy = sum(part["accuracy"] * part["examples"] for part in parts) / sum(part["examples"] for part in parts)
    return accuracy, tested, time.perf_counter() - start


def measure_round(split: Path, photos: str, module: str, epochs: int, seed: int, found: Times) -> None:
    """Runs all sides once; appends to `found`."""
    flags = [f"--data=folder:{photos}", f"--backbone={module}", f"--epochs={epochs}", f"--seed={seed}"]
    head = ["--dropout=0.5", "--batch_size=32"]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        accuracy, tested, saved = time_tutorial(split, module, epochs, seed, folder / "tutorial")
        found["tutorial accuracy"].append(accuracy)
        found["tutorial"].append(tested)
        found["tutorial with export"].append(saved)
        for name, more in (
            ("ours", [*head, "--export=", f"--feature_cache={folder}/cache"]),
            ("again", [*head, *OTHER_HEAD, "--export=", f"--feature_cache={folder}/cache"]),
            ("ours with export", [*head, f"--feature_cache={folder}/cache-2"]),
        ):
            accuracy, seconds = run_ours([*flags, *more], folder / name)
            found[name].append(seconds)
            found[f"{name} accuracy"].append(accuracy)


def row(epochs: int, found: Times) -> str:
    """The table's line for one number of epochs."""

    def seconds(name: str) -> str:
        values = found[name]
        return f"{statistics.median(values):.1f} ({min(values):.1f}, {max(values):.1f})"

    def ratio(peer: str, name: str) -> str:
        values = [theirs / ours for theirs, ours in zip(found[peer], found[name], strict=True)]
        return f"{statistics.median(values):.1f} ({min(values):.1f}, {max(values):.1f})"

    accuracies = [statistics.median(found[f"{name} accuracy"]) for name in ("tutorial", "ours", "again")]
    cells = [
        *(seconds(name) for name in ("tutorial", "ours", "again", "tutorial with export", "ours with export")),
        ratio("tutorial", "ours"),
        ratio("tutorial", "again"),
        ratio("tutorial with export", "ours with export"),
        *(f"{accuracy:.4f}" for accuracy in accuracies),
    ]
    return f"| {epochs} | {' | '.join(cells)} |"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder with one folder of photos a class")
    parser.add_argument("module", help="folder of a Hub module")
    parser.add_argument("--epochs", default="1,6,30")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    print("| epochs | tutorial, s | ours, s | again, s | tutorial with export, s | ours with export, s | ", end="")
    print("times as fast | again | with export | accuracy: tutorial | ours | again |")
    print("|---" * 12 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder, "split.json")
        write_split(Config.parse({"data": f"folder:{options.photos}"}), split)
        for epochs in map(int, options.epochs.split(",")):
            found: Times = defaultdict(list)
            for seed in range(options.rounds):
                measure_round(split, options.photos, options.module, epochs, seed, found)
            print(row(epochs, found), flush=True)


if __name__ == "__main__":
    main()
