"""The lease of a local run directory: the file `.lease`, locked by its holder. No TensorFlow.

The operating system's lock (flock) ends with the process however that ends. Two kinds of network file systems need the
heartbeat as well, which is the file's time: those that do not show one machine's lock to another, and those that know
no locks. There the last writer of the file has the lease, and the others find out soon after.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
import weakref
from collections.abc import Callable
from dataclasses import replace

from trainer.lease import LeaseLostError, Standing
from trainer.lease_holder import Holder, Verdict, judge
from trainer.storage_errors import reading_or_writing

FILE_NAME = ".lease"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_RACE_SECONDS = 1.0
"""How long a lock may be had by a process that has not written yet who it is, or that only looks."""

_SERVER_LOCK_SECONDS = 120.0
"""A file server has given up the locks of a silent machine by then: Linux's does after 90 s (nfsd, NFSv4, 2026)."""

_UNLOCKED_SECONDS = 1.0
"""Where there are no locks: how long after writing to see whether somebody else wrote in the same moment."""

_LOOK_AGAIN_SECONDS = 0.02

_LONGEST = 4096
"""Bytes that are read of a lease."""


class LocalPlace:
    """See `trainer.lease.Place`."""

    def __init__(self, path: str, flag: str = "--run_dir", now: Callable[[], float] | None = None) -> None:
        """Names the place; nothing is read or made.

        Args:
          path: absolute, of the run directory.
          flag: which one gave it.
          now: seconds since 1970; by default the clock of the file system, which other machines see too.
        """
        self.path = path
        self.flag = flag
        self._file = os.path.join(path, FILE_NAME)
        self._now = now or self._file_system_time
        self._descriptor: int | None = None
        self._made: list[str] = []
        _places.add(self)

    def make_new_folder(self) -> bool:
        """Makes the run directory; False: there already is one."""
        deadline = time.monotonic() + _RACE_SECONDS
        with reading_or_writing(self.path, self.flag):
            while True:
                self._made = _missing_folders(self.path)
                try:
                    os.makedirs(self.path)
                except FileExistsError:
                    if not os.path.isdir(self.path):
                        raise
                    return False
                except FileNotFoundError:  # Another run, which had made the folder above, has just taken it away.
                    if time.monotonic() > deadline:
                        raise
                else:
                    return True

    def try_to_take(self, me: Holder) -> Standing | None:
        """See `trainer.lease.Place`."""
        deadline = time.monotonic() + _RACE_SECONDS
        with reading_or_writing(self.path, self.flag):
            while True:
                in_time = time.monotonic() < deadline
                try:
                    descriptor = self._opened()
                except FileNotFoundError:  # Another run, which had made the folder, has just taken it away.
                    if not in_time:
                        raise
                    continue
                try:
                    locked = _lock(descriptor)
                    standing = self._look(descriptor, me, locked)
                    if locked is False:
                        if standing.verdict is not Verdict.DEAD or not in_time:
                            return _while_locked(standing, me)
                    elif self._is_in_place(descriptor) or not in_time:
                        if standing.verdict is not Verdict.DEAD:
                            return standing
                        self._write(descriptor, me)
                        rival = None if locked else self._rival(me)
                        if rival is None:
                            self._descriptor = descriptor
                        return rival
                finally:
                    if descriptor != self._descriptor:
                        os.close(descriptor)
                time.sleep(_LOOK_AGAIN_SECONDS)

    def renew(self, me: Holder) -> None:
        """See `trainer.lease.Place`."""
        try:
            holder = self._read()
        except FileNotFoundError:
            raise LeaseLostError(None) from None
        if holder is None or holder.token != me.token:
            raise LeaseLostError(holder)
        os.utime(self._file)

    def release(self, me: Holder) -> None:
        """See `trainer.lease.Place`. A folder that was made for the lease goes too, if it stayed empty."""
        # On a full or vanished disk the file stays; the lock, which counts, goes in any case.
        with contextlib.suppress(OSError):
            holder = self._read()
            if holder and holder.token == me.token:
                self._delete()
        self.close()

    def close(self) -> None:
        """Gives the lock back; in a forked process, only that process' share of it."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _opened(self) -> int:
        """A descriptor of the file; file and folders are made if need be. Subprocesses do not inherit it (PEP 446)."""
        self._made = self._made or _missing_folders(self.path)
        os.makedirs(self.path, exist_ok=True)
        return os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)

    def _look(self, descriptor: int, me: Holder, locked: bool | None) -> Standing:
        holder = Holder.parse(os.pread(descriptor, _LONGEST, 0))
        if holder is None or (locked and holder.shares_machine(me)):
            return Standing(Verdict.DEAD, holder)
        # Who is refused on the holder's machine has no need of the file system's clock, for which it would write.
        now = time.time() if holder.shares_machine(me) else self._now()
        silent_seconds = now - os.fstat(descriptor).st_mtime
        return Standing(judge(holder, silent_seconds, me), holder, silent_seconds)

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file is still there: whoever gives a lease back deletes it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._file))
        return False

    def _write(self, descriptor: int, me: Holder) -> None:
        content = me.to_json()
        try:
            os.pwrite(descriptor, content, 0)
        except OSError:
            if not os.fstat(descriptor).st_size:
                self._delete()
            raise
        os.truncate(descriptor, len(content))
        os.fsync(descriptor)  # Some network file systems show the content to others only then.

    def _delete(self) -> None:
        os.remove(self._file)
        with contextlib.suppress(OSError):  # Something else is in there by now.
            for folder in self._made:
                os.rmdir(folder)

    def _rival(self, me: Holder) -> Standing | None:
        """Where there are no locks: who wrote after this process; None: nobody."""
        time.sleep(_UNLOCKED_SECONDS)
        holder = self._read()
        if holder and holder.token == me.token:
            return None
        return Standing(Verdict.HELD, holder)

    def _read(self) -> Holder | None:
        with open(self._file, "rb", buffering=0) as file:
            return Holder.parse(file.read(_LONGEST))

    def _file_system_time(self) -> float:
        path = f"{self._file}.tmp-{secrets.token_hex(4)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):  # The holder clears up what others left half-written.
                os.remove(path)


_places: weakref.WeakSet[LocalPlace] = weakref.WeakSet()


def _forget_all() -> None:
    """In a forked process, which would keep the locks when its parent has ended."""
    for place in _places:
        place.close()


os.register_at_fork(after_in_child=_forget_all)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock could be had; None: the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _while_locked(standing: Standing, me: Holder) -> Standing:
    """What keeps a lease from being taken whose file stays locked, though its holder may seem dead.

    A file server keeps the locks of a machine that is gone for a while. Otherwise the process is there, but does not
    run, such as a stopped one.
    """
    if standing.verdict is not Verdict.DEAD:
        return standing
    gone = standing.holder is not None and not standing.holder.shares_machine(me)
    waits = gone and standing.silent_seconds < _SERVER_LOCK_SECONDS
    return replace(standing, verdict=Verdict.LATE if waits else Verdict.HELD, dead_seconds=_SERVER_LOCK_SECONDS)


def _missing_folders(path: str) -> list[str]:
    """Those that are not there yet, the innermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
