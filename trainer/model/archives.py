"""Unpacks the archive that a Hub server sends, and believes nothing that stands in it.

tensorflow_hub 0.16.1 refuses names that lead outside and everything but files and folders; what it leaves open is how
much comes out of an archive, how long a silent server is waited for, and whether the end of a gzip stream is right.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import IO, Protocol, cast

import tensorflow as tf

MOST_MEMBERS = 10_000
"""Files and folders of one archive. The modules of TensorFlow Hub have about a dozen."""

FREE_BYTES = 64 * 2**20
MOST_RATIO = 100
"""What comes out of an archive may be this many times what went in, beyond `FREE_BYTES`: weights hardly shrink (to 0.93
of their size for MobileNetV2, 2026-11), while a bomb of zeros grows a thousandfold."""

_CHUNK = 2**20
_GZIP = b"\x1f\x8b"


class ArchiveError(Exception):
    """An archive that is not unpacked any further; the message goes on from "the archive"."""


class ByteStream(Protocol):
    """What an answer of a server and a file have in common."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def unpack(stream: ByteStream, folder: str) -> None:
    """Unpacks a tar archive, compressed by gzip or not, while it is read.

    Args:
      stream: the bytes of the archive.
      folder: where to; it exists, is empty, and is thrown away by the caller if this fails.

    Raises:
      ArchiveError: a name leads out of the folder, a member is neither file nor folder, or it is a bomb.
      tarfile.TarError, EOFError, OSError, zlib.error: it is no archive, damaged, cut off, or cannot be stored.
      tf.errors.OpError: it cannot be stored.
    """
    received = _Received(stream)
    plain = _Plain(gzip.GzipFile(fileobj=received) if received.peek(len(_GZIP)) == _GZIP else received, received)
    with tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|", errorlevel=2) as archive:
        for count, member in enumerate(archive, 1):
            if count > MOST_MEMBERS:
                raise ArchiveError(f"has more than {MOST_MEMBERS} files")
            path = f"{folder}/{_inner_path(member.name)}".rstrip("/")
            if member.isdir():
                tf.io.gfile.makedirs(path)
            elif member.isreg() and not member.issparse():
                _write(archive, member, path)
            else:
                raise ArchiveError(f"holds {member.name}, which is neither a file nor a folder")
    while plain.read(_CHUNK):  # To the end, where gzip has its checksum.
        pass


def _inner_path(name: str) -> str:
    """The path of a member in its folder, "" for the folder itself.

    Raises:
      ArchiveError: it leads outside.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise ArchiveError(f"holds {name}, a name that leads out of its folder or is none")
    return "/".join(parts)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    content = archive.extractfile(member)
    assert content is not None  # It is a file.
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    written = 0
    with tf.io.gfile.GFile(path, "wb") as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
            written += len(chunk)
    if written < member.size:
        raise EOFError(f"{member.name} is cut off")


class _Received(io.RawIOBase):
    """Counts what comes from a server, whose beginning can be looked at."""

    def __init__(self, stream: ByteStream) -> None:
        self.count = 0
        self._stream = stream
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._stream.read(size - len(self._ahead))):
            self._ahead += more
        return self._ahead

    def read(self, size: int = -1, /) -> bytes:
        chunk, self._ahead = self._ahead[:size], self._ahead[size:] if size > 0 else b""
        chunk = chunk or self._stream.read(size)
        self.count += len(chunk)
        return chunk

    def readable(self) -> bool:
        return True


class _Plain:
    """The archive without its compression, until it grows too fast."""

    def __init__(self, stream: ByteStream, received: _Received) -> None:
        self._stream = stream
        self._received = received
        self._count = 0

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(size)
        self._count += len(chunk)
        if self._count > FREE_BYTES + MOST_RATIO * self._received.count:
            raise ArchiveError(f"unpacks to more than {MOST_RATIO} times its size")
        return chunk
