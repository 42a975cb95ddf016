"""What the TFLite files of a run lose: accuracy and size of the float model, of float16 and of int8.

    python benchmarks/tflite_accuracy.py PHOTOS MODULE

PHOTOS is a folder with one folder of photos a class, MODULE a folder with a Hub module. A head is trained on the frozen
module, once a seed, and exported with `--export=tflite`. The first column is the exported SavedModel's own signature,
the others are the files in `tf.lite.Interpreter`, one photo after the other; all are asked here anew about every photo
that the run did not train on (its validation and test splits).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from flower_options import flower_options
from machine import machine
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.images import ImageInput
from trainer.data.sources import open_source
from trainer.data.splits import split_examples
from trainer.features.tflite import quietly

KINDS = ("float16", "int8")
BATCH = 64


def run_and_ask(flags: list[str], run_dir: Path) -> dict[str, tuple[float, float, float]]:
    """Accuracy, megabytes and milliseconds a photo of each form of one run."""
    command = [sys.executable, "-m", "trainer.task", "--quiet", "--export=tflite", f"--run_dir={run_dir}", *flags]
    subprocess.run(command, check=True)
    config = Config.from_json((run_dir / "config.json").read_text(encoding="utf-8"))
    exports = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["exports"]
    source = open_source(config)
    splits = split_examples(source.keys, source.labels, source.class_names, config.splits)
    asked = np.concatenate([splits.validation, splits.test])
    encoded = [source.encoded(int(index)) for index in asked]
    answers = {"saved_model": _of_saved_model(exports["saved_model"]["path"], encoded)}
    for kind in KINDS:
        answers[f"tflite_{kind}"] = _of_file(exports[f"tflite_{kind}"]["path"], encoded, config.resize)
    return {
        form: (float(np.mean(found == source.labels[asked])), exports[form]["bytes"] / 1e6, milliseconds)
        for form, (found, milliseconds) in answers.items()
    }


def _of_saved_model(path: str, encoded: Sequence[bytes]) -> tuple[NDArray[Any], float]:
    """Classes, and milliseconds a photo, decoding included."""
    serve = tf.saved_model.load(path).signatures["serving_default"]
    batches = [tf.constant(encoded[first : first + BATCH]) for first in range(0, len(encoded), BATCH)]
    serve(image_bytes=batches[0])
    start = time.perf_counter()
    found = [serve(image_bytes=batch)["class_id"].numpy() for batch in batches]
    return np.concatenate(found), 1000 * (time.perf_counter() - start) / len(encoded)


def _of_file(path: str, encoded: Sequence[bytes], resize: str) -> tuple[NDArray[Any], float]:
    """Classes, and milliseconds a photo on one thread, without decoding."""
    with quietly():
        interpreter = tf.lite.Interpreter(path, num_threads=1)
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    image_input = ImageInput(int(taken["shape"][1]), resize)
    found, seconds = [], 0.0
    for image in encoded:
        picture = image_input.from_encoded(tf.constant(image)).numpy()
        start = time.perf_counter()
        interpreter.set_tensor(taken["index"], picture[np.newaxis])
        interpreter.invoke()
        found.append(int(np.argmax(interpreter.get_tensor(given["index"]))))
        seconds += time.perf_counter() - start
    return np.array(found), 1000 * seconds / len(encoded)


def main() -> None:
    """Prints the table."""
    options = flower_options(__doc__ or "")
    forms = ("saved_model", *(f"tflite_{kind}" for kind in KINDS))
    print(
        f"{machine()}\n\n| seed | " + " | ".join(forms) + " | int8 loses, points |\n|---|---|---|---|---|", flush=True
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--data=folder:{options.photos}", f"--backbone={options.module}", f"--feature_cache={folder}/cache"]
        flags += [f"--epochs={options.epochs}", "--dropout=0.5"]
        for seed in options.seeds.split(","):
            of_seed = run_and_ask([*flags, f"--seed={seed}"], Path(folder, f"run-{seed}"))
            found.append(of_seed)
            print(_row(seed, [of_seed[form][0] for form in forms]), flush=True)
    print(_row("mean", [statistics.mean(each[form][0] for each in found) for form in forms]))
    print("| MB | " + " | ".join(f"{found[0][form][1]:.2f}" for form in forms) + " | |")
    times = [statistics.median(each[form][2] for each in found) for form in forms]
    print("| ms a photo | " + " | ".join(f"{milliseconds:.1f}" for milliseconds in times) + " | |")


def _row(title: str, accuracies: Sequence[float]) -> str:
    lost = 100 * (accuracies[0] - accuracies[-1])
    return f"| {title} | " + " | ".join(f"{accuracy:.4f}" for accuracy in accuracies) + f" | {lost:+.2f} |"


if __name__ == "__main__":
    main()
