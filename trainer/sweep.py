"""A grid of runs from one line of text: `learning_rate=1e-4,1e-3 backbone=A,B` stands for four runs.

    FIELD=VALUE,VALUE FIELD=VALUE,VALUE     every value of the one with every value of the other
    splits="75,15,10","50,25,25"            quotes, " or ', around a value with commas or spaces in it
    freeze="",'/block_1_'                   and around one that is empty

Every point is a Config, checked before anything starts. No TensorFlow: `launch` submits the same points as jobs.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import Config
from trainer.config_errors import shown
from trainer.config_values import credentials_problem
from trainer.errors import UserError

MOST_POINTS = 1000
"""More runs than that in one sweep are a typing error."""

_LONGEST_VALUE = 40
"""Characters of a value in a point's name."""

_LONGEST_NAME = 150
"""Characters of a point's name; a file system takes 255 bytes."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      name: of its folder; of letters, digits and the characters ._=,+- alone, unique in the sweep whatever the case.
      overrides: the swept fields as they were written, in their order.
      config: the whole configuration; its `run_dir` is that of the sweep as a whole.
    """

    name: str
    overrides: Mapping[str, str]
    config: Config


def points(config_values: Mapping[str, Any], text: str) -> list[Point]:
    """All runs of a sweep, in the order of the text: the last field changes fastest.

    Args:
      config_values: the fields that all have in common, as `Config.parse` takes them; swept ones may be among them.
      text: the grid, as the head of this module shows it.

    Raises:
      UserError: the text is not of that form, a field is swept twice or has no values, there are more than
        `MOST_POINTS`, or two are the same run; or a point is not accepted as a configuration.
    """
    problem = credentials_problem(text)  # First of all, because every other complaint repeats the text.
    if problem:
        raise UserError(f"--sweep {problem}.")
    grid = _parse(text)
    count = math.prod(len(values) for values in grid.values())
    if count > MOST_POINTS:
        raise UserError(f"--sweep asks for {count:,} runs: {MOST_POINTS:,} are the most.")
    found: dict[Config, Point] = {}
    taken: set[str] = set()
    for combination in itertools.product(*grid.values()):
        overrides = dict(zip(grid, combination, strict=True))
        config = _config(config_values, overrides)
        if config in found:
            same = _written(found[config].overrides), _written(overrides)
            raise UserError(f"--sweep: {same[0]} and {same[1]} are the same run: leave one of them out.")
        found[config] = Point(_free_name(_name(config, list(grid)), taken), overrides, config)
    return list(found.values())


def _parse(text: str) -> dict[str, list[str]]:
    """The values of each field, in the order of the text."""
    grid: dict[str, list[str]] = {}
    for entry in filter(None, _split(re.sub(r"\s", " ", text), " ", text)):
        name, equals, values = entry.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--sweep={text}: {entry} must be FIELD=VALUE,VALUE, as in learning_rate=1e-4,1e-3.")
        if name in grid:
            raise UserError(f"--sweep={text} has {name} twice: give all its values in one place.")
        if name == "run_dir":
            raise UserError("--sweep gives each run a folder of its own, in --run_dir: leave run_dir out of it.")
        grid[name] = [_unquoted(value, name) for value in _split(values, ",", text)]
    if not grid:
        raise UserError("--sweep is empty: give fields with their values, as in learning_rate=1e-4,1e-3.")
    return grid


def _split(text: str, separator: str, whole: str) -> list[str]:
    """Takes a text apart at a separator, a blank or a comma, but not inside quotation marks, which stay."""
    pieces, quote = [""], ""
    for character in text:
        if character == separator and not quote:
            pieces.append("")
            continue
        pieces[-1] += character
        if character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
    if quote:
        raise UserError(f"--sweep={whole}: a quotation mark {quote} is not closed; the other kind goes around it.")
    return pieces


def _unquoted(value: str, name: str) -> str:
    if not value:
        raise UserError(f'--sweep: {name} lacks a value beside a comma or behind the =; write "" for an empty one.')
    return re.sub(r""""([^"]*)"|'([^']*)'""", lambda match: match[1] or match[2] or "", value)


def _config(config_values: Mapping[str, Any], overrides: Mapping[str, str]) -> Config:
    try:
        return Config.parse({**config_values, **overrides})
    except UserError as error:
        raise UserError(f"--sweep, {_written(overrides)}: {error}") from None


def _written(overrides: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in overrides.items())


def _name(config: Config, fields: Sequence[str]) -> str:
    """As in "learning_rate=0.001,backbone=mobilenet_v2": what it says depends on the point alone, not on the others."""
    dumped = config.model_dump(mode="json")
    name = ",".join(f"{field}={_short(shown(dumped[field]))}" for field in fields)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(digest) - 1]}-{digest}"


def _short(value: str) -> str:
    """A value as a part of a folder's name: of a path as many of its last parts as there is room for."""
    *above, short = [_safe(part) for part in value.split("://")[-1].rstrip("/").split("/") if _safe(part)] or ["x"]
    while above and len(above[-1]) + 1 + len(short) <= _LONGEST_VALUE:
        short = f"{above.pop()}-{short}"
    return short[-_LONGEST_VALUE:]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "-", text).strip("-") if text.strip(".") else ""


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken already, on a file system that does not tell case too."""
    free = next(
        each
        for number in itertools.count(1)
        if (each := name if number == 1 else f"{name}-{number}").casefold() not in taken
    )
    taken.add(free.casefold())
    return free
