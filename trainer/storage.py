"""Run directories: local or `gs://` behind one face, and the sentences for what goes wrong with either.

A local file is replaced in one move, so that a reader finds the complete old text or the complete new one,
whenever the machine stops. On `gs://` the write of an object has that property by itself. TensorFlow's `gfile`
speaks to `gs://` and is imported only where it is needed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.errors import UserError


class RunDirectory:
    """A folder that a run owns, local or `gs://`.

    Names below are given part by part (`join("checkpoints", "best")`) or with "/" in them. Whatever a user can mend,
    such as a full disk or a bucket that is not there, is raised as `UserError`.
    """

    path: str
    """Absolute, "~" expanded, no "/" at the end."""

    def __init__(self, path: str) -> None:
        """Names the folder; nothing is read or made.

        Args:
          path: a local path, where "~" is the home folder, or `gs://BUCKET/...`.

        Raises:
          UserError: the path is empty, or its scheme is not `gs`.
        """
        self.path = _resolved(path)
        self.is_remote = is_remote(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({self.path!r})"

    def join(self, *names: str) -> str:
        """The full path of a file or folder inside; the folder itself without arguments."""
        return "/".join((self.path.rstrip("/"), *names)) if self.is_remote else os.path.join(self.path, *names)

    def exists(self, *names: str) -> bool:
        """Whether there is such a file or folder. A bucket that is not there has nothing in it."""
        path = self.join(*names)
        with reading_or_writing(path):
            return _gfile().exists(path) if self.is_remote else os.path.exists(path)

    def list(self, *names: str) -> list[str]:
        """The sorted names in a folder, without paths; empty where there is no such folder."""
        path = self.join(*names)
        with reading_or_writing(path):
            if not self.is_remote:
                return sorted(os.listdir(path)) if os.path.isdir(path) else []
            gfile = _gfile()
            return sorted(name.rstrip("/") for name in gfile.listdir(path)) if gfile.isdir(path) else []

    def make_folder(self, *names: str) -> str:
        """Makes a folder and those above it, if they are not there yet, and gives its full path."""
        path = self.join(*names)
        with reading_or_writing(path):
            if self.is_remote:
                _gfile().makedirs(path)
            else:
                os.makedirs(path, exist_ok=True)
        return path

    def read_text(self, *names: str) -> str:
        """A whole file, as UTF-8.

        Raises:
          UserError: there is no such file, or it cannot be read.
        """
        path = self.join(*names)
        with reading_or_writing(path):
            if self.is_remote:
                with _gfile().GFile(path, "rb") as file:
                    content: bytes = file.read()
            else:
                with open(path, "rb") as file:
                    content = file.read()
        return content.decode()

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file as UTF-8; folders on the way are made.

        The file has its complete old content or its complete new one, even if the machine stops halfway.

        Raises:
          UserError: the disk is full, or the place cannot be written; the old content is still there.
        """
        path = self.join(name)
        with reading_or_writing(path):
            if self.is_remote:
                with _gfile().GFile(path, "wb") as file:
                    file.write(text.encode())
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _replace_file(path, text.encode())

    def append_text(self, name: str, text: str) -> None:
        """Adds to the end of a file, as UTF-8; file and folders are made if they are not there.

        On `gs://` that writes the whole object anew. A local file may keep a part of `text` if the disk fills up.

        Raises:
          UserError: the disk is full, or the place cannot be written.
        """
        path = self.join(name)
        with reading_or_writing(path):
            if self.is_remote:
                with _gfile().GFile(path, "ab") as file:
                    file.write(text.encode())
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "ab") as file:
                    file.write(text.encode())

    def delete_tree(self, *names: str) -> None:
        """Deletes a file, or a folder with all that is in it; it may be absent already."""
        path = self.join(*names)
        with reading_or_writing(path):
            _delete(path)

    def staging(self, *names: str) -> str:
        """Makes a fresh folder next to where `names` will stand, to be filled before `publish_tree`.

        Returns:
          Its full path; the last part is ".NAME.tmp-" and eight random hexadecimal digits.
        """
        *above, name = "/".join(names).split("/")
        return self.make_folder(*above, f"{_temporary_prefix(name)}{secrets.token_hex(4)}")

    def publish_tree(self, staging: str, *names: str) -> None:
        """Puts a finished folder in its place, instead of what stood there, and removes `staging`.

        Local to local it is renamed: the place holds the complete old tree, for a moment nothing, then the complete new
        one. To or from `gs://` the files are copied one by one, and a reader may see a part of them: write a marker
        object afterwards to say that all are there.

        Args:
          staging: full path of the folder, on the same disk as the run directory if both are local.
          *names: where it belongs, inside this run directory.
        """
        path = self.join(*names)
        with reading_or_writing(path):
            if self.is_remote or is_remote(staging):
                _delete(path)
                _copy_tree(staging, path)
                _delete(staging)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _sync_tree(staging)
                _swap_in(staging, path)

    def delete_leftovers(self, *names: str) -> None:
        """Deletes what killed runs left half-written in a folder: `staging` folders and temporary files.

        Only for a run that owns the directory: the staging folders of another one would go too.
        """
        for name in self.list(*names):
            if _TEMPORARY.fullmatch(name):
                self.delete_tree(*names, name)


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
        named = os.fspath(error.filename) if isinstance(error.filename, (str, os.PathLike)) else path
        sentence = _local_sentence(error.errno or 0, named, path, flag)
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


def _resolved(path: str) -> str:
    if not path:
        raise UserError("--run_dir is empty: give a folder, local or gs://.")
    if not is_remote(path):
        return os.path.abspath(os.path.expanduser(path))
    if not re.match(r"gs://[^/]+", path):
        raise UserError(f"--run_dir={path}: must be a local folder or gs://BUCKET/FOLDER.")
    return path.rstrip("/")


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


# Files.

_TEMPORARY = re.compile(r"\..+\.(tmp|old)-[0-9a-f]{8}")


def _temporary_prefix(name: str, kind: str = "tmp") -> str:
    return f".{name}.{kind}-"


def _beside(path: str, kind: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{_temporary_prefix(name, kind)}{secrets.token_hex(4)}")


def _replace_file(path: str, content: bytes) -> None:
    temporary = _beside(path, "tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.remove(temporary)
        raise
    _sync_folder(os.path.dirname(path))


def _swap_in(staging: str, path: str) -> None:
    """Renames a folder to `path`; a folder that stands there is moved aside first and deleted after."""
    aside = _beside(path, "old")
    replaces = os.path.lexists(path)
    if replaces:
        os.rename(path, aside)
    try:
        os.rename(staging, path)
    except OSError:
        if replaces:
            os.rename(aside, path)
        raise
    _sync_folder(os.path.dirname(path))
    if replaces:
        _delete(aside)


def _sync_folder(path: str) -> None:
    """Makes renames in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems know no sync of a folder.
            raise
    finally:
        os.close(descriptor)


def _sync_tree(path: str) -> None:
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(folder)


def _delete(path: str) -> None:
    if is_remote(path):
        gfile = _gfile()
        if gfile.isdir(path):
            gfile.rmtree(path)
        elif gfile.exists(path):
            gfile.remove(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


def _copy_tree(source: str, target: str) -> None:
    gfile = _gfile()
    source = source.rstrip("/")
    for folder, _, names in gfile.walk(source):
        inside = folder.rstrip("/")[len(source) :].strip("/")
        to_folder = f"{target}/{inside}" if inside else target
        gfile.makedirs(to_folder)
        for name in names:
            gfile.copy(f"{folder.rstrip('/')}/{name}", f"{to_folder}/{name}", overwrite=True)


# Sentences.


def _local_sentence(code: int, named: str, path: str, flag: str) -> str | None:
    """What to tell the user about an error number of the operating system; None if it is not theirs to mend."""
    if not _related(named, path):
        if code not in (errno.ENOSPC, errno.EDQUOT):
            return None
        path = named
    another = f"give another {flag}"
    if code == errno.ENOSPC:
        return f"The disk of {path} is full: free some space or {another}; what was saved before is untouched."
    if code == errno.EDQUOT:
        return f"The disk quota for {path} is used up: delete something or {another}; what was saved before is untouched."
    if code in (errno.EACCES, errno.EPERM):
        return f"No permission for {path}: change its permissions or {another}."
    if code == errno.EROFS:
        return f"{path} is on a read-only file system: {another}."
    if code in (errno.ENOTDIR, errno.EEXIST):
        return f"{_first_file(path)} is a file where a folder is needed: move it away or {another}."
    if code == errno.EISDIR:
        return f"{path} is a folder where a file is needed: move it away or {another}."
    if code == errno.ENOENT:
        return f"There is no {path}: check the name or {another}."
    if code == errno.ENAMETOOLONG:
        return f"The name {path} is too long for this file system: {another}."
    return None


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


def _bucket_sentence(message: str, path: str, flag: str) -> str | None:
    bucket = "/".join(path.split("/")[:3])
    if bucket not in message:
        return None
    if "HTTP response code 404" in message or "bucket does not exist" in message:
        return f"There is no bucket {bucket}: create it or give another {flag}."
    if re.search(r"HTTP response code 40[13]", message):
        return (
            f"No permission for {path}: log in with an account that may read and write objects in {bucket}, or give "
            f"another {flag}."
        )
    if "not found" in message or "Could not find directory" in message:
        return f"There is no {path}: check the name or give another {flag}."
    return None


def _related(named: str, path: str) -> bool:
    """Whether one of two places is the other or contains it."""
    one, other = (os.path.abspath(place).rstrip("/") + "/" for place in (named, path))
    return one.startswith(other) or other.startswith(one)


def _first_file(path: str) -> str:
    """The topmost part of a path that is a file and so cannot hold the rest; `path` if there is none."""
    parts = os.path.abspath(path).split(os.sep)
    above = [os.sep.join(parts[:count]) for count in range(2, len(parts) + 1)]
    return next((part for part in above if os.path.exists(part) and not os.path.isdir(part)), path)


def _is_tensorflow_error(error: Exception) -> bool:
    if "tensorflow" not in sys.modules:
        return False
    import tensorflow as tf

    return isinstance(error, tf.errors.OpError)
