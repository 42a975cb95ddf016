"""What records cost beside files: training batches a second from a folder of photos and from its conversion.

    python benchmarks/record_reading.py PHOTOS [--rounds=6] [--size=224]

Converts PHOTOS into a temporary folder (timed), checks that the batches of an epoch are equal bit for bit, and reads
epochs from both, taking turns because machines are noisy. Everything is in the page cache by then: what storage makes
of many small files is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

import numpy as np
import tensorflow as tf
from machine import machine

from trainer.config import Config
from trainer.data.convert import convert
from trainer.data.images import ImageInput
from trainer.data.order import Share, training_steps
from trainer.data.pipeline import training_batches
from trainer.data.sources import open_source
from trainer.data.splits import split_examples

BATCH = 32


def epoch_of(data: str, size: int) -> Callable[[], tf.data.Dataset]:
    """Opens a source; gives what makes a dataset of one epoch of its training images."""
    config = Config(data=data, batch_size=BATCH)
    source = open_source(config, print)
    train = split_examples(source.keys, source.labels, source.class_names, config.splits).train
    share, last_step = Share(BATCH, 1, 0, 1), training_steps(len(train), BATCH, 1)
    return lambda: training_batches(source, train, config, ImageInput(size, "crop"), share, 0, last_step)


def images_per_second(dataset: tf.data.Dataset) -> float:
    """Goes through a dataset, timed from its first batch on."""
    batches = iter(dataset)
    next(batches)
    start = time.perf_counter()
    images = sum(BATCH for _ in batches)
    return images / (time.perf_counter() - start)


def assert_equal(one: tf.data.Dataset, other: tf.data.Dataset) -> int:
    """Compares two epochs bit for bit; gives the number of batches."""
    steps = 0
    for left, right in zip(one, other):
        for name in left:
            np.testing.assert_array_equal(left[name].numpy(), right[name].numpy())
        steps += 1
    return steps


def main() -> None:
    """Measures and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", help="folder of class folders")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", type=int, default=224, help="height and width that images are resized to")
    flags = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        convert(flags.photos, f"{folder}/records")
        print(f"converted in {time.perf_counter() - start:.1f} s, with a look at every image")
        files = epoch_of(f"folder:{flags.photos}", flags.size)
        records = epoch_of(f"tfrecord:{folder}/records", flags.size)
        print(f"{assert_equal(files(), records())} batches are equal")
        pairs = [(images_per_second(files()), images_per_second(records())) for _ in range(flags.rounds)]
    for name, speeds in (("files", [a for a, _ in pairs]), ("records", [b for _, b in pairs])):
        low, middle, high = statistics.quantiles(speeds, n=4)
        print(f"  {name:8} {middle:.0f} images a second (quartiles {low:.0f} and {high:.0f})")
    ratio = statistics.median(mine / other for other, mine in pairs)
    print(f"records beside files: {ratio:.2f} times (median over pairs of rounds)")


if __name__ == "__main__":
    main()
