"""What the workers say to each other before TensorFlow starts (`trainer.roll_call`). No TensorFlow.

A message is a line of JSON. A worker sends a greeting. The chief answers with its patience, the seconds that it will
wait for the others, sends notes while it does, and at last {"config": …}, its own, or {"error": …}, a sentence.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LONGEST = 2**20
"""Bytes of the longest message; what is longer does not come from a worker."""

Message = dict[str, Any]


class StrangerError(Exception):
    """Whoever is on the other side is no worker: what it says is none of the messages here."""


@dataclass(frozen=True)
class Greeting:
    """How a worker was started.

    Attributes:
      index: of the worker among `workers`.
      workers: all addresses, the chief's first.
      has_chief_type: whether the cluster lists the chief apart.
      config: its Config as JSON values.
      versions: of its packages by name; None for what is not installed.
      process: what a person can find it by.
      token: tells one process from another.
    """

    index: int
    workers: list[str]
    has_chief_type: bool
    config: dict[str, Any]
    versions: dict[str, Any]
    process: str
    token: str

    def message(self) -> Message:
        """What `read` reads."""
        return {"roll_call": vars(self)}

    @classmethod
    def read(cls, message: Message) -> Greeting:
        """Raises StrangerError where the message is no greeting of a worker."""
        kinds = (int, list, bool, dict, dict, str, str)
        try:
            greeting = cls(**message["roll_call"])
        except (KeyError, TypeError):
            raise StrangerError from None
        if not all(isinstance(value, kind) for value, kind in zip(vars(greeting).values(), kinds)):
            raise StrangerError
        if not 1 <= greeting.index < len(greeting.workers):
            raise StrangerError
        return greeting

    def difference(self, chief: Greeting) -> str | None:
        """How this worker's cluster differs from the chief's."""
        for theirs, own in itertools.zip_longest(self.workers, chief.workers):
            if theirs != own:
                return f"has {theirs or 'nobody'} where the chief has {own or 'nobody'}"
        if self.has_chief_type != chief.has_chief_type:
            return f"lists the chief as {'chief' if self.has_chief_type else 'worker'} 0, and the chief does not"
        return None


async def send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Sends one message."""
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message. Raises EOFError where none comes any more, StrangerError for anything else than a message."""
    try:
        line = await reader.readline()
        message = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        raise StrangerError from None
    if message is None:
        raise EOFError
    if not isinstance(message, dict):
        raise StrangerError
    return message


def patience_of(message: Message) -> float:
    """The seconds that the chief will wait. Raises StrangerError where it does not say so."""
    value = message.get("patience")
    if not isinstance(value, (int, float)):
        raise StrangerError
    return value


@contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Hangs up in the end."""
    try:
        yield
    finally:
        writer.close()
