"""All images of a small set, decoded once and kept in memory at the model's size (`--cache_decoded`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.data.bad_images import naming_bad_images
from trainer.data.images import ImageInput
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches
from trainer.data.source import ArraySource, Source
from trainer.errors import UserError
from trainer.every_few_seconds import EveryFewSeconds
from trainer.host_memory import free_memory

_BATCH = 64

_COPIES = 2
"""A split's pixels lie in the source and, while it is read, in the input pipeline."""

_LARGEST_PART = 0.5
"""Of the memory that is free, how much the images may take."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedSource(ArraySource):
    """The images of another source as the model takes them; everything else is the other's.

    Attributes:
      original: where they come from.
    """

    original: Source

    def encoded(self, index: int) -> bytes:
        """As `Source` has it: the original's."""
        return self.original.encoded(index)

    def fingerprint(self) -> str:
        """The original's: a run is the same with and without the cache."""
        return self.original.fingerprint()


def decode_all(
    source: Source, image_input: ImageInput, report: Callable[[str], None], free_bytes: int | None = None
) -> Source:
    """Decodes and resizes all images, in parallel.

    The batches of the result are those of `source`, bit for bit: a picture of the model's size passes `image_input`
    unchanged. So it must not be used with `--augment=crop`, which cuts its parts out of the native picture.

    Args:
      source: where the images are; one whose images are in memory anyway is given back.
      image_input: how a picture becomes the model's input.
      report: called with sentences on the progress of a long look through the images.
      free_bytes: memory that is free; None asks the system.

    Raises:
      UserError: they would not fit into half of the free memory, or some cannot be decoded.
    """
    if isinstance(source, ArraySource):
        return source
    size = image_input.size
    _check_memory(len(source), size, free_memory() if free_bytes is None else free_bytes)
    pixels = np.empty((len(source), size, size, 3), np.uint8)
    done, reports = 0, EveryFewSeconds()
    with naming_bad_images(source, report):
        batches = evaluation_batches(source, np.arange(len(source)), image_input, Share(_BATCH, 1, 0, 1))
        for batch in batches.as_numpy_iterator():
            real = batch["index"] >= 0
            pixels[batch["index"][real]] = batch["image"][real]
            done += int(np.sum(real))
            if reports.due():
                report(f"Decoded {done} of {len(source)} images.")
    return DecodedSource(
        name=source.name,
        class_names=source.class_names,
        labels=source.labels,
        keys=source.keys,
        native_size=size,
        skipped=source.skipped,
        pixels=pixels,
        original=source,
    )


def _check_memory(images: int, size: int, free_bytes: int) -> None:
    needed = _COPIES * images * size * size * 3
    if needed > _LARGEST_PART * free_bytes:
        raise UserError(
            f"--cache_decoded: {images} images of {size} x {size} pixels take {needed / 2**20:.0f} MB of memory, and "
            f"half of what is free is {_LARGEST_PART * free_bytes / 2**20:.0f} MB; leave the flag out."
        )
