"""Fine-tuning against the same module frozen: the recipe that the README gives, several seeds.

    python benchmarks/fine_tuning.py PHOTOS MODULE --seeds=0,1,2

The table gives the accuracy over validation and test together, of the checkpoint with the best validation accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from flowers_accuracy import run_ours

FROZEN = ["--epochs=6", "--dropout=0.2"]
TUNED = [
    "--train_backbone",
    "--backbone_statistics=keep",
    "--epochs=6",
    "--learning_rate=3e-4",
    "--warmup=1",
    "--augment=flip,crop",
    "--dropout=0.2",
    "--label_smoothing=0.1",
]


def main() -> None:
    """Runs both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder with one folder of photos a class")
    parser.add_argument("module", help="folder of a Hub module")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    print("| seed | frozen | seconds | fine-tuned | seconds |\n|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds.split(","):
            common = [f"--data=folder:{options.photos}", f"--backbone={options.module}", f"--seed={seed}"]
            frozen = run_ours([*common, *FROZEN], Path(folder, f"frozen-{seed}"))
            tuned = run_ours([*common, *TUNED], Path(folder, f"tuned-{seed}"))
            rows.append((*frozen, *tuned))
            print(f"| {seed} | {frozen[0]:.4f} | {frozen[1]:.0f} | {tuned[0]:.4f} | {tuned[1]:.0f} |", flush=True)
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    print(f"| mean | {means[0]:.4f} | {means[1]:.0f} | {means[2]:.4f} | {means[3]:.0f} |")


if __name__ == "__main__":
    main()
