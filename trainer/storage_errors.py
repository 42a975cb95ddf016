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

_UNTOUCHED = "what was saved before is untouched"

_CURL_ABORTED = "42"
"""libcurl's code where TensorFlow ended a request that made no progress (GCS_REQUEST_IDLE_TIMEOUT_SECS)."""

_DAMAGE = r"Checksum does not match|bad magic number|corrupted"
"""What TensorFlow says of a checkpoint with a byte changed; it does not always name the file."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def reading_or_writing(path: str, flag: str = "--run_dir") -> Iterator[None]:
    """Turns what the operating system or TensorFlow says about a place into a sentence for its owner.

    Recognised are a full disk or quota, missing permissions, a read-only disk, a file where a folder must be and the
    other way round, a missing file, a name that is too long, a missing bucket, refused credentials, missing
    permissions for a bucket and one that does not answer; all else, such as a failing device or an error that names
    some other place, passes as it is. Of an error while cleaning up after another, the other is the news.

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
        texts = [str(cause) for cause in _with_contexts(error) if _is_tensorflow_error(cause)]
        sentences = filter(None, (_tensorflow_sentence(text, path, flag) for text in reversed(texts)))
        first = next(sentences, None)
        if first is None:
            raise
        raise UserError(first) from error


def is_remote(path: str) -> bool:
    """Whether a path is an object store's (`gs://...`), not of this machine's file system."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def absolute(path: str) -> str:
    """A local path from the root of the file system, "~" expanded and ".." resolved; an object store's as it is."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


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
        return f"The {full.format(path)}: free some space or {another}; {_UNTOUCHED}."
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
    if re.search(_DAMAGE, message):
        reason = message.partition("\n")[0]
        return (
            f"What came from {path} is damaged ({reason}): start again and, if that does not help, delete it to go on "
            "from what was saved before."
        )
    bucket = "/".join(path.split("/")[:3])
    if bucket not in message:
        return None
    if NO_BUCKET_MESSAGE in message:
        return f"There is no bucket {bucket}: create it or give another {flag}."
    if "HTTP response code 401" in message:
        return (
            f"The credentials for {bucket} were refused (HTTP 401), as they are missing or have expired: log in anew, "
            f"as with gcloud auth application-default login, and start again; {_UNTOUCHED}."
        )
    if "HTTP response code 403" in message:
        return (
            f"No permission for {path}: {_missing_permission(message)} is missing for {bucket}. Log in with an account "
            f"that has it (the role Storage Object User has all that a run needs), or give another {flag}."
        )
    if re.search(r"retry attempts failed|HTTP response code|libcurl code", message) and "code 404" not in message:
        return f"{bucket} does not answer ({_cause(message)}): {_UNTOUCHED}; start again when it does."
    match = re.search(r"(gs://\S+) doesn't exist or not a directory", message)
    if match:
        return f"{match[1]} cannot be deleted: it is gone, or {bucket} does not answer; {_UNTOUCHED}; start again."
    match = re.search(r"(gs://.+?)( was not found|$)", message)
    if match and ("not found" in message or "Could not find directory" in message):
        return f"There is no {match[1]}: check the name or give another {flag}."
    return None


def _missing_permission(message: str) -> str:
    """The permission that the server names or, where it names none, the one that the request needs."""
    named = re.search(r"storage\.[a-z]+\.[A-Za-z]+", message)
    if named:
        return named[0]
    if "upload" in message:
        return "storage.objects.create"
    if "when deleting" in message:
        return "storage.objects.delete"
    return "storage.objects.get or storage.objects.list"


def _cause(message: str) -> str:
    """Why a request failed, in few words, from the text of TensorFlow 2.21's gs:// file system."""
    status = re.search(r"HTTP response code (\d+)", message)
    if status:
        return f"HTTP {status[1]}"
    meaning = re.search(r"libcurl code (\d+) meaning '([^']*)'", message)
    if meaning is None:
        return message.partition("\n")[0]
    return "nothing came for too long" if meaning[1] == _CURL_ABORTED else meaning[2]


def _with_contexts(error: BaseException) -> Iterator[BaseException]:
    """An error and those during whose handling it was raised."""
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__context__


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


def _is_tensorflow_error(error: BaseException) -> bool:
    if "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    return isinstance(error, tf.errors.OpError)
