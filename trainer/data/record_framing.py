"""The frame of a TFRecord file: where its records begin, how long they are, and whether they are whole.

A record is its length (8 bytes, little-endian), a checksum of the length, the data, and a checksum of the data; the
checksums are CRC-32C, masked. Files come from anywhere, so a length is believed only after it was checked: TensorFlow's
own reader allocates whatever a length with a matching checksum says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

import google_crc32c

from trainer.errors import UserError
from trainer.storage import is_remote

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
"""What a record takes in its file beside its data."""

_GZIP, _ZLIB = b"\x1f\x8b", (b"\x78\x01", b"\x78\x9c", b"\x78\xda")

_BUFFER_BYTES = 2**20


def frame(data: bytes) -> bytes:
    """A record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def open_bytes(path: str) -> IO[bytes]:
    """Opens a file for reading, local or with a scheme."""
    if not is_remote(path):
        return open(path, "rb", buffering=_BUFFER_BYTES)
    import tensorflow as tf

    file: Any = tf.io.gfile.GFile(path, "rb")
    return file


def records_of(path: str, size: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Goes through the records of a file.

    Args:
      path: the file, local or with a scheme.
      size: its bytes.

    Yields:
      Where a record begins, how long its data are, and the data; None for them if their checksum is wrong.

    Raises:
      UserError: the file is empty, compressed, no TFRecord file, or damaged so that no further record can be found.
    """
    if not size:
        raise UserError(f"{path} is empty: copy it again, or leave it out.")
    offset = 0
    with open_bytes(path) as file:
        while offset < size:
            header = file.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES and offset:
                raise _cut_off(path, offset)
            if len(header) < HEADER_BYTES or header[8:] != _checksum(header[:8]):
                raise _bad_header(path, offset, header)
            length = int.from_bytes(header[:8], "little")
            if length + FRAME_BYTES > size - offset:
                raise _cut_off(path, offset)
            rest = file.read(length + FOOTER_BYTES)
            if len(rest) < length + FOOTER_BYTES:
                raise _cut_off(path, offset)
            data = rest[:-FOOTER_BYTES]
            yield offset, length, data if rest[-FOOTER_BYTES:] == _checksum(data) else None
            offset += length + FRAME_BYTES


def record_at(path: str, offset: int, length: int) -> bytes | None:
    """The data of one record; None if it is cut off or its checksum is wrong.

    Raises:
      tf.errors.OpError: the file cannot be read.
    """
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(offset)
        framed: bytes = file.read(length + FRAME_BYTES)
    data = framed[HEADER_BYTES:-FOOTER_BYTES]
    return data if framed == frame(data) and len(data) == length else None


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C of TFRecord files, 4 bytes."""
    plain = google_crc32c.value(data)
    return struct.pack("<I", ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _bad_header(path: str, offset: int, header: bytes) -> UserError:
    if offset:
        return UserError(f"{path} is damaged at byte {offset}, where a record should begin: make or copy it again.")
    if header.startswith((_GZIP, *_ZLIB)):
        return UserError(f"{path} is compressed: decompress it, because records are read in random order.")
    return UserError(f"{path} is not a TFRecord file, or its beginning is damaged: leave it out, or copy it again.")


def _cut_off(path: str, offset: int) -> UserError:
    return UserError(f"{path} ends in the middle of the record at byte {offset}: make or copy it again.")
