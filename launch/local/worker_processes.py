"""The workers as processes: where each listens, what each is told of the others, and how all of one are ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Collection, Mapping, Sequence

LOOPBACK = "127.0.0.1"


def free_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Ports of the loopback interface that nobody listens on at this moment.

    Args:
      count: how many.
      taken: ports that are not to be among them.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as held:  # All are held until all are found, so that none comes twice.
        while len(ports) < count:
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind((LOOPBACK, 0))
            port = listener.getsockname()[1]
            if port not in taken:
                ports.append(port)
    return ports


def worker_environment(base: Mapping[str, str], ports: Sequence[int], index: int) -> dict[str, str]:
    """The environment variables of a worker.

    Args:
      base: the launcher's own.
      ports: where the workers listen, in their order.
      index: which of them this is.

    Returns:
      `base` with TF_CONFIG; without CLUSTER_SPEC, Vertex's way to say the same; with output that is not held back,
      with no proxy between the workers, and with this worker's part of the cores.
    """
    environment = {name: value for name, value in base.items() if name != "CLUSTER_SPEC"}
    environment["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"{LOOPBACK}:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
    )
    environment["PYTHONUNBUFFERED"] = "1"
    # TensorFlow takes a thread for each core, and so would every worker: they would spend their time waiting for cores.
    environment.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 1) // len(ports))))
    # gRPC, through which the workers talk, sends even loopback connections to a proxy that is not told otherwise.
    excepted = base.get("no_proxy") or base.get("NO_PROXY") or ""
    environment["no_proxy"] = ",".join(filter(None, [excepted, "localhost", LOOPBACK]))
    if base.get("no_grpc_proxy"):  # It comes before no_proxy.
        environment["no_grpc_proxy"] = f"{base['no_grpc_proxy']},localhost,{LOOPBACK}"
    return environment


class WorkerProcess:
    """One worker and all processes that it starts: a session, which signals reach as a whole."""

    def __init__(self, index: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts it. It reads nothing; what it prints is to be read from `process.stdout` and `process.stderr`.

        Raises:
          OSError: the system refuses.
        """
        self.index = index
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        self.code: int | None = None
        """The exit code, negative for a signal; None while it runs."""

    @property
    def name(self) -> str:
        """What it is called in all that is printed."""
        return f"worker {self.index}"

    def ended(self) -> bool:
        """Whether it has ended since the last call; then what it left running is killed."""
        if self.code is not None or self.process.poll() is None:
            return False
        self._signal_all(signal.SIGKILL)
        self.code = self.process.returncode
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all its processes, if it runs."""
        if self.code is None:
            self._signal_all(number)

    def _signal_all(self, number: signal.Signals) -> None:
        # None is left, or, on macOS, only such as have ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def how_it_ended(code: int) -> str:
    """A verb and what goes with it, as in "was killed by SIGKILL" and "ended with exit code 1".

    Args:
      code: as Python has it, negative for a signal.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # A real-time signal has no name.
        return f"was killed by signal {-code}"


def shell_exit_code(code: int) -> int:
    """A process's exit code as a shell tells it: 128 + N for signal N."""
    return code if code >= 0 else 128 - code
