"""Who holds a run directory, and whether that process still lives. No TensorFlow."""

from __future__ import annotations

import enum
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

HEARTBEAT_SECONDS = 10.0
"""How often a holder shows itself."""

LATE_SECONDS = 25.0
"""A holder that has been silent for so long has missed two heartbeats: it is probably dead."""

DEAD_SECONDS = 60.0
"""A holder that has been silent for so long has stopped by itself (`trainer.lease.LOST_SECONDS`), or is dead."""


class Verdict(enum.Enum):
    """What becomes of a lease that somebody has."""

    HELD = "its holder lives"
    LATE = "its holder is silent, but not for long enough"
    DEAD = "its holder is dead"


@dataclass(frozen=True)
class Holder:
    """Who has a run directory, as it stands in the lease.

    Attributes:
      host: the machine's name.
      pid: the process.
      since: when it took the directory, ISO 8601 in UTC.
      boot: another text for each machine and each time that it started; "" where the system does not tell.
      pid_namespace: in which `pid` counts: containers of one machine have their own; "" where the system does not tell.
      started: when the process started, in clock ticks since `boot`; 0 where the system does not tell.
      token: another text for each lease.
    """

    host: str
    pid: int
    since: str
    boot: str
    pid_namespace: str
    started: int
    token: str

    @classmethod
    def this_process(cls, now: float) -> Holder:
        """This process, from now (seconds since 1970)."""
        since = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds")
        pid = os.getpid()
        started = _start_of(pid) or 0
        return cls(socket.gethostname(), pid, since, _boot(), _pid_namespace(), started, secrets.token_hex(8))

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Reads what `to_json` wrote, whatever follows the first line; None if it was not that."""
        try:
            holder = cls(**json.loads(content.partition(b"\n")[0]))
        except (ValueError, TypeError, RecursionError):
            return None
        kinds = (str, int, str, str, str, int, str)
        right = all(type(value) is kind for value, kind in zip(asdict(holder).values(), kinds))
        return holder if right and 0 < holder.pid < 2**31 else None

    def to_json(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def __str__(self) -> str:
        since = self.since.replace("T", " ").replace("+00:00", " UTC")
        return f"process {self.pid} on {self.host} since {since}"

    def shares_machine(self, other: Holder) -> bool:
        """Whether both are, or were, on one machine that has not restarted in between."""
        return self.boot == other.boot if self.boot or other.boot else self.host == other.host


def judge(holder: Holder, silent_seconds: float, me: Holder) -> Verdict:
    """Whether a holder lives.

    Args:
      holder: the other process.
      silent_seconds: since it has shown itself.
      me: this process, which can look for those of its machine itself.
    """
    if holder.boot and (holder.boot, holder.pid_namespace) == (me.boot, me.pid_namespace):
        lives = _lives(holder)
        if lives is not None:
            return Verdict.HELD if lives else Verdict.DEAD
    if silent_seconds >= DEAD_SECONDS:
        return Verdict.DEAD
    return Verdict.LATE if silent_seconds >= LATE_SECONDS else Verdict.HELD


def _lives(holder: Holder) -> bool | None:
    """Whether a process of this machine is still there, and not another one of its number; None: it cannot be told."""
    started = _start_of(holder.pid)
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It is another user's, and Linux may hide more of it (hidepid of proc(5)).
        pass
    if started is None or not holder.started:
        return None
    return started == holder.started


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; 0 if it has ended already; None where Linux does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; after it come fields 3 (state) and following of proc(5).
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
