"""What goes wrong with a file or a bucket, as a sentence for the one who can mend it.

The operating system tells by number, TensorFlow by the operating system's words or a server's answer, inside an error
that may as well be about something else: that is why the text is looked at, and why the place must be in it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.errors import UserError

NO_BUCKET_MESSAGE = "bucket does not exist"
"""Part of what Cloud Storage answers about anything in a bucket that is not there."""

_CODES_IN_TENSORFLOW_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def reading_or_writing(path: str, flag: str = "--run_dir") -> Iterator[None]:
    """Turns what the operating system or TensorFlow says about a place into a sentence for its owner.

    Recognised are a full disk or quota, missing permissions, a read-only disk, a file where a folder must be and the
    other way round, a missing file, a name that is too long, a missing bucket and refused credentials; all else, such
    as a failing device or an error that names some other place, passes as it is.

    Args:
      path: the file or folder that is being read or written, for the sentence.
      flag: the flag that chose it, so that the sentence can say what to change.

    Raises:
      UserError: in place of the error that it names as its cause.
    """
    try:
        yield
    except OSError as error:
        sentence = _local_sentence(error.errno or 0, _named_place(error) or path, path, flag)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    except Exception as error:
        if not _is_tensorflow_error(error):
            raise
        sentence = _tensorflow_sentence(str(error), path, flag)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def is_remote(path: str) -> bool:
    """Whether a path is an object store's (`gs://...`), not of this machine's file system."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def is_pattern(path: str) -> bool:
    """Whether a path has characters that TensorFlow takes for a pattern of names when it looks for a checkpoint."""
    return re.search(r"[*?\[\]\\]", path) is not None


def _local_sentence(code: int, named: str, path: str, flag: str) -> str | None:
    """What to tell the user about an error number of the operating system; None if it is not theirs to mend.

    Args:
      code: of `errno`.
      named: the place that the error is about.
      path: the place that was being read or written.
      flag: chose `path`.
    """
    if is_remote(named):
        return None
    within = _is_within(named, path)
    if not within and not _is_within(path, named):
        return f"The disk of {named} is full: free some space there." if code in _NO_ROOM else None
    another = f"give another {flag}"
    if code in _NO_ROOM:
        full = "disk of {} is full" if code == errno.ENOSPC else "disk quota for {} is used up"
        return f"The {full.format(path)}: free some space or {another}; what was saved before is untouched."
    place = named if within else path
    sentences = {
        errno.EACCES: f"No permission for {_existing(place)}: change its permissions or {another}.",
        errno.EPERM: f"No permission for {_existing(place)}: change its permissions or {another}.",
        errno.EROFS: f"{path} is on a read-only file system: {another}.",
        errno.ENOTDIR: f"{_existing(place)} is a file where a folder is needed: move it away or {another}.",
        errno.EEXIST: f"{_existing(place)} is a file where a folder is needed: move it away or {another}.",
        errno.EISDIR: f"{place} is a folder where a file is needed: move it away or {another}.",
        errno.ENOENT: f"There is no {place}: check the name or {another}.",
        errno.ELOOP: f"{path} is a link that leads back to itself: {another}.",
        errno.ENAMETOOLONG: f"The name {place} is too long for this file system: {another}.",
    }
    return sentences.get(code)


def _tensorflow_sentence(message: str, path: str, flag: str) -> str | None:
    """The same for the text of a TensorFlow error, which has the operating system's words or the server's answer."""
    message = re.sub(r"^\{\{.*?\}\} ", "", message.strip())
    if is_remote(path):
        return _bucket_sentence(message, path, flag)
    for code in _CODES_IN_TENSORFLOW_ERRORS:
        match = re.match(rf"(.+?); {re.escape(os.strerror(code))}", message)
        if match:
            return _local_sentence(code, match[1], path, flag)
    match = re.match(r"(.+) is not a directory", message)
    if match:
        return _local_sentence(errno.ENOTDIR, match[1], path, flag)
    match = re.match(r"Could not find directory (.+)", message)
    if match:
        return _local_sentence(errno.ENOENT, match[1], path, flag)
    return None


def _bucket_sentence(message: str, path: str, flag: str) -> str | None:
    if "internal temporary file" in message:
        return (
            f"TensorFlow keeps what goes to {path} in a temporary file, and that cannot be written: free some space in "
            f"{tempfile.gettempdir()} or let TMPDIR name another folder."
        )
    bucket = "/".join(path.split("/")[:3])
    if bucket not in message:
        return None
    if NO_BUCKET_MESSAGE in message:
        return f"There is no bucket {bucket}: create it or give another {flag}."
    if re.search(r"HTTP response code 40[13]", message):
        return (
            f"No permission for {path}: log in with an account that may read and write objects in {bucket}, or give "
            f"another {flag}."
        )
    match = re.search(r"(gs://.+?)( was not found|$)", message)
    if match and ("not found" in message or "Could not find directory" in message):
        return f"There is no {match[1]}: check the name or give another {flag}."
    return None


def _named_place(error: OSError) -> str | None:
    """The path that an error names; of a rename, the target."""
    named = error.filename2 or error.filename
    return os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) else None


def _is_within(inner: str, outer: str) -> bool:
    inner, outer = os.path.abspath(inner), os.path.abspath(outer)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _existing(path: str) -> str:
    """The part of a path that is there: itself, or the nearest folder or file above."""
    path = os.path.abspath(path)
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _is_tensorflow_error(error: Exception) -> bool:
    if "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    return isinstance(error, tf.errors.OpError)
