"""Peak memory of whole runs, on more and more images.

    python benchmarks/memory.py flower_photos
    python benchmarks/memory.py flower_photos --steps=0 -- --backbone=mobilenet_v2_035_224_feature_vector

Folders of links to the photos, as many as there are photos and 4 and 16 times as many, are trained on, whole processes
that take turns. By default the built-in network trains at 32 pixels and the run is ended after some hundred steps; with
--steps=0 it goes on to the end of its one epoch, with validation, test and export. Flags behind -- are for the trainer.
The exit code is 1 if the most images take a tenth more memory than the fewest, or yet more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine
from whole_run import WholeRun, link_photos, whole_run

FACTORS = (1, 4, 16)

ALLOWED_GROWTH = 1.1
"""How many times the memory of the fewest images the most may take."""


def main() -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder with some JPEG files")
    parser.add_argument("--steps", type=int, default=300, help="end each run after so many; 0: after its epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("trainer", nargs="*", help="flags for the trainer, behind --")
    flags = parser.parse_args()
    print(machine())
    photos = len(list(flags.photos.rglob("*.jpg")))
    runs: dict[int, list[WholeRun]] = {factor: [] for factor in FACTORS}
    with tempfile.TemporaryDirectory() as folder:
        for factor in FACTORS:
            link_photos(flags.photos, Path(folder) / str(factor), factor * photos, flags.classes)
        for _ in range(flags.repeats):
            for factor, done in runs.items():
                trainer_flags = [f"--epochs={100 if flags.steps else 1}", *(flags.trainer or ["--image_size=32"])]
                data = f"--data=folder:{folder}/{factor}"
                done.append(whole_run([data, *trainer_flags], {"XDG_CACHE_HOME": f"{folder}/cache"}, steps=flags.steps))
    print("| images | peak memory, MB, median | range | times the fewest | runs |\n|---|---|---|---|---|")
    medians = {factor: statistics.median(run.peak_bytes for run in done) for factor, done in runs.items()}
    for factor, done in runs.items():
        low, high = (choose(run.peak_bytes for run in done) / 1e6 for choose in (min, max))
        middle, ratio = medians[factor] / 1e6, medians[factor] / medians[FACTORS[0]]
        print(f"| {factor * photos:,} | {middle:.0f} | {low:.0f} to {high:.0f} | {ratio:.3f} | {len(done)} |")
    return int(medians[FACTORS[-1]] >= ALLOWED_GROWTH * medians[FACTORS[0]])


if __name__ == "__main__":
    sys.exit(main())
