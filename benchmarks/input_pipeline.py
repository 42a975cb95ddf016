"""How many images a second the input pipeline delivers, beside the peers and the limit, which is decoding alone.

    python benchmarks/input_pipeline.py PHOTOS [--sizes=224,96] [--rounds=7] [--images=4096]

PHOTOS is a folder with one folder of JPEGs a class. They are read as they are, and once more enlarged to 1280 x 960,
as a camera would give them. Sides, taking turns in every round, each over as many images and from a warm disk:

    decode_jpeg alone       read, tf.io.decode_jpeg at full size, in a parallel map; nothing is kept
    decode and resize       the same, then tf.image.resize and a cast to uint8: the bare parallel map
    the same picture        the same, with the square in the middle and rounding, as ours at full size
    our function            the function that ours maps over the images, alone
    tutorial's map          read, tf.io.decode_image, tf.image.resize, / 255
    directory               keras.utils.image_dataset_from_directory, batches of 32
    ours                    order by seed, from step 1000 on, labels, places in the batch, batches of 32

Every time stands in seconds of the clock and in seconds of all cores (CPU), which others on the machine disturb less.
The last columns are medians over rounds: how many times as fast ours is.
"""

from __future__ import annotations

import argparse
import os
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

import keras
import numpy as np
import tensorflow as tf
from machine import machine

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import training_batches
from trainer.data.sources import open_source

BATCH = 32
FIRST_STEP = 1000
ENLARGED_SIZE = (960, 1280)
ENLARGED_PHOTOS = 100
"""How many photos of a class are enlarged."""

OURS = "ours"

Sides = dict[str, tf.data.Dataset]

HEADINGS = """\
| pictures | size | side | images/s | quartiles | CPU ms an image | quartiles | ours, by the clock | ours, by CPU |
|---|---|---|---|---|---|---|---|---|"""


def sides(source: FileSource, folder: str, size: int, images: int) -> Sides:
    """The datasets to time, of `images` images each (a multiple of `BATCH`, no more than the source has)."""
    everything = np.arange(len(source))
    chosen = np.random.default_rng(0).permutation(everything)[:images]
    paths = [source.paths[int(index)] for index in chosen]
    image_input = ImageInput(size, "crop")

    def bare(function: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(paths)
        return files.map(lambda path: function(tf.io.read_file(path)), num_parallel_calls=tf.data.AUTOTUNE)

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(encoded, channels=3)

    def tutorial(encoded: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.image.resize(pixels, [size, size]) / 255.0

    directory = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=BATCH, shuffle=True, seed=0, verbose=False
    )
    config = Config(data=f"folder:{folder}", batch_size=BATCH)
    steps = (FIRST_STEP, FIRST_STEP + images // BATCH)
    return {
        "decode_jpeg alone": bare(decode),
        "decode and resize": bare(lambda encoded: tf.cast(tf.image.resize(decode(encoded), [size, size]), tf.uint8)),
        "the same picture": bare(lambda encoded: image_input(decode(encoded))),
        "our function": bare(image_input.from_encoded),
        "tutorial's map": bare(tutorial),
        "directory": directory.take(images // BATCH),
        OURS: training_batches(source, everything, config, image_input, Share(BATCH, 1, 0, 1), *steps),
    }


def time_once(dataset: tf.data.Dataset) -> tuple[float, float]:
    """Seconds by the clock and of all cores that all elements of a dataset take, with no Python between them."""
    clock, cpu = time.perf_counter(), time.process_time()
    dataset.reduce(np.int64(0), lambda count, _: count + 1).numpy()
    return time.perf_counter() - clock, time.process_time() - cpu


def measure(chosen: Sides, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """The times of each side in each round; a first round, to warm up, is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for number in range(rounds + 1):
        for name, dataset in chosen.items():
            seconds = time_once(dataset)
            if number:
                times[name].append(seconds)
    return times


def rows(pictures: str, size: int, images: int, times: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Rows of the table."""
    found = []
    for name, seconds in times.items():
        slow, rate, fast = statistics.quantiles([images / clock for clock, _ in seconds], n=4)
        low, cost, high = statistics.quantiles([1e3 * cpu / images for _, cpu in seconds], n=4)
        ratios = [
            statistics.median(theirs[kind] / ours[kind] for theirs, ours in zip(seconds, times[OURS]))
            for kind in (0, 1)
        ]
        found.append(
            f"| {pictures} | {size} | {name} | {rate:.0f} | {slow:.0f}, {fast:.0f} | {cost:.2f} | {low:.2f}, "
            f"{high:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    return found


def enlarge(source: FileSource, folder: str) -> None:
    """Writes some photos of each class as JPEGs of `ENLARGED_SIZE`."""
    for label, name in enumerate(source.class_names):
        os.makedirs(f"{folder}/{name}")
        for index in np.flatnonzero(source.labels == label)[:ENLARGED_PHOTOS]:
            pixels = tf.io.decode_jpeg(tf.io.read_file(source.paths[int(index)]), channels=3)
            larger = tf.saturate_cast(tf.round(tf.image.resize(pixels, ENLARGED_SIZE, "bicubic")), tf.uint8)
            tf.io.write_file(f"{folder}/{name}/{index}.jpg", tf.io.encode_jpeg(larger, quality=90))


def opened(folder: str) -> FileSource:
    """The images of a class folder."""
    source = open_source(Config(data=f"folder:{folder}"))
    assert isinstance(source, FileSource)
    return source


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--sizes", default="224,96")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4096, help="a round, of the small ones; a quarter of the large")
    flags = parser.parse_args()
    print(f"{machine()}\n\n{HEADINGS}", flush=True)
    with tempfile.TemporaryDirectory() as large:
        enlarge(opened(flags.photos), large)
        for pictures, folder, images in (
            ("as they are", flags.photos, flags.images),
            ("1280 x 960", large, flags.images // 4),
        ):
            source = opened(folder)
            images = min(images, len(source)) // BATCH * BATCH
            for size in map(int, flags.sizes.split(",")):
                times = measure(sides(source, folder, size, images), flags.rounds)
                print("\n".join(rows(pictures, size, images, times)), flush=True)


if __name__ == "__main__":
    main()
