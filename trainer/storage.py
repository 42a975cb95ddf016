"""Run directories: local or `gs://` behind one face.

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
import stat
from collections.abc import Sequence
from typing import Any, Literal

from trainer.errors import UserError
from trainer.layout import DEFAULT_LAYOUT, Layout, folder_name
from trainer.storage_errors import NO_BUCKET_MESSAGE, absolute, is_pattern, is_remote, reading_or_writing

__all__ = ["RunDirectory", "absolute", "is_pattern", "is_remote", "reading_or_writing"]


class RunDirectory:
    """A folder that a run owns, local or `gs://`.

    Names below are given part by part (`join("checkpoints", "best")`) or with "/" in them; the first is the trainer's
    own, and the folder there may be called otherwise (`trainer.layout`). Whatever a user can mend, such as a full disk
    or a bucket that is not there, is raised as `UserError`.
    """

    path: str
    """Absolute, "~" expanded, no "/" at the end."""

    def __init__(self, path: str, flag: str = "--run_dir", layout: Layout = DEFAULT_LAYOUT) -> None:
        """Names the folder; nothing is read or made.

        Args:
          path: a local path, where "~" is the home folder, or `gs://BUCKET/...`.
          flag: which one gave the path; errors name it.
          layout: what the folders inside are called.

        Raises:
          UserError: the path is empty, its scheme is not `gs`, or TensorFlow would take it for a pattern.
        """
        self.path = _resolved(path, flag)
        self._flag = flag
        self._layout = layout
        self.is_remote = is_remote(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({self.path!r})"

    def join(self, *names: str) -> str:
        """The full path of a file or folder inside; the folder itself without arguments."""
        if names:
            first, slash, rest = names[0].partition("/")
            names = (f"{folder_name(first, self._layout)}{slash}{rest}", *names[1:])
        return "/".join((self.path.rstrip("/"), *names)) if self.is_remote else os.path.join(self.path, *names)

    def exists(self, *names: str) -> bool:
        """Whether there is such a file or folder.

        Raises:
          UserError: it is not allowed to look, or there is no such bucket.
        """
        path = self.join(*names)
        with reading_or_writing(self.path, self._flag):
            return _kind(path) is not None

    def list(self, *names: str) -> list[str]:
        """The sorted names in a folder, without paths; empty where there is no such folder.

        Raises:
          UserError: it is not allowed to look, or there is no such bucket.
        """
        path = self.join(*names)
        with reading_or_writing(self.path, self._flag):
            if _kind(path) != "folder":
                return []
            listed = _gfile().listdir(path) if self.is_remote else os.listdir(path)
            return sorted(name.rstrip("/") for name in listed)

    def make_folder(self, *names: str) -> str:
        """Makes a folder and those above it, if they are not there yet, and gives its full path."""
        path = self.join(*names)
        with reading_or_writing(self.path, self._flag):
            _make_folder(path)
        return path

    def read_text(self, *names: str) -> str:
        """A whole file, as UTF-8; of a damaged one, what is no UTF-8 is read as U+FFFD.

        Raises:
          UserError: there is no such file, or it cannot be read.
        """
        return self.read_bytes(*names).decode(errors="replace")

    def read_bytes(self, *names: str) -> bytes:
        """A whole file.

        Raises:
          UserError: there is no such file, or it cannot be read.
        """
        path = self.join(*names)
        with reading_or_writing(self.path, self._flag):
            if self.is_remote:
                with _gfile().GFile(path, "rb") as remote:
                    content: bytes = remote.read()
                    return content
            with open(path, "rb") as file:
                return file.read()

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file as UTF-8; see `write_bytes`."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, *content: bytes | memoryview, synced: bool = True) -> None:
        """Writes a whole file, from one or more parts; folders on the way are made.

        The file has its complete old content or its complete new one, even if the machine stops halfway; without
        `synced`, if the process stops: a machine that loses its power may leave it damaged.

        Raises:
          UserError: the disk is full, or the place cannot be written; the old content is still there.
        """
        path = self.join(name)
        with reading_or_writing(self.path, self._flag):
            if self.is_remote:
                with _gfile().GFile(path, "wb") as file:
                    for part in content:
                        file.write(bytes(part))
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _replace_file(path, content, synced)

    def append_text(self, name: str, text: str) -> None:
        """Adds to the end of a file, as UTF-8; file and folders are made if they are not there.

        On `gs://` that writes the whole object anew.

        Raises:
          UserError: the disk is full, or the place cannot be written; the file is as it was.
        """
        path = self.join(name)
        with reading_or_writing(self.path, self._flag):
            if self.is_remote:
                with _gfile().GFile(path, "ab") as file:
                    file.write(text.encode())
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _append(path, text.encode())

    def delete_tree(self, *names: str) -> None:
        """Deletes a file, or a folder with all that is in it; it may be absent already."""
        path = self.join(*names)
        with reading_or_writing(self.path, self._flag):
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
        with reading_or_writing(self.path, self._flag):
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
            if _LEFTOVER.fullmatch(name):
                self.delete_tree(*names, name)


def _resolved(path: str, flag: str) -> str:
    if not path:
        raise UserError(f"{flag} is empty: give a folder, local or gs://.")
    if not is_remote(path):
        path = absolute(path)
    elif re.match(r"gs://[^/]+", path):
        path = path.rstrip("/")
    else:
        raise UserError(f"{flag}={path}: must be a local folder or gs://BUCKET/FOLDER.")
    if is_pattern(path):
        raise UserError(
            f"{path} has one of * ? [ ] \\ in it: TensorFlow could not read a checkpoint there, so give another {flag}."
        )
    return path


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


def _make_folder(path: str) -> None:
    if is_remote(path):
        # Not makedirs: where the bucket is missing, that asks for it again and again without end.
        _gfile().mkdir(path)
    else:
        os.makedirs(path, exist_ok=True)


_DELETE_ATTEMPTS = 3
"""How often something on gs:// is looked for and deleted that was there and then was not found."""

_LEFTOVER = re.compile(r"\..+\.(tmp|old)-[0-9a-f]{8}")


def _temporary_prefix(name: str, kind: str = "tmp") -> str:
    return f".{name}.{kind}-"


def _beside(path: str, kind: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{_temporary_prefix(name, kind)}{secrets.token_hex(4)}")


def _replace_file(path: str, content: Sequence[bytes | memoryview], synced: bool) -> None:
    temporary = _beside(path, "tmp")
    try:
        with open(temporary, "xb") as file:
            for part in content:
                file.write(part)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.remove(temporary)
        raise
    if synced:
        _sync_folder(os.path.dirname(path))


def _append(path: str, content: bytes) -> None:
    """Appends all of it or, if that fails, none."""
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise


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


def _kind(path: str) -> Literal["file", "folder"] | None:
    """What stands at a path; None: nothing.

    Unlike `isdir` and `exists` it does not call a place empty that it may not look at or that does not answer: a run
    would start anew over its own checkpoints.
    """
    if not is_remote(path):
        try:
            return "folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
        except (FileNotFoundError, NotADirectoryError):
            return None
    import tensorflow as tf

    try:
        return "folder" if tf.io.gfile.stat(path).is_directory else "file"
    except tf.errors.NotFoundError as error:
        if NO_BUCKET_MESSAGE in str(error):
            raise
        return None


def _delete(path: str) -> None:
    if is_remote(path):
        _delete_remote(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


def _delete_remote(path: str) -> None:
    import tensorflow as tf

    for attempt in range(_DELETE_ATTEMPTS):
        kind = _kind(path)
        if kind is None:
            return
        try:
            (tf.io.gfile.rmtree if kind == "folder" else tf.io.gfile.remove)(path)
            return
        except tf.errors.NotFoundError:
            # `rmtree` says so too where the server does not answer or refuses: then `_kind` raises the true error.
            if attempt == _DELETE_ATTEMPTS - 1:
                raise


def _copy_tree(source: str, target: str) -> None:
    gfile = _gfile()
    source = source.rstrip("/")
    for folder, _, names in gfile.walk(source):
        inside = folder.rstrip("/")[len(source) :].strip("/")
        to_folder = f"{target}/{inside}" if inside else target
        _make_folder(to_folder)
        for name in names:
            gfile.copy(f"{folder.rstrip('/')}/{name}", f"{to_folder}/{name}", overwrite=True)
