"""Names the file behind an error of the input pipeline, which itself says only that something could not be decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from trainer.data.file_source import FileSource
from trainer.data.folders import bad_images_error
from trainer.data.images import find_bad_images
from trainer.data.source import Source

_READING_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)
"""What a file that cannot be decoded, is gone, or may not be read makes the input pipeline raise."""


@contextmanager
def naming_bad_images(source: Source, report: Callable[[str], None]) -> Iterator[None]:
    """Looks through the files when reading them fails inside, and says which of them cannot be decoded.

    Args:
      source: whose images are read inside.
      report: called with sentences on the progress of a long look.

    Raises:
      UserError: some files are bad; names them.
      tf.errors.OpError: as it came, where no file is.
    """
    try:
        yield
    except _READING_ERRORS:
        if not isinstance(source, FileSource):
            raise
        bad = find_bad_images(source, report=report)
        if not bad:
            raise
        raise bad_images_error(source.root, bad) from None
