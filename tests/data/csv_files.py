"""CSV files for tests: right ones, and one for every way in which they can be wrong."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEADER = b"text,label\n"
RIGHT = b"good,pos\nbad,neg\n"

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty: its first row must name the columns"),
    "empty lines alone": (b"\n\n\n", "is empty: its first row must name the columns"),
    "byte order mark alone": (b"\xef\xbb\xbf", "is empty"),
    "no rows": (HEADER, "has no rows after the one that names the columns"),
    "no header": (RIGHT, "has no column text: its first row names good, pos; --text_column and --label_column"),
    "semicolons": (b"text;label\ngood;pos\n", "has no column text: its first row names text;label;"),
    "no label column": (b"text,sentiment\ngood,pos\n", "has no column label: its first row names text, sentiment;"),
    "a column twice": (b"text,label,label\ngood,pos,x\n", "has two columns label"),
    "many columns": (",".join(f"c{i}" for i in range(40)).encode(), "c8, c9 and 30 more;"),
    "a missing column": (HEADER + RIGHT + b"good\n", "line 4: it has 1 columns, and the first row 2"),
    "an unquoted comma": (HEADER + b"good, really,pos\n", "line 2: it has 3 columns, and the first row 2"),
    "a wrong row after a long one": (HEADER + b'"a\nb\nc",pos\nx\n', "line 5: it has 1 columns"),
    "no label": (HEADER + RIGHT + b"good, \n", "line 4: it has no label"),
    "no text": (HEADER + b'" ",pos\n', "line 2: it has no text"),
    "a label of two lines": (HEADER + b'good,"po\ns"\n', "line 2: its label has a line break"),
    "an escape code in a label": (HEADER + b"good,\x1b[31m\n", "line 2: its label has a line break or another char"),
    "one class": (HEADER + b"good,pos\nfine,pos\n", "has one class only, pos: at least two are needed"),
    "latin 1": (HEADER + RIGHT + "größe,pos\n".encode("latin-1"), "line 4: byte 3 is no UTF-8 (invalid start byte)"),
    "cut in a character": (HEADER + "a,größ".encode()[:-1], "line 2: byte 7 is no UTF-8 (unexpected end of data)"),
    "utf-16": ("text,label\ngood,pos\n".encode("utf-16"), "line 1: it has a NUL character"),
    "surrogates": (HEADER + b"\xed\xa0\x80,pos\n", "line 2: byte 1 is no UTF-8"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(50), "line 1: byte 1 is no UTF-8"),
    "a gzip": (b"\x1f\x8b\x08\x08", "line 1: byte 2 is no UTF-8"),
    "NUL": (HEADER + b"go\0od,pos\n", "line 2: it has a NUL character, which no text has"),
    "zeros": (bytes(5000), "line 1: it has a NUL character"),
    "an open quote": (HEADER + RIGHT + b'"good,pos\nbad,neg\n', "line 4: it has a quote that is not closed"),
    "an open quote before much": (
        HEADER + b'"good,pos\n' + b"bad,neg\n" * 20000,
        "line 2: it has a field of more than 131072 characters, or a quote that is not closed",
    ),
    "a quote in a quoted text": (HEADER + b'"so "good"",pos\n', "line 2: in a quoted field, a quote that is part of"),
    "a text too long": (HEADER + b"x" * 131073 + b",pos\n", "line 2: it has a field of more than 131072 characters"),
    "a line without end": (HEADER + b"x" * (6 * 2**20), "line 2: it has more than 4194304 bytes without a line break"),
    "carriage returns alone": (b"text,label\rgood,pos\r", "line 1: its lines end in a carriage return alone"),
}
"""The content of the file, and what the sentence about it says."""

POSITIVE = ("great", "wonderful", "love", "best", "superb")
NEGATIVE = ("awful", "worst", "hate", "boring", "terrible")
_NEUTRAL = ("the", "film", "was", "an", "actor", "scene")


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts that tell their class by some of their words, and labels "neg" and "pos" in turn."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        telling = POSITIVE if number % 2 else NEGATIVE
        words = [str(random.choice(telling if place % 3 == 0 else _NEUTRAL)) for place in range(9)]
        rows.append((f"{' '.join(words)}, no. {number}", "pos" if number % 2 else "neg"))
    return rows


def write_csv(path: Path, rows: Sequence[tuple[str, ...]], header: Sequence[str] = ("text", "label")) -> Path:
    """Writes a file as Python's csv module does, and gives its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([tuple(header), *rows])
    return path
