"""What is said of a configuration that is not accepted: one sentence a problem, with the way out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from typing import Any

from trainer.errors import UserError


def batch_size_problem(batch_size: int, replicas: int) -> str:
    """The sentence for a global batch that the replicas do not divide, with the nearest sizes that they do."""
    below, above = batch_size // replicas * replicas, (batch_size // replicas + 1) * replicas
    choices = f"{below} or {above}" if below else f"{above}"
    return f"--batch_size={batch_size} cannot be shared by {replicas} replicas; take {choices}"


def values_from_json(text: str, *, origin: str) -> dict[str, Any]:
    """The fields of a JSON config as they stand there, unchecked.

    Raises:
      UserError: `text` is not a JSON object, or names a field twice.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
            raise UserError(f"{origin} has {twice} twice: leave one of them out.")
        return fields

    try:
        values = json.loads(text, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f'{origin} must be a JSON object of fields such as {{"epochs": 5}}.')
    return values


def shown(value: object) -> str:
    """A field's value as a sentence names it: lists with commas, nothing as "empty"."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "empty"
    return "empty" if value == "" else str(value)


_PLAINER_MESSAGES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be names, separated by commas",
}
"""What is said instead of pydantic's own words, by its type of error."""


def sentence(detail: Any, values: dict[str, Any], names: Collection[str]) -> str:
    """One of pydantic's errors as a sentence that names the flag, its value and what is accepted.

    Args:
      detail: of `ValidationError.errors()`.
      values: what was to be a Config.
      names: the fields that there are.
    """
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = _PLAINER_MESSAGES.get(detail["type"], message.replace("should be ", "must be ", 1))
    end = "" if message.endswith(("?", ".")) else "."
    if not detail["loc"]:
        return f"{message}{end}"
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, names, 1)
        return f"There is no field {name}." + (f" Did you mean {near[0]}?" if near else "")
    value = values.get(name, detail["input"])
    text = value if value == "" else shown(value)
    each = "each " if len(detail["loc"]) > 1 else ""
    return f"--{name}={text}: {each}{message}{end}"
