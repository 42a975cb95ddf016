"""Texts and their labels in one CSV file (RFC 4180, UTF-8), whose first row names the columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trainer.blocks import read_blocks
from trainer.data.listing import normalised
from trainer.errors import UserError
from trainer.storage import is_remote, reading_or_writing

LARGEST_FILE = 2 * 2**30
"""Bytes: the texts are kept in memory."""

LONGEST_LINE = 4 * 2**20
"""Bytes of a line of the file. A field may have as many characters as Python's csv module takes, 131072, which is half
a megabyte of UTF-8 at most."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SHOWN_COLUMNS = 10
_SHOWN_CHARACTERS = 40


class LabelledText(NamedTuple):
    """A row of the file.

    Attributes:
      text: in UTF-8, not empty.
      label: name of its class, NFC-normalised and without spaces around it.
      line: where the row begins in the file, from 1.
    """

    text: bytes
    label: str
    line: int


def read_texts(path: str, text_column: str, label_column: str) -> list[LabelledText]:
    """All rows of a file, in their order; empty lines are left out.

    Args:
      path: local or gs://.
      text_column: name of the column of texts.
      label_column: name of the column of labels.

    Raises:
      UserError: it cannot be read, is no such file, lacks a column, or has a row that cannot be used; the sentence
        names the line.
    """
    if not is_remote(path) and os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"--data=csv:{path} is no file: give the path of one CSV file.")
    with reading_or_writing(path, "--data"):
        rows = _rows(path)
        header = next(rows, None)
        if header is None:
            raise UserError(f"--data=csv:{path} is empty: its first row must name the columns.")
        names = [name.strip() for name in header.fields]
        text_place, label_place = (_place(path, names, column) for column in (text_column, label_column))
        found = []
        for row in rows:
            if len(row.fields) != len(names):
                raise _row_error(path, row.line, f"it has {len(row.fields)} columns, and the first row {len(names)}")
            label = normalised(row.fields[label_place].strip())
            problem = _problem(row.fields[text_place], label)
            if problem:
                raise _row_error(path, row.line, problem)
            found.append(LabelledText(row.fields[text_place].encode(), label, row.line))
    if not found:
        raise UserError(f"--data=csv:{path} has no rows after the one that names the columns.")
    return found


class _Row(NamedTuple):
    fields: list[str]
    line: int


def _rows(path: str) -> Iterator[_Row]:
    """The rows that are no empty lines."""
    reader = csv.reader(_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _row_error(path, line, _in_plain_words(str(error))) from None
        if fields is None:
            return
        if fields:
            yield _Row(fields, line)


def _lines(path: str) -> Iterator[str]:
    """The lines of the file with their ends, decoded one by one, so that it is clear which of them cannot be."""
    for number, line in enumerate(_byte_lines(path), 1):
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if b"\0" in line:
            raise _row_error(path, number, "it has a NUL character, which no text has: save the file as UTF-8")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            reason = f"byte {error.start + 1} is no UTF-8 ({error.reason}): save the file as UTF-8"
            raise _row_error(path, number, reason) from None


def _byte_lines(path: str) -> Iterator[bytes]:
    size, number, rest = 0, 0, b""
    for block in read_blocks(path):
        size += len(block)
        if size > LARGEST_FILE:
            raise UserError(f"--data=csv:{path} has more than {LARGEST_FILE} bytes, and texts are kept in memory.")
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            yield line + b"\n"
        if len(rest) > LONGEST_LINE:
            raise _row_error(path, number + 1, f"it has more than {LONGEST_LINE} bytes without a line break")
    if rest:
        yield rest


def _place(path: str, names: Sequence[str], column: str) -> int:
    """Which column has a name."""
    if names.count(column) == 1:
        return names.index(column)
    shown = ", ".join(name[:_SHOWN_CHARACTERS] for name in names[:_SHOWN_COLUMNS])
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    many = "two columns" if column in names else "no column"
    raise UserError(
        f"--data=csv:{path} has {many} {column}: its first row names {shown}{more}; --text_column and --label_column "
        "say which to take."
    )


def _problem(text: str, label: str) -> str:
    """What is wrong with a row; "" if nothing is."""
    if not text.strip():
        return "it has no text"
    if not label:
        return "it has no label"
    if not label.isprintable():
        return "its label has a line break or another character that cannot be printed"
    return ""


def _in_plain_words(reason: str) -> str:
    """What Python's csv module (3.11) says, for a person."""
    if "field larger than field limit" in reason:
        return f"it has a field of more than {csv.field_size_limit()} characters, or a quote that is not closed"
    if "unexpected end of data" in reason:
        return "it has a quote that is not closed"
    if "expected after" in reason:
        return "in a quoted field, a quote that is part of the text must be doubled"
    if "new-line character" in reason:
        return "its lines end in a carriage return alone: save the file with the line ends of today"
    return reason


def _row_error(path: str, line: int, problem: str) -> UserError:
    return UserError(f"--data=csv:{path}, line {line}: {problem}.")
