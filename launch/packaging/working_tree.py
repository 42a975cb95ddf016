"""The working tree as a package for Cloud Build: a tar.gz of its sources, the same for the same sources.

It holds what git would keep, nothing that looks like a secret, and no link that leads out.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.packaging.secret_files import Finding, find_secret
from launch.packaging.source_files import TreeState, source_files, tree_state
from trainer.errors import UserError

LARGEST_PACKAGE = 50 * 2**20
"""Bytes of all sources together, unpacked. What is larger is a data set or a model that nobody meant to send."""

_MOMENT = 946_684_800
"""When every file in a package was changed, in seconds (2000-01-01): the same for all, and one that zip can hold, which
begins in 1980 and is what pip makes of a package on its way."""


@dataclass(frozen=True)
class Package:
    """A packaged working tree.

    Attributes:
      content: of the tar.gz.
      sha256: of the content, in hexadecimal digits.
      files: how many there are in it.
      size: bytes of all of them, unpacked.
      state: what git says of the tree.
    """

    content: bytes
    sha256: str
    files: int
    size: int
    state: TreeState

    @property
    def tag(self) -> str:
        """The tag of an image that is built from it.

        The commit in seven digits, as Cloud Build's triggers have it, if that is all that is in it; with the content's
        hash behind it if it is not, and the hash alone where there is no commit.
        """
        if not self.state.commit:
            return f"tree-{self.sha256[:12]}"
        short = self.state.commit[:7]
        return short if self.state.clean else f"{short}-dirty-{self.sha256[:12]}"


def package(root: Path, allowed: Collection[str] = ()) -> Package:
    """Packages a working tree.

    Args:
      root: the folder of the tree.
      allowed: files that are packaged though they look like a secret, as paths within the tree.

    Raises:
      UserError: something in it looks like a secret, leads out of it, cannot be read, or it is too large; or one that
        is to be allowed is not there.
    """
    state = tree_state(root)
    names = source_files(root)
    missing = sorted(set(allowed) - set(names))
    if missing:
        raise UserError(f"--allow_file={missing[0]}: is no file that would be packaged; give its path within {root}.")
    _check_size(root, names)
    entries = [_entry(root, name) for name in names]
    _check_secrets(entry for entry in entries if entry[0].name not in allowed)
    content = _compressed(entries)
    size = sum(len(data) for _, data in entries)
    return Package(content, hashlib.sha256(content).hexdigest(), len(entries), size, state)


def _check_size(root: Path, names: Iterable[str]) -> None:
    sizes = {name: os.lstat(root / name).st_size for name in names}
    total = sum(sizes.values())
    if total > LARGEST_PACKAGE:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"The working tree {root} has {total / 2**20:,.0f} MiB in {len(sizes):,} files, at most "
            f"{LARGEST_PACKAGE // 2**20} are sent; the largest is {largest} with {sizes[largest] / 2**20:,.1f} MiB: "
            "add what is no source to .gitignore."
        )


def _entry(root: Path, name: str) -> tuple[tarfile.TarInfo, bytes]:
    """A file or link as it is packaged, and its content."""
    path = root / name
    info = tarfile.TarInfo(name)
    info.mtime = _MOMENT
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        info.type = tarfile.SYMTYPE
        info.linkname = _inner_target(root, name)
        return info, b""
    if not stat.S_ISREG(mode):
        raise UserError(f"{name} is neither a file nor a link: remove it from the working tree.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None
    info.size = len(content)
    info.mode = 0o755 if mode & stat.S_IXUSR else 0o644
    return info, content


def _inner_target(root: Path, name: str) -> str:
    """What a link names, if that is within the tree.

    Raises:
      UserError: it leads out.
    """
    target = os.readlink(root / name)
    as_written = os.path.normpath(os.path.join(os.path.dirname(name), target))
    real_root, real_target = os.path.realpath(root), os.path.realpath(root / name)
    leads_out = os.path.isabs(target) or as_written.split(os.sep)[0] == os.pardir
    if leads_out or os.path.commonpath([real_root, real_target]) != real_root:
        raise UserError(f"{name} is a link to {target}, out of the working tree: put a copy there, or ignore it.")
    return target


def _check_secrets(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> None:
    findings: list[Finding] = []
    for info, content in entries:
        finding = find_secret(info.name, content)
        if finding:
            findings.append(finding)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise UserError(
            f"{findings[0]}{more}: nothing was sent. Add the file to .gitignore, or give "
            f"--allow_file={findings[0].path} if it is none."
        )


def _compressed(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
