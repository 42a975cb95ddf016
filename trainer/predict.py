"""Says what is on pictures: the most probable classes of each, by a model that was trained before.

    python -m trainer.predict MODEL IMAGE_OR_FOLDER…
    python -m trainer.predict RUN_DIR photos --grid=photos.png        the directory of a run: its export
    python -m trainer.predict HANDLE cat.jpg --labels=ImageNetLabels.txt --top=3
    python -m trainer.predict RUN_DIR photos --json > photos.jsonl    one JSON object a line

MODEL is an export, a run directory that has one, or a classification module of TensorFlow Hub: a folder, gs:// or
https://. Without --labels, the classes of a module are shown by their numbers. Folders of any size are gone through
with all that is in them, sorted by name, while the first pictures are classified already.

A file that cannot be read as an image gives a line on standard error, and the others go on; in the end a sentence says
how many of how many there were, and the exit code is 2. It is 0 where all could be read.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import numpy as np
from absl import flags

from trainer.errors import EXIT_DONE, EXIT_USER, UserError
from trainer.program import define_download_flags, start
from trainer.serving.image_files import ListedAhead, image_files
from trainer.serving.labels import read_labels
from trainer.serving.predictions import Prediction, csv_header, csv_line, json_line, most_probable, text_line
from trainer.serving.result_printer import ResultPrinter
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.storage import RunDirectory, is_remote
from trainer.wording import counted

if TYPE_CHECKING:
    from trainer.serving.classification import Classified
    from trainer.serving.classifier import ImageClassifier
    from trainer.serving.grid import Grid


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `define_flags`.

    Attributes:
      model: folder or handle.
      places: files and folders.
    """

    model: str
    places: tuple[str, ...]
    labels: str = ""
    top: int = 5
    json: bool = False
    csv: bool = False
    grid: str = ""
    image_size: int = 0
    hub_mirror: str = ""
    repair_hub_cache: bool = False


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "labels", "", "File with the name of a class on each line, local or gs://.", flag_values=flag_values
    )
    flags.DEFINE_integer("top", 5, "Show so many of the most probable classes.", 1, flag_values=flag_values)
    flags.DEFINE_bool("json", False, "Print one JSON object a line.", flag_values=flag_values)
    flags.DEFINE_bool("csv", False, "Print CSV with a header.", flag_values=flag_values)
    flags.DEFINE_string(
        "grid",
        "",
        "Also write the first pictures with their predictions to this PNG; a picture in a folder that is called like a "
        "class has its title in green where that is right, and in red with the folder's name where it is not.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "image_size", 0, "Height and width in pixels, for modules that leave it open.", 0, flag_values=flag_values
    )
    define_download_flags(flag_values)


def request_from_flags(flag_values: flags.FlagValues, arguments: Sequence[str]) -> Request:
    """What is asked for, as far as it can be checked without TensorFlow.

    Raises:
      UserError: something is missing, or contradicts something else.
    """
    if len(arguments) < 2:
        raise UserError("Give a model and at least one image or folder: python -m trainer.predict MODEL PHOTOS.")
    names = [name for name in Request.__dataclass_fields__ if name not in ("model", "places")]
    request = Request(arguments[0], tuple(arguments[1:]), **{name: flag_values[name].value for name in names})
    if request.json and request.csv:
        raise UserError("--json and --csv exclude each other: give one of them.")
    if request.grid and not request.grid.lower().endswith(".png"):
        raise UserError(f"--grid={request.grid} must end in .png.")
    if request.grid and importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"--grid={request.grid} needs matplotlib: run pip install matplotlib.")
    for place in request.places:
        if not is_remote(place) and not os.path.exists(os.path.expanduser(place)):
            raise UserError(f"There is no file or folder {place}.")
    return request


def predict(request: Request, out: TextIO, err: TextIO) -> int:
    """Classifies and prints; gives the exit code.

    Args:
      request: what to do.
      out: for results.
      err: for all else.

    Raises:
      UserError: the model cannot be used, or there is no image.
      BrokenPipeError: nobody reads `out` any more.
    """
    labels = read_labels(request.labels) if request.labels and not is_remote(request.labels) else None
    require_temporary_folder()
    # Of a damaged JPEG TensorFlow prints an error each time that it tries to decode it, without the file's name.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow_quietly()
    from trainer.serving.classifier import load_classifier

    if labels is None and request.labels:
        labels = read_labels(request.labels)
    classifier = load_classifier(
        request.model,
        labels=labels,
        labels_name=f"--labels={request.labels}",
        image_size=request.image_size,
        mirror=request.hub_mirror,
        repair=request.repair_hub_cache,
    )
    grid = _empty_grid(request, classifier)
    with ResultPrinter(out, err) as printer:
        done, unreadable = _classify_all(request, classifier, grid, printer)
        if not done:
            raise UserError(f"There is no JPEG, PNG, BMP or GIF image in {', '.join(request.places)}.")
        if grid and grid.shown:
            folder, name = os.path.split(request.grid)
            RunDirectory(folder or ".", "--grid").write_bytes(name, grid.png())
            printer.note(f"{request.grid} shows the first {grid.shown} of {counted(done - unreadable, 'picture')}.")
        if unreadable:
            printer.note(f"error: {unreadable} of {counted(done, 'image')} could not be read.")
    return EXIT_USER if unreadable else EXIT_DONE


def _classify_all(
    request: Request, classifier: ImageClassifier, grid: Grid | None, printer: ResultPrinter
) -> tuple[int, int]:
    """Prints a line for each image; gives how many there were, and how many of them could not be read."""
    from trainer.serving.classification import Unreadable, classified

    files = ListedAhead(image_files(request.places))
    done = unreadable = 0
    if request.csv:
        printer.results([csv_header(min(request.top, len(classifier.labels)))])
    for batch in classified(files, classifier.classify):
        lines = []
        for result in batch:
            if isinstance(result, Unreadable):
                unreadable += 1
                printer.warning(f"{result.path}: {result.reason}")
                continue
            predictions = _predictions(result, request, classifier)
            lines.append(_line(result.path, predictions, request, printer.width))
            if grid:
                grid.add(result.path, result.encoded, predictions[0])
        done += len(batch)
        printer.results(lines)
        printer.progress("images", done, files.total)
    return done, unreadable


def _predictions(result: Classified, request: Request, classifier: ImageClassifier) -> list[Prediction]:
    """The most probable classes of an image.

    Raises:
      UserError: the model gives nan or infinity.
    """
    if not np.isfinite(result.probabilities).all():
        raise UserError(f"{request.model} gives no finite probabilities for {result.path}: take another model.")
    return most_probable(result.probabilities, classifier.labels, request.top)


def _line(path: str, predictions: Sequence[Prediction], request: Request, width: int | None) -> str:
    if request.json:
        return json_line(path, predictions)
    return csv_line(path, predictions) if request.csv else text_line(path, predictions, width)


def _empty_grid(request: Request, classifier: ImageClassifier) -> Grid | None:
    if not request.grid:
        return None
    from trainer.serving.grid import Grid

    return Grid(classifier.labels)


def main(arguments: Sequence[str]) -> int:
    """Predicts as the command line says; gives the exit code."""
    return predict(request_from_flags(flags.FLAGS, arguments), sys.stdout, sys.stderr)


if __name__ == "__main__":
    start(main, define_flags)
