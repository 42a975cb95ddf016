"""From the command to the first training step on very many images, and the memory that it takes.

    python benchmarks/large_folder.py flower_photos --images=1000000
    python benchmarks/large_folder.py flower_photos --images=1000000 --bucket

A folder of links to some photos is made, and trained on by the built-in network at 32 pixels: first with an empty
cache, then with what the first run kept, several times; each time beside the built-in digits, whose start is that of
TensorFlow and the compiler alone. With --bucket the images are objects of a pretended gs:// on loopback, made up as
they are listed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from machine import machine
from whole_run import WholeRun, link_photos, whole_run

STEPS = 5

DIGITS = ["--data=digits", "--epochs=1000"]
"""A run that does not end by itself before it is ended."""

SETTLING_SECONDS = 3.0
"""A folder that has just been filled is not taken for settled, and its listing not kept."""


@contextmanager
def links(photos: Path, images: int, classes: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Links on disk: the value of --data, and variables for the trainer."""
    with tempfile.TemporaryDirectory() as folder:
        link_photos(photos, Path(folder) / "photos", images, classes)
        time.sleep(SETTLING_SECONDS)
        yield f"folder:{folder}/photos", {"XDG_CACHE_HOME": f"{folder}/cache"}


@contextmanager
def objects(photos: Path, images: int, classes: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Objects in a pretended bucket."""
    from fakes.certificates import make_certificate
    from fakes.gcs import TLS_HOSTS, GeneratedObjects, serving, tensorflow_environment

    photo = next(photos.rglob("*.jpg")).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = make_certificate(Path(folder), TLS_HOSTS)
        with serving(certificate) as server:
            server.buckets["photos"] = GeneratedObjects("large", classes, images // classes, photo)
            yield "folder:gs://photos/large", tensorflow_environment(server, authority)


def row(title: str, runs: list[WholeRun]) -> str:
    """A line of the table: medians, and the range of the seconds."""
    seconds = [run.first_step_seconds for run in runs]
    memory = statistics.median(run.peak_bytes for run in runs) / 1e9
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    return f"| {title} | {statistics.median(seconds):.1f} | {spread} | {memory:.2f} | {len(runs)} |"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder with some JPEG files")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="runs after the first")
    parser.add_argument("--bucket", action="store_true", help="objects on a pretended gs:// in place of links")
    flags = parser.parse_args()
    print(machine())
    place = objects if flags.bucket else links
    with place(flags.photos, flags.images, flags.classes) as (data, environment):
        trainer_flags = [f"--data={data}", "--image_size=32"]
        whole_run(DIGITS, environment, steps=STEPS)  # Brings TensorFlow into the disk's cache.
        first = whole_run(trainer_flags, environment, steps=STEPS)
        later: list[WholeRun] = []
        digits: list[WholeRun] = []
        for _ in range(flags.repeats):
            digits.append(whole_run(DIGITS, environment, steps=STEPS))
            later.append(whole_run(trainer_flags, environment, steps=STEPS))
    print("| | seconds to the first step, median | range | peak memory, GB | runs |\n|---|---|---|---|---|")
    print(row(f"{flags.images:,} images, first time", [first]))
    print(row(f"{flags.images:,} images, afterwards", later))
    print(row("the built-in digits", digits))


if __name__ == "__main__":
    main()
