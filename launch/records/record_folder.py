"""Records as files of a folder. `launch.records.records` says what is in them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.jobs.job import NAME_PATTERN
from launch.records.record_rules import ENDING, LARGEST, as_bytes, check, check_is_earlier, newest_first, passed_over
from launch.records.records import Record
from trainer.errors import UserError


class FolderRecords:
    """Records as files of a folder."""

    def __init__(self, folder: str, warn: Callable[[str], None]) -> None:
        """Reads nothing yet.

        Args:
          folder: need not be there yet.
          warn: is told of files that are passed over.
        """
        self._folder = Path(folder)
        self._warn = warn

    def save(self, record: Record) -> None:
        """See `launch.records.records.Records`."""
        check(record)
        path = self._path(record.name)
        content = as_bytes(record)
        with self._as_sentences("written"):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{record.name}-{secrets.token_hex(8)}.tmp"
            try:
                with open(draft, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if _exists(path) or not _linked(draft, path):
                    check_is_earlier(str(path), path.read_bytes(), record)
                    os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)

    def forget(self, record: Record) -> None:
        """See `launch.records.records.Records`."""
        there = self.load(record.name)
        if there and there.submission == record.submission:
            with self._as_sentences("removed"):
                self._path(record.name).unlink(missing_ok=True)

    def load(self, name: str) -> Record | None:
        """See `launch.records.records.Records`."""
        if not NAME_PATTERN.fullmatch(name):
            return None
        with self._as_sentences("read"):
            path = self._path(name)
            return self._read(path) if _exists(path) else None

    def all(self) -> list[Record]:
        """See `launch.records.records.Records`."""
        with self._as_sentences("read"):
            if not _exists(self._folder):
                return []
            paths = [path for path in self._folder.iterdir() if path.suffix == ENDING and not path.is_dir()]
            return newest_first(self._read(path) for path in paths)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{ENDING}"

    def _read(self, path: Path) -> Record | None:
        try:
            if not path.is_file() or path.stat().st_size > LARGEST:
                raise ValueError("it is too large, or no file")
            return Record.from_json(path.read_bytes(), path.stem)
        except (OSError, ValueError) as error:
            self._warn(passed_over(str(path), error))
            return None

    @contextlib.contextmanager
    def _as_sentences(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The records of jobs cannot be {done} in {self._folder} ({error.strerror}): give another folder or "
                "gs:// address as --records."
            ) from error


def _exists(path: Path) -> bool:
    """Whether there is something; unlike `Path.exists`, it raises where that cannot be told."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _linked(draft: Path, path: Path) -> bool:
    """Gives a finished file its name if that is free, and says whether it was: of two processes only one is told so."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # No hard links there, as on FAT: two processes may then overwrite each other's first record.
        os.replace(draft, path)
    return True
