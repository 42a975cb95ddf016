"""GcloudCommand: a command line of Google's own `gcloud` that does what a request of ours does, for people to paste."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

_LONGEST_LINE = 100
"""Characters of a command that stays on one line; a longer one is wrapped, a flag to a line."""

_FLAG_WITH_VALUE = re.compile(r"(--[a-z0-9-]+=)(.*)", re.DOTALL)


@dataclass(frozen=True)
class GcloudCommand:
    """A command line of gcloud.

    Attributes:
      arguments: what follows `gcloud`.
      files: texts of the files that the arguments refer to, by name; they belong into the current folder. A text ends
        with a line end, as every here-document does.
      modules: of those files that are the source of a module of ours, its name: it is copied, not written out.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a text that no here-document can hold."""
        for name, text in self.files.items():
            if text and not text.endswith("\n"):
                raise ValueError(f"{name} must end with a line end")

    def shell(self) -> str:
        """What a person can paste into a POSIX shell: the files as here-documents first, then the command."""
        documents = [
            _copy(self.modules[name], name) if name in self.modules else _here_document(name, text)
            for name, text in self.files.items()
        ]
        return "".join([*documents, _command_line(("gcloud", *self.arguments))])


def _here_document(name: str, text: str) -> str:
    end = "EOF"
    while end in text.splitlines():  # Such a line would end the document early.
        end += "F"
    return f"cat > {shlex.quote(name)} <<'{end}'\n{text}{end}\n"


def _copy(module: str, name: str) -> str:
    return f'python -c "import shutil, {module} as module; shutil.copy(module.__file__, {name!r})"\n'


def _command_line(words: tuple[str, ...]) -> str:
    """One line where it fits, otherwise a line for each flag with what belongs to it."""
    quoted = [_quoted(word) for word in words]
    line = " ".join(quoted)
    if len(line) <= _LONGEST_LINE and "\n" not in line:
        return line
    lines = [quoted[0]]
    for word, text in zip(words[1:], quoted[1:]):
        if word.startswith("-"):
            lines.append(text)
        else:
            lines[-1] += f" {text}"
    return " \\\n    ".join(lines)


def _quoted(word: str) -> str:
    """A word for the shell; of a flag only its value is quoted, as people write it."""
    flag = _FLAG_WITH_VALUE.fullmatch(word)
    if flag and flag[2]:
        return f"{flag[1]}{shlex.quote(flag[2])}"
    return word if flag else shlex.quote(word)
