"""Accuracy beside the tutorial's own way: the same photos, the same split, the same head, several seeds.

    python benchmarks/flowers_accuracy.py PHOTOS MODULE --seeds=0,1,2 --epochs=6

Both sides are whole processes. Ours is `python -m trainer.task`; the peer is benchmarks/tutorial_way.py. The table
gives accuracy over validation and test together and the seconds of each process, and the mean of the seeds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flower_options import flower_options

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.sources import open_source
from trainer.data.splits import split_examples


def write_split(config: Config, path: Path) -> int:
    """Writes our split of the photos for the peer; gives how many images are in validation and test together."""
    source = open_source(config)
    assert isinstance(source, FileSource)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    listed: dict[str, Any] = {
        name: [[source.paths[index], int(source.labels[index])] for index in indices.tolist()]
        for name, indices in parts.items()
    }
    path.write_text(json.dumps(listed | {"classes": source.class_names}), encoding="utf-8")
    return len(splits.validation) + len(splits.test)


def run_ours(flags: list[str], run_dir: Path) -> tuple[float, float]:
    """Accuracy over validation and test together, from the best checkpoint, and the seconds of the process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "trainer.task", f"--run_dir={run_dir}", "--quiet", *flags]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    return pooled_accuracy(run_dir), seconds


def pooled_accuracy(run_dir: Path) -> float:
    """Accuracy of a finished run's best checkpoint over its validation and test images together."""
    status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    config = Config.from_json((run_dir / "config.json").read_text(encoding="utf-8"))
    source = open_source(config)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    right = status["best"]["accuracy"] * len(splits.validation) + status["test"]["accuracy"] * len(splits.test)
    return float(right / (len(splits.validation) + len(splits.test)))


def run_tutorial(split: Path, module: str, epochs: int, seed: int) -> tuple[float, float]:
    """The same of the peer, with its weights after the last epoch, as the tutorials leave them."""
    script = Path(__file__).with_name("tutorial_way.py")
    command = [sys.executable, str(script), str(split), module, f"--epochs={epochs}", f"--seed={seed}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    parts = [result["validation"], result["test"]]
    right = sum(part["accuracy"] * part["examples"] for part in parts)
    return right / sum(part["examples"] for part in parts), result["seconds"]


def main() -> None:
    """Runs both sides and prints the table."""
    options = flower_options(__doc__ or "")
    flags = [f"--data=folder:{options.photos}", f"--backbone={options.module}", "--dropout=0.5", "--batch_size=32"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder, "split.json")
        images = write_split(Config.parse({"data": f"folder:{options.photos}"}), split)
        print(f"| seed | ours | seconds | tutorial | seconds |   ({images} images)\n|---|---|---|---|---|", flush=True)
        for seed in map(int, options.seeds.split(",")):
            ours = run_ours([*flags, f"--epochs={options.epochs}", f"--seed={seed}"], Path(folder, f"run-{seed}"))
            theirs = run_tutorial(split, options.module, options.epochs, seed)
            rows.append((*ours, *theirs))
            print(f"| {seed} | {ours[0]:.4f} | {ours[1]:.0f} | {theirs[0]:.4f} | {theirs[1]:.0f} |", flush=True)
    means = [statistics.mean(column) for column in zip(*rows)]
    print(f"| mean | {means[0]:.4f} | {means[1]:.0f} | {means[2]:.4f} | {means[3]:.0f} |")


if __name__ == "__main__":
    main()
