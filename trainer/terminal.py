"""What a program prints, whoever reads it: no name in a sentence acts on the terminal, and no stream is missing.

`trainer` and `launch` share it. No TensorFlow.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


def printable(text: str, encoding: str | None, *, kept: str = "") -> str:
    r"""A text as a terminal of that encoding can show it.

    Control codes, such as a file name may hold to recolour or retitle the terminal, and characters that the encoding
    lacks are shown as Python escapes.

    Args:
      text: anything.
      encoding: of the stream that it goes to; None where the stream does not tell, for UTF-8.
      kept: control characters that stay as they are, such as "\n".
    """
    visible = "".join(
        character if character.isprintable() or character in kept else character.encode("unicode_escape").decode()
        for character in text
    )
    encoding = encoding or "utf-8"
    return visible.encode(encoding, errors="backslashreplace").decode(encoding)


def print_error(sentence: str) -> None:
    """Prints to standard error, on one line, whatever control codes and line ends a name in the sentence has."""
    print(f"error: {printable(sentence, sys.stderr.encoding)}", file=sys.stderr)


def ensure_standard_streams() -> None:
    """Lets what is printed vanish where standard output or error was closed before the program started.

    Python has None in their place, which whatever prints would fail on.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def discard(stream: TextIO) -> None:
    """Lets all that is printed there from now on vanish, what the stream still holds included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
