"""How fast a folder is classified from its files, beside the bare exported model on batches that are ready.

    python benchmarks/predict_speed.py MODULE PHOTOS [--images=1024] [--rounds=9]

MODULE is a feature vector module; with a head of one class a folder of PHOTOS, not trained, it is exported as a run
would. Sides, taking turns in every round, each over the same images in batches of 32 and from a warm disk:

    bare            the export's signature from_pixels on decoded batches in memory, one call after the other
    bare, two       the same with two calls at once
    serving         the export's signature serving_default on files in memory, one call after the other
    ours            what trainer.predict does: list the folder, read, classify, make a line of JSON of each

The last columns are the speed by that of `bare`, medians and quartiles over rounds: once by the clock, and once in
seconds of all cores (CPU), which others on the machine disturb less. At the end: how much the probabilities of ours
differ from those of `serving`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

import numpy as np
import tensorflow as tf
from machine import machine

from trainer.cluster import connect
from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.export.saved_model import export_model
from trainer.preparation import build, prepare
from trainer.records.console import Console
from trainer.serving.classification import BATCH_SIZE, Classified, classified
from trainer.serving.classifier import ImageClassifier, load_classifier
from trainer.serving.image_files import image_files
from trainer.serving.predictions import json_line, most_probable
from trainer.storage import RunDirectory

BARE, SERVING, OURS = "bare", "serving", "ours"
TOP = 5

Side = Callable[[], np.ndarray]
"""Classifies all images once; float32 [images, classes]."""

HEADINGS = """\
| side | images/s | quartiles | CPU ms an image | speed by bare, clock | by CPU |
|---|---|---|---|---|---|"""


def exported(module: str, photos: str, run: RunDirectory) -> tuple[str, ImageInput]:
    """An export of a fresh classifier, and how it takes pictures."""
    config = Config(data=f"folder:{photos}", backbone=module)
    prepared = prepare(config, connect(config), Console(quiet=True))
    model = build(prepared).model
    probe = [Path(next(image_files([photos])).path).read_bytes()]
    return export_model(model, prepared.source.class_names, probe, run), model.model_input


def classify_folder(classifier: ImageClassifier, photos: str, images: int) -> np.ndarray:
    """Ours: all that stands between the folder and the lines, which nobody prints here."""
    found = []
    for batch in classified(islice(image_files([photos]), images), classifier.classify):
        for result in batch:
            assert isinstance(result, Classified), result
            json_line(result.path, most_probable(result.probabilities, classifier.labels, TOP))
            found.append(result.probabilities)
    return np.stack(found)


def sides(export: str, image_input: ImageInput, photos: str, images: int) -> dict[str, Side]:
    """What to time."""
    classifier = load_classifier(export, labels=None, labels_name="", image_size=0, mirror="", repair=False)
    signatures = classifier.model.signatures
    paths = [file.path for file in islice(image_files([photos]), images)]
    encoded = [Path(path).read_bytes() for path in paths]
    files = [tf.constant(encoded[first : first + BATCH_SIZE]) for first in range(0, len(encoded), BATCH_SIZE)]
    pixels = [image_input.serve(batch) for batch in files]

    def from_pixels(batch: tf.Tensor) -> np.ndarray:
        return np.asarray(signatures["from_pixels"](pixels=batch)["probabilities"])

    def serving(batch: tf.Tensor) -> np.ndarray:
        return np.asarray(signatures["serving_default"](image_bytes=batch)["probabilities"])

    def two_at_once() -> np.ndarray:
        with ThreadPoolExecutor(2) as threads:
            return np.concatenate(list(threads.map(from_pixels, pixels)))

    return {
        BARE: lambda: np.concatenate([from_pixels(batch) for batch in pixels]),
        "bare, two": two_at_once,
        SERVING: lambda: np.concatenate([serving(batch) for batch in files]),
        OURS: lambda: classify_folder(classifier, photos, images),
    }


def measure(timed: dict[str, Side], rounds: int) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Any]]:
    """Seconds by the clock and of all cores of each side in each round, and what it said; a first round is not counted.

    Of two rounds, the second takes the sides the other way round.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    answers = {}
    for number in range(rounds + 1):
        for name in list(timed)[:: 1 if number % 2 else -1]:
            clock, cpu = time.perf_counter(), time.process_time()
            answers[name] = timed[name]()
            if number:
                times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    return times, answers


def rows(images: int, times: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Rows of the table."""
    found = []
    for name, seconds in times.items():
        slow, rate, fast = statistics.quantiles([images / clock for clock, _ in seconds], n=4)
        cost = statistics.median(1e3 * cpu / images for _, cpu in seconds)
        ratios = []
        for kind in (0, 1):
            low, middle, high = statistics.quantiles(
                [bare[kind] / theirs[kind] for theirs, bare in zip(seconds, times[BARE])], n=4
            )
            ratios.append(f"{middle:.2f} ({low:.2f}, {high:.2f})")
        found.append(f"| {name} | {rate:.0f} | {slow:.0f}, {fast:.0f} | {cost:.2f} | {ratios[0]} | {ratios[1]} |")
    return found


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("photos")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export, image_input = exported(flags.module, flags.photos, RunDirectory(folder))
        timed = sides(export, image_input, flags.photos, flags.images)
        times, answers = measure(timed, flags.rounds)
    print("\n".join([machine(), "", HEADINGS, *rows(len(answers[OURS]), times)]))
    print(f"\nlargest difference of a probability: {np.abs(answers[OURS] - answers[SERVING]).max():g}")


if __name__ == "__main__":
    main()
