"""Broken and hostile module archives, and what is said of each."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Iterable

from mutations import cuts, named

from trainer.model.archives import MOST_MEMBERS

ZEROS = gzip.compress(bytes(2**20), mtime=0) * 96
"""96 MiB in 100 kB; gzip streams one after the other are one."""

OUTSIDE = "leads out of its folder"
NO_FILE = "neither a file nor a folder"
BOMB = "unpacks to more than 100 times its size"
UNFETCHED = "cannot be fetched"
INCOMPLETE = "is incomplete"


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these, compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A file, a link or something else."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content if kind == tarfile.REGTYPE else b""


def claiming(size: int) -> bytes:
    """An archive whose only file claims a size that no archive has."""
    info, _ = member("saved_model.pb")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512


def sparse(size: int) -> bytes:
    """A file of a few bytes that unpacks to `size` bytes, in the format of GNU tar."""
    info, _ = member("saved_model.pb", kind=tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    header[483:495] = b"%011o\0" % min(size, 8**11 - 1)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def corpus(good: bytes) -> dict[str, tuple[bytes, str]]:
    """By name: an archive, and a part of the sentence.

    Args:
      good: an archive of a good module, not compressed.
    """
    whole = gzip.compress(good, mtime=0)
    refused = {
        "parent": (tar([member("../x")]), OUTSIDE),
        "parent inside": (tar([member("variables/../../x")]), OUTSIDE),
        "parent that stays inside": (tar([member("variables/../x")]), OUTSIDE),
        "absolute": (tar([member("/tmp/x")]), OUTSIDE),
        "two slashes": (tar([member("//tmp/x")]), OUTSIDE),
        "of Windows": (tar([member("..\\x")]), OUTSIDE),
        "drive of Windows": (tar([member("C:\\x")]), OUTSIDE),
        "control codes": (tar([member("\x1b[31mx")]), OUTSIDE),
        "line end": (tar([member("a\nb")]), OUTSIDE),
        "parent as a folder": (tar([member("../d", kind=tarfile.DIRTYPE)]), OUTSIDE),
        "parent in a pax header": (tar([member("a" * 200 + "/../../../x")]), OUTSIDE),
        "parent in a GNU header": (tar([member("a" * 200 + "/../../../x")], tarfile.GNU_FORMAT), OUTSIDE),
        "symbolic link": (tar([member("variables", kind=tarfile.SYMTYPE, link="/etc")]), NO_FILE),
        "link and through it": (
            tar([member("v", kind=tarfile.SYMTYPE, link="/tmp"), member("v/x")]),
            NO_FILE,
        ),
        "link to the parent": (tar([member("v", kind=tarfile.SYMTYPE, link="..")]), NO_FILE),
        "hard link": (tar([member("passwd", kind=tarfile.LNKTYPE, link="/etc/passwd")]), NO_FILE),
        "device": (tar([member("zero", kind=tarfile.CHRTYPE)]), NO_FILE),
        "disk": (tar([member("sda", kind=tarfile.BLKTYPE)]), NO_FILE),
        "pipe": (tar([member("pipe", kind=tarfile.FIFOTYPE)]), NO_FILE),
        "sparse": (gzip.compress(sparse(2**28), mtime=0), NO_FILE),
        "bomb": (gzip.compress(claiming(2**28)[:512], mtime=0) + ZEROS, BOMB),
        "bomb of a header": (gzip.compress(_pax_header(2**28), mtime=0) + ZEROS, BOMB),
        "bomb behind the end": (gzip.compress(good, mtime=0) + ZEROS, BOMB),
        "many files": (tar([member(f"{n}", b"") for n in range(MOST_MEMBERS + 1)]), f"more than {MOST_MEMBERS} files"),
        "size of an exabyte": (claiming(2**60), UNFETCHED),
        "size of an exabyte, compressed": (gzip.compress(claiming(2**60), mtime=0), UNFETCHED),
        "file that is a folder": (tar([member("v"), member("v/x")]), UNFETCHED),
        "empty": (b"\n", UNFETCHED),
        "page": (b"<html>sign in</html>", UNFETCHED),
        "page, compressed": (gzip.compress(b"<html>sign in</html>" * 100, mtime=0), UNFETCHED),
        "zip": (b"PK\x03\x04" + bytes(1000), UNFETCHED),
        "xz": (lzma.compress(good), UNFETCHED),
        "wrong checksum": (whole[:-8] + bytes(4) + whole[-4:], UNFETCHED),
        "wrong length": (whole[:-4] + struct.pack("<I", 7), UNFETCHED),
        "damaged in its middle": (whole[: len(whole) // 2] + b"damage" + whole[len(whole) // 2 + 6 :], UNFETCHED),
        "other files": (tar([member("README.md", b"hello")]), INCOMPLETE),
        "in a folder": (tar([member("module/saved_model.pb", b"x")]), INCOMPLETE),
        "no graph": (tar([member("saved_model.pb", b"")]), INCOMPLETE),
        "graph of nonsense": (tar([member("saved_model.pb", b"\xff" * 99)]), INCOMPLETE),
        "text graph of nonsense": (tar([member("saved_model.pbtxt", b"x { y {")]), INCOMPLETE),
        "text graph of brackets": (
            tar([member("saved_model.pbtxt", b"meta_graphs { graph_def { " * 3000)]),
            INCOMPLETE,
        ),
    }
    return refused | {name: (data, UNFETCHED) for name, data in named("gzip", cuts(whole, 10)).items()}


def _pax_header(size: int) -> bytes:
    """The beginning of a header that goes on for `size` bytes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.USTAR_FORMAT)


NAMES = [f"{number} {name}" for number, name in enumerate(corpus(b"x" * 20_000))]
"""Begin with their places in the corpus of whatever archive; a cut's name tells its own."""

COUNT = len(NAMES)
