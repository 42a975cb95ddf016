"""Runs the TFLite files of `trainer.export.tflite` on the images that they are judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches
from trainer.data.source import Source
from trainer.export.fresh_process import Probe
from trainer.features.extractors import Features, Pixels, cosines, extract_all
from trainer.features.tflite import TfliteExtractor
from trainer.processors import processors


class TfliteClassifier:
    """A file of `trainer.export.tflite`, run by TFLite's interpreter on the processors of this machine."""

    def __init__(self, content: bytes) -> None:
        """Starts the interpreters.

        Args:
          content: of the file.

        Raises:
          NotConvertibleError: this machine's TFLite cannot run it.
        """
        self._interpreters = TfliteExtractor(content, processors())

    def probabilities(self, pictures: Iterable[Pixels], progress: Callable[[int], None] | None = None) -> Features:
        """Float32 `[n, classes]`.

        Args:
          pictures: uint8 `[1, S, S, 3]` each, at least one.
          progress: is told how many have been looked at.
        """
        found: list[Features] = []

        def take(probabilities: Features) -> None:
            found.append(probabilities)
            if progress:
                progress(len(found))

        extract_all(self._interpreters, pictures, take)
        return np.concatenate(found)

    def accuracy(
        self, source: Source, indices: NDArray[np.int64], image_input: ImageInput, progress: Callable[[int, int], None]
    ) -> float:
        """Share of right predictions, in [0, 1], every example counted once.

        Args:
          source: where the examples come from.
          indices: int64 `[n]`, n > 0, into the source.
          image_input: how a picture becomes the model's input.
          progress: is told how many examples of how many were judged.

        Raises:
          tf.errors.OpError: an image cannot be read or decoded.
          RuntimeError: an example was left out or came twice, which would be a bug of the input pipeline.
        """
        judged: list[int] = []

        def pictures() -> Iterator[Pixels]:
            for index, picture in single_images(source, indices, image_input):
                judged.append(index)
                yield picture

        answers = self.probabilities(pictures(), lambda done: progress(done, len(indices)))
        if not np.array_equal(np.sort(judged), np.sort(indices)):
            raise RuntimeError(f"{len(judged)} examples of {len(indices)} were judged, or some of them twice")
        return float(np.mean(np.argmax(answers, axis=1) == source.labels[judged]))

    def likeness(self, probe: Probe) -> float:
        """Mean cosine between its probabilities and those of the model in memory; NaN where it gives no numbers."""
        assert probe.pixels is not None  # A probe of images has them.
        levels = np.rint(probe.pixels * 255).astype(np.uint8)
        answers = self.probabilities(picture[np.newaxis] for picture in levels)
        return float(np.mean(cosines(answers, probe.probabilities)))


def single_images(source: Source, indices: NDArray[np.int64], image_input: ImageInput) -> Iterator[tuple[int, Pixels]]:
    """One example after the other: its index in the source, and uint8 `[1, S, S, 3]`.

    Raises:
      tf.errors.OpError: an image cannot be read or decoded.
    """
    share = Share(1, replicas=1, first_replica=0, local_replicas=1)
    for batch in evaluation_batches(source, indices, image_input, share).as_numpy_iterator():
        yield int(batch["index"][0]), batch["image"]
