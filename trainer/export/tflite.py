"""TFLite files of the trained model: what phones and small boards run.

    export/tflite/
      float16.tflite    weights of 16 bits, computes in float32: half the size, the same answers but for rounding
      int8.tflite       weights and arithmetic of 8 bits: a quarter of the size, what small hardware is fast with
      labels.txt        one class name a line, in the order of the probabilities

Both take one picture, uint8 `[1, S, S, 3]`, RGB from 0 to 255, and give float32 `[1, classes]`, its probabilities, so
that an app can run either. (The last step of int8.tflite makes floats of its 8 bits: they are multiples of 1/256.) The
picture must be cut and resized to S pixels as `--resize` says.

Rounding makes each of them another model than the one in memory, so the parity gate's tolerance is not for them. A file
is published if it is as accurate as `--min_accuracy` says, over all examples of the split that the model itself was
judged on; and if its probabilities are like the model's on the images of the parity gate. The second says little of its
quality: it finds what is plainly broken, also where there are no images to test on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.bad_images import naming_bad_images
from trainer.errors import UserError
from trainer.export.fresh_process import Probe
from trainer.export.saved_model import FOLDER, label_lines
from trainer.export.tflite_classifier import TfliteClassifier
from trainer.export.tflite_conversion import KINDS, Kind, converted, image_input_of, in_float32, representative_images
from trainer.features.extractors import Pixels
from trainer.features.tflite import NotConvertibleError
from trainer.model.classifier import Classifier
from trainer.preparation import Built, Prepared, publishable
from trainer.records.console import Console
from trainer.records.status import ExportResult
from trainer.storage import RunDirectory

TFLITE_FOLDER = f"{FOLDER}/tflite"
"""Where the files are, in a run directory."""

LEAST_LIKENESS: dict[Kind, float] = {"float16": 0.99, "int8": 0.75}
"""How like the model's the probabilities must be: mean cosine over the images of the parity gate. MobileNetV2 on flower
photos has 0.9998 and 0.963 (2026-11). So int8 may take two of eight images for something else altogether."""


@dataclass(frozen=True)
class Yardstick:
    """What all forms of the model are measured by.

    Attributes:
      split: "test"; "validation" where that is empty; "" where both are.
      indices: int64 `[n]`, its examples.
      accuracy: of the trained model on them, in [0, 1]; None where there are none.
    """

    split: str
    indices: NDArray[np.int64]
    accuracy: float | None


class TfliteFiles:
    """Makes, judges and writes the files: what `export_model` calls for what is to stand beside the SavedModel.

    Attributes:
      results: by "tflite_float16" and "tflite_int8", once it was called.
      problem: a sentence that says why a file could not be made; "" if both could.
    """

    def __init__(
        self, prepared: Prepared, model: Classifier, yardstick: Yardstick, run: RunDirectory, console: Console
    ) -> None:
        """Makes nothing yet.

        Args:
          prepared: the run.
          model: on CPU, outside of any strategy, with the weights to publish.
          yardstick: what the files are measured by.
          run: where they will be published.
          console: is told how far it is.
        """
        self._prepared = prepared
        self._model = model
        self._yardstick = yardstick
        self._run = run
        self._console = console
        self.results: dict[str, ExportResult] = {}
        self.problem = ""

    def __call__(self, staging: str, probe: Probe) -> None:
        """Writes those that pass into the folder `tflite` of `staging`; makes no such folder if none does.

        Raises:
          UserError: an image cannot be read.
        """
        folder = f"{staging}/{TFLITE_FOLDER.removeprefix(f'{FOLDER}/')}"
        model = in_float32(self._prepared, self._model)
        with naming_bad_images(self._prepared.source, self._console.note):
            representative = representative_images(self._prepared, model)
            files = {kind: self._make(kind, model, representative, probe) for kind in KINDS}
        published = {file_name(kind): content for kind, content in files.items() if content}
        if not published:
            return
        tf.io.gfile.mkdir(folder)
        labels = label_lines(self._prepared.source.class_names).encode()
        for name, content in {**published, "labels.txt": labels}.items():
            with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
                file.write(content)

    def _make(self, kind: Kind, model: Classifier, representative: Pixels, probe: Probe) -> bytes:
        """One file's content, judged and noted in `results`; empty if it is not to be published."""
        try:
            content = converted(model, kind, representative)
            classifier = TfliteClassifier(content)
        except NotConvertibleError as reason:
            self.problem = not_convertible(self._prepared, kind, reason)
            self.results[form_of(kind)] = ExportResult(None, None, None, 0, "", self.problem)
            return b""
        accuracy = self._accuracy(kind, classifier)
        refused = self._objection(kind, accuracy, classifier.likeness(probe))
        path = None if refused else self._run.join(TFLITE_FOLDER, file_name(kind))
        examples, split = len(self._yardstick.indices), self._yardstick.split
        self.results[form_of(kind)] = ExportResult(path, len(content), accuracy, examples, split, refused)
        return b"" if refused else content

    def _accuracy(self, kind: Kind, classifier: TfliteClassifier) -> float | None:
        if not len(self._yardstick.indices):
            return None

        def progress(done: int, total: int) -> None:
            self._console.work(kind, done, total)

        found = classifier.accuracy(
            self._prepared.source, self._yardstick.indices, image_input_of(self._model), progress
        )
        self._console.close()
        return found

    def _objection(self, kind: Kind, accuracy: float | None, likeness: float) -> str:
        """Why a file is not to be published, a sentence; "" if it is."""
        least = self._prepared.config.min_accuracy
        if accuracy is not None and accuracy < least:
            return (
                f"{file_name(kind)} was not published: its accuracy on the {len(self._yardstick.indices)} "
                f"{self._yardstick.split} images is {accuracy:.6g}, below --min_accuracy={least:g}; the model's is "
                f"{self._yardstick.accuracy or 0:.6g}."
            )
        if not likeness >= LEAST_LIKENESS[kind]:
            return (
                f"{file_name(kind)} was not published: its probabilities are unlike the model's (cosine similarity "
                f"{likeness:.3g} on some training images; {LEAST_LIKENESS[kind]:g} is the least)."
            )
        return ""


def check_convertible(prepared: Prepared, built: Built) -> None:
    """Converts the untrained model, which takes seconds, so that a run need not end before it hears that it cannot.

    Raises:
      UserError: TFLite's converter does not take it; the sentence names the operation.
    """
    model = in_float32(prepared, publishable(prepared, built))
    size = image_input_of(model).size
    noise = np.random.default_rng(0).integers(0, 256, [1, size, size, 3], np.uint8)
    for kind in KINDS:
        try:
            TfliteClassifier(converted(model, kind, noise))
        except NotConvertibleError as reason:
            raise UserError(not_convertible(prepared, kind, reason)) from None


def not_convertible(prepared: Prepared, kind: Kind, reason: NotConvertibleError) -> str:
    """What the user is told of a model that TFLite does not take."""
    return (
        f"--export=tflite: TFLite cannot make {file_name(kind)} of --backbone={prepared.config.backbone} ({reason}): "
        "leave tflite out (--export=saved_model), or take another module."
    )


def file_name(kind: Kind) -> str:
    """Such as int8.tflite."""
    return f"{kind}.tflite"


def form_of(kind: Kind) -> str:
    """What status.json calls the file, such as tflite_int8."""
    return f"tflite_{kind}"
