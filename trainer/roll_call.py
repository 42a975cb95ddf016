"""The workers meet before TensorFlow starts, and train together only if they were started alike. No TensorFlow.

TensorFlow's own server waits for the others without a word, and workers with different flags would train something that
nobody asked for. So the chief first listens on the very port that will be TensorFlow's, every other worker tells it how
it was started, and all of them get the same answer: go, or the same error.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from trainer.config import Config
from trainer.errors import UserError
from trainer.own_port import hold_own_port
from trainer.records.status import installed_versions
from trainer.roll_call_messages import LONGEST, Greeting, Message, StrangerError, closing, patience_of, receive, send
from trainer.topology import Topology, split_address
from trainer.worker_differences import config_differences, version_differences

_GREETING_SECONDS = 10.0
"""How long whoever connects, and whoever is connected to, may take to say something."""

_RETRY_SECONDS = 0.5
_FAREWELL_SECONDS = 2.0
_FIRST_NOTE_SECONDS = 5.0
_NOTE_SECONDS = 30.0

_GONE = (OSError, asyncio.TimeoutError, EOFError)
"""What is raised when the other side is not there, no longer there, or silent."""


def meet(
    topology: Topology,
    config: Config,
    *,
    timeout: float,
    announce: Callable[[str], None],
    versions: Mapping[str, str | None] | None = None,
) -> Config:
    """Waits until all workers are there and makes sure that they were started alike.

    Every training worker calls it, before TensorFlow's devices are touched; the evaluator does not.

    Args:
      topology: who the workers are.
      config: of this worker. The chief's has a `run_dir`.
      timeout: seconds to wait for the others.
      announce: is told now and then who is still missing.
      versions: of the installed packages, by name; by default those that are installed.

    Returns:
      The Config to train with: this worker's own, with the chief's `run_dir`. All sockets are closed.

    Raises:
      UserError: a worker does not come, comes twice, or differs in Config, versions or list of workers, which every
        worker that is there then raises; or this worker's own port cannot be had.
    """
    name = _with_article(topology.name)
    with hold_own_port(topology.workers[topology.index], name, timeout=timeout) as listener:
        me = Greeting(
            index=topology.index,
            workers=list(topology.workers),
            has_chief_type=topology.has_chief_type,
            config=config.model_dump(mode="json"),
            versions=dict(versions or installed_versions()),
            process=f"process {os.getpid()} on {platform.node() or 'an unnamed machine'}",
            token=secrets.token_hex(8),
        )
        if topology.is_chief:
            asyncio.run(_Chief(topology, me, announce).preside(listener, timeout))
            return config
        run_dir = asyncio.run(_Worker(topology.workers[0], me, announce).attend(timeout))
        return config.model_copy(update={"run_dir": run_dir})


@dataclass(eq=False)
class _Guest:
    """A worker that has greeted the chief; `gone` is set when it hangs up."""

    greeting: Greeting
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class _Chief:
    """Waits for the others, compares, and answers all of them."""

    def __init__(self, topology: Topology, me: Greeting, announce: Callable[[str], None]) -> None:
        self._topology = topology
        self._me = me
        self._announce = announce
        self._guests: list[_Guest] = []
        self._visits: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._deadline = 0.0

    async def preside(self, listener: socket.socket, timeout: float) -> None:
        """Raises UserError after having told it to all who are there."""
        self._deadline = _now() + timeout
        server = await asyncio.start_server(self._open, sock=listener, limit=LONGEST)
        try:
            problem = await self._wait() or self._absence(timeout) or self._differences()
            server.close()
            await self._dismiss({"error": problem} if problem else {"config": self._me.config})
        finally:
            server.close()
            for visit in self._visits:  # Of strangers.
                visit.cancel()
            await asyncio.gather(*self._visits, return_exceptions=True)
        if problem:
            raise UserError(problem)

    def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.create_task(self._receive(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection until it ends."""
        with closing(writer), suppress(*_GONE):
            try:
                greeting = Greeting.read(await asyncio.wait_for(receive(reader), _GREETING_SECONDS))
            except StrangerError:  # Such as a port scanner: it is sent away.
                return
            await send(writer, {"patience": self._deadline - _now()})
            guest = _Guest(greeting, writer)
            # A process that comes once more has lost its first connection.
            self._guests = [other for other in self._guests if other.greeting.token != greeting.token] + [guest]
            self._changed.set()
            try:
                await reader.read(1)  # Workers say no more: this returns when they hang up.
            finally:
                guest.gone.set()
                self._guests = [other for other in self._guests if other is not guest]
                self._changed.set()

    async def _wait(self) -> str | None:
        """Returns when all are there, or the time is up; at once with a problem that no waiting mends."""
        reminder = _Reminder()
        while True:
            self._changed.clear()
            problem = self._other_cluster() or self._double()
            if problem or not self._missing() or _now() >= self._deadline:
                return problem
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(reminder.left(), self._deadline - _now()))
            if self._missing() and reminder.due():
                note = f"waiting for {self._called(self._missing())}"
                self._announce(note)
                await self._tell_all({"note": note})

    def _missing(self) -> list[int]:
        present = {guest.greeting.index for guest in self._guests}
        return [index for index in range(1, len(self._topology.workers)) if index not in present]

    def _other_cluster(self) -> str | None:
        for guest in self._guests:
            difference = guest.greeting.difference(self._me)
            if difference:
                return (
                    f"The cluster in TF_CONFIG must be the same on all workers: {guest.greeting.process} {difference}."
                )
        return None

    def _double(self) -> str | None:
        processes: dict[int, str] = {}
        for guest in self._guests:
            index, process = guest.greeting.index, guest.greeting.process
            if index in processes:
                return (
                    f"Two processes say that they are {self._name(index)}, {processes[index]} and {process}: give each "
                    "its own task index in TF_CONFIG."
                )
            processes[index] = process
        return None

    def _absence(self, timeout: float) -> str | None:
        if not self._missing():
            return None
        return (
            f"{self._called(self._missing())} did not come within {timeout:g} s of --worker_timeout: start all workers "
            f"with the same flags, and let them reach the chief at {self._topology.workers[0]}."
        )

    def _differences(self) -> str | None:
        """How the workers differ from the chief; the fields of a Config only where the versions agree."""
        guests = sorted(self._guests, key=lambda guest: guest.greeting.index)
        for compare, own, way_out in (
            (version_differences, "versions", "install the same versions on all workers"),
            (config_differences, "config", "give all workers the same flags"),
        ):
            for guest in guests:
                name = self._name(guest.greeting.index)
                found = compare(getattr(self._me, own), getattr(guest.greeting, own), name)
                if found:
                    return f"{'; '.join(found)}: {way_out}."
        return None

    async def _tell_all(self, message: Message) -> None:
        async def tell(guest: _Guest) -> None:
            with suppress(*_GONE):
                await asyncio.wait_for(send(guest.writer, message), _FAREWELL_SECONDS)

        await asyncio.gather(*map(tell, self._guests))

    async def _dismiss(self, answer: Message) -> None:
        """Answers all, and lets them hang up first: so the last trace of the connections is not on this port."""
        guests = list(self._guests)
        await self._tell_all(answer)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(guest.gone.wait() for guest in guests)), _FAREWELL_SECONDS)

    def _name(self, index: int) -> str:
        return _with_article(self._topology.name_of(index))

    def _called(self, indices: list[int]) -> str:
        """Names with addresses: "worker 1 (10.0.0.2:2222) and worker 2 (10.0.0.3:2222)"."""
        return " and ".join(f"{self._name(index)} ({self._topology.workers[index]})" for index in indices)


class _Worker:
    """Goes to the chief and waits for its answer."""

    def __init__(self, chief: str, me: Greeting, announce: Callable[[str], None]) -> None:
        self._chief = chief
        self._me = me
        self._announce = announce

    async def attend(self, timeout: float) -> str:
        """The chief's `run_dir`. Raises UserError with the chief's own words, or because it does not come."""
        deadline, reminder, reason = _now() + timeout, _Reminder(), "no answer"
        while _now() < deadline:
            try:
                return await self._visit(deadline)
            except _GONE as error:
                reason = _reason(error)
            except StrangerError:
                reason = "another program listens there"
            if reminder.due():
                self._announce(f"waiting for the chief ({self._chief}): {reason}")
            await asyncio.sleep(max(0.0, min(_RETRY_SECONDS, reminder.left(), deadline - _now())))
        raise UserError(
            f"The chief ({self._chief}) did not come within {timeout:g} s of --worker_timeout ({reason}): start it "
            "with the same flags, and let all workers reach its address."
        )

    async def _visit(self, deadline: float) -> str:
        """Greets whoever listens on the chief's port, and waits for the answer as long as the chief says it does."""
        host, port = split_address(self._chief)
        connecting = asyncio.open_connection(host, port, limit=LONGEST)
        reader, writer = await asyncio.wait_for(connecting, min(_GREETING_SECONDS, deadline - _now()))
        with closing(writer):
            await send(writer, self._me.message())
            try:
                message = await asyncio.wait_for(receive(reader), min(_GREETING_SECONDS, deadline - _now()))
            except asyncio.TimeoutError:  # The chief answers at once.
                raise StrangerError from None
            last = _now() + patience_of(message) + 2 * _FAREWELL_SECONDS
            while "config" not in message and "error" not in message:
                if "note" in message:
                    self._announce(str(message["note"]))
                message = await asyncio.wait_for(receive(reader), last - _now())
        if "error" in message:
            raise UserError(str(message["error"]))
        return str(message["config"]["run_dir"])


class _Reminder:
    """When it is time to say again that somebody is missing."""

    def __init__(self) -> None:
        self._next = _now() + _FIRST_NOTE_SECONDS

    def left(self) -> float:
        """Seconds until then, 0 or more."""
        return max(0.0, self._next - _now())

    def due(self) -> bool:
        """Whether it is time; once each time."""
        if self.left():
            return False
        self._next = _now() + _NOTE_SECONDS
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()


def _reason(error: BaseException) -> str:
    """Why the chief cannot be talked to."""
    if isinstance(error, socket.gaierror):
        return "its host does not resolve"
    if isinstance(error, (EOFError, ConnectionResetError, BrokenPipeError)):
        return "it hung up"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else "no answer"


def _with_article(name: str) -> str:
    return "the chief" if name == "chief" else name
