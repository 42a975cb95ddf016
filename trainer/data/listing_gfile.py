"""Lists folders of the file systems that only TensorFlow knows, by listings alone: names, no sizes.

A question about each single file would cost a request each.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainer.data.listing import IMAGE_EXTENSIONS, Entry, extension
from trainer.errors import UserError


def gfile_entries(folder: str) -> Iterator[Entry]:
    """What lies directly in a folder.

    Raises:
      UserError: it is not there or cannot be listed.
    """
    import tensorflow as tf

    try:
        names = tf.io.gfile.listdir(folder)
    except tf.errors.NotFoundError:
        raise UserError(f"There is no folder {folder}: give an existing one as --data=folder:PATH.") from None
    except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        raise UserError(f"Folder {folder} may not be read: {error.message}") from None
    except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
        raise UserError(f"{folder} cannot be listed as a folder: {error.message}") from None
    for listed in names:
        name = listed.rstrip("/")
        # Some file systems list folders with a slash. The others have to be asked, but not about what bears the
        # extension of an image: that would be a request a file.
        is_folder = listed.endswith("/") or (
            extension(name) not in IMAGE_EXTENSIONS and tf.io.gfile.isdir(f"{folder}/{name}")
        )
        yield Entry(name, is_folder)
