"""Which files of a folder are its sources: what git would keep, or without git all but what tools leave behind."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError

_LEFT_BEHIND = (
    ".git", ".hg", ".svn", ".venv*", "venv", "env", "node_modules", "__pycache__", "*.pyc", "*.egg-info", "build",
    "dist", "runs", ".*_cache", ".tox", ".nox", ".ipynb_checkpoints", ".DS_Store", ".idea", ".vscode",
)  # fmt: skip
"""Names of files and folders that no source lies in, where no .gitignore can be asked."""


@dataclass(frozen=True)
class TreeState:
    """What git says of a working tree.

    Attributes:
      commit: that is checked out, 40 hexadecimal digits; "" where git knows none.
      clean: whether all is as it was committed, with nothing beside it; None where git knows no commit.
    """

    commit: str
    clean: bool | None


def tree_state(root: Path) -> TreeState:
    """The state of the working tree that a folder is.

    Raises:
      UserError: git refuses to read it.
    """
    if not _has_git(root):
        return TreeState("", None)
    commit = _git(root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}", may_fail=True).decode().strip()
    if not commit:
        return TreeState("", None)
    return TreeState(commit, not _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", "."))


def source_files(root: Path) -> list[str]:
    """Paths of all sources below a folder, their parts joined by "/", in order.

    Raises:
      UserError: git refuses to read it, or it has repositories within it.
    """
    names = _git_files(root) if _has_git(root) else _walked_files(root)
    return sorted(names, key=os.fsencode)


def _git_files(root: Path) -> set[str]:
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
    for name in names:
        if (root / name).is_dir() and not (root / name).is_symlink():
            inner = name.rstrip("/")
            raise UserError(f"{inner} is a git repository of its own: add it to .gitignore, or its files to this one.")
    return {name for name in names if os.path.lexists(root / name)}  # Others were deleted, and that not committed.


def _walked_files(root: Path) -> set[str]:
    found: set[str] = set()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _is_left_behind(name)]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        here = Path(folder).relative_to(root)
        found |= {(here / name).as_posix() for name in (*files, *links) if not _is_left_behind(name)}
    return found


def _is_left_behind(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_BEHIND)


def _has_git(root: Path) -> bool:
    """Whether there is a repository, and git to ask."""
    folder = root.resolve()
    return shutil.which("git") is not None and any((place / ".git").exists() for place in (folder, *folder.parents))


def _git(root: Path, *arguments: str, may_fail: bool = False) -> bytes:
    """What git prints; b"" where it fails and may.

    Raises:
      UserError: it fails.
    """
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # `git status` would write the index.
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return b""
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    raise UserError(f"git cannot read {root}: {said[0]}")
