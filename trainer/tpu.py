"""How a TPU is reached: `--tpu=local`, `--tpu=NAME` or `--tpu=grpc://HOST:PORT,HOST:PORT,...`.

What TensorFlow and Cloud TPU document, as of 2026-11; none of it was ever run on a TPU by us:

  local   The chips of this machine, a TPU VM with one host. TensorFlow must be the distribution with TPU support
          (`tensorflow-tpu`), and one process at a time has the chips.
  grpc    TPU servers by their addresses: of a slice of several hosts, all of them in the order of the hosts' numbers.
          One process, on the slice's worker 0, drives them; it must be started with TPU_LOAD_LIBRARY=0, so that
          TensorFlow leaves the chips to the server of its own host. There, `local` would be the wrong choice: a host of
          a slice cannot start without the others. `python -m trainer.tpu_server` is such a server; `launch` starts one
          on every host (`launch.services.tpu_startup`). Cloud TPUs listen on port 8470.
  NAME    The same, where runtime versions that end in `-pod` start the servers. The name is looked up by the Cloud TPU
          API from a machine in the TPU's project and zone, with the package cloud-tpu-client.

The client of a remote TPU needs no TPU support of its own: the ordinary 2.20 and 2.21 wheels got as far as the (absent)
chips of a server of tensorflow-tpu 2.20.0 (2026-11).
"""

from __future__ import annotations

import os
import queue
import re
import socket
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.framework import kernels

from trainer.errors import UserError
from trainer.topology import HOST_PATTERN, bypass_proxy, split_address
from trainer.tpu_server import DEFAULT_PORT

LOCAL = "local"

_LOOKUP_SECONDS = 20.0
"""How long a name may take to be looked up: TensorFlow's own requests wait without end."""

_ANSWER_SECONDS = 5.0
"""How long a TPU server may take to answer: connecting to one that does not, TensorFlow waits without end (2.21)."""

_T = TypeVar("_T")


def has_tpu_support() -> bool:
    """Whether this TensorFlow can use the TPU of its own machine.

    The ordinary wheels of 2.20 and 2.21 know the TPU's operations but have no kernel for any; the one that starts a
    TPU is in tensorflow-tpu 2.20.0, whether or not a TPU is there (2026-11).
    """
    return bool(kernels.get_registered_kernels_for_op("_ConfigureDistributedTPU").kernel)


@dataclass(frozen=True)
class TpuCalls:
    """What TensorFlow does on the way to a strategy. Tests put something in its place that needs no TPU.

    Attributes:
      supported: whether a TPU of this machine can be used.
      resolve: finds out where the TPU of a name, of an address or of this machine is.
      connect: makes the devices of other machines ours.
      initialize: starts the TPU's chips.
      build: makes the strategy.
    """

    supported: Callable[[], bool] = has_tpu_support
    resolve: Callable[[str], Any] = tf.distribute.cluster_resolver.TPUClusterResolver
    connect: Callable[[Any], Any] = tf.config.experimental_connect_to_cluster
    initialize: Callable[[Any], Any] = tf.tpu.experimental.initialize_tpu_system
    build: Callable[[Any], tf.distribute.TPUStrategy] = tf.distribute.TPUStrategy


def connect_tpu(
    tpu: str, calls: TpuCalls | None = None, environment: MutableMapping[str, str] = os.environ
) -> tf.distribute.TPUStrategy:
    """Gets hold of every core of a TPU.

    Args:
      tpu: `--tpu`: "local", a name, or "grpc://HOST:PORT", with commas between several HOST:PORT.
      calls: TensorFlow's, by default.
      environment: of this process.

    Raises:
      UserError: `tpu` is none of these, is not to be found, does not answer, has no TPU, or this TensorFlow cannot use
        it. Apart from the start of the chips themselves, this takes seconds.
    """
    calls = calls or TpuCalls()
    if tpu == LOCAL:
        if not calls.supported():
            raise UserError(
                f"--tpu=local: this TensorFlow ({tf.__version__}) has no TPU support. On a TPU VM, install as the "
                "README says (TRAINER_TENSORFLOW=tpu pip install .); anywhere else, take another --strategy."
            )
        resolver = calls.resolve(tpu)
        missing = "run this on a TPU VM, and let no other process use its TPU"
    else:
        resolver = _find(tpu, calls)
        _require_servers(tpu, resolver, environment)
        _raising_user_error(tpu, "cannot be connected to", "see whether it is healthy", lambda: calls.connect(resolver))
        missing = "give the server of a TPU, and see whether it is healthy and no other process uses it"
    _raising_user_error(tpu, "has no TPU that starts", missing, lambda: calls.initialize(resolver))
    return calls.build(resolver)


def _find(tpu: str, calls: TpuCalls) -> Any:
    """The resolver of a remote TPU, which knows its servers."""
    if "/" in tpu or ":" in tpu:
        scheme, _, addresses = tpu.partition("//")
        ports = [re.fullmatch(rf"{HOST_PATTERN}:([0-9]{{1,5}})", address) for address in addresses.split(",")]
        if scheme != "grpc:" or not all(port and 1 <= int(port[1]) <= 65535 for port in ports):
            raise UserError(
                f"--tpu={tpu}: an address must be grpc://HOST:PORT, as in grpc://10.0.0.2:{DEFAULT_PORT}, with a name "
                "or an IPv4 address; more of them follow after commas, as HOST:PORT."
            )
        return calls.resolve(tpu)
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", tpu):
        raise UserError(
            f"--tpu={tpu}: must be local, grpc://HOST:PORT, or the name of a Cloud TPU, which has lower-case letters, "
            "digits and hyphens only."
        )
    try:
        return _within(_LOOKUP_SECONDS, lambda: _looked_up(tpu, calls))
    except OSError as error:
        raise UserError(
            f"--tpu={tpu} cannot be looked up ({_gist(error)}): names are known only to Google Cloud machines in the "
            "TPU's project and zone. Anywhere else give grpc://HOST:PORT."
        ) from error
    except Exception as error:  # Of Google's client packages, which have no common base.
        if "cloud-tpu-client" in str(error) or isinstance(error, ImportError):
            raise UserError(
                f"--tpu={tpu}: looking up a name takes one more package: pip install cloud-tpu-client, or give "
                "grpc://HOST:PORT."
            ) from error
        raise UserError(
            f"--tpu={tpu} cannot be looked up ({_gist(error)}): give the name of a TPU in this machine's project and "
            "zone that is ready, as `gcloud compute tpus tpu-vm list` shows it."
        ) from error


def _looked_up(tpu: str, calls: TpuCalls) -> Any:
    """A resolver whose cluster is known to be found."""
    resolver = calls.resolve(tpu)
    resolver.cluster_spec()
    return resolver


def _require_servers(tpu: str, resolver: Any, environment: MutableMapping[str, str]) -> None:
    """Makes sure that every host's TPU server answers, and that TensorFlow will not look for it through a proxy."""
    addresses = [address for tasks in resolver.cluster_spec().as_dict().values() for address in tasks]
    for address in addresses:
        problem = _server_problem(*split_address(address))
        if problem:
            raise UserError(
                f"--tpu={tpu}: no TPU server answers at {address} ({problem}): see whether it runs and whether a "
                "firewall lets this machine through."
            )
    bypass_proxy([split_address(address)[0] for address in addresses], environment)


def _server_problem(host: str, port: int) -> str:
    """Why this cannot be a TPU server, or ""."""
    try:
        answers = _within(2 * _ANSWER_SECONDS, lambda: _speaks_http2(host, port))
    except OSError as error:
        return _gist(error)
    return "" if answers else "another program listens there"


def _speaks_http2(host: str, port: int) -> bool:
    """Whether a server begins as every gRPC server does: by settings, in the frame of HTTP/2 (RFC 9113) for them."""
    empty_settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with socket.create_connection((host, port), _ANSWER_SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
        header = b""
        while len(header) < 4 and (more := connection.recv(64)):
            header += more
    return header[3:4] == bytes([4])  # The frame's type; its length comes before.


def _raising_user_error(tpu: str, problem: str, way_out: str, call: Callable[[], object]) -> None:
    try:
        call()
    except tf.errors.OpError as error:
        raise UserError(f"--tpu={tpu} {problem} ({_gist(error)}): {way_out}.") from error


def _within(seconds: float, function: Callable[[], _T]) -> _T:
    """The function's result; TimeoutError where it takes longer. It then goes on in a thread that holds nobody up."""
    outcome: queue.SimpleQueue[tuple[_T | None, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error:
        raise error
    return value  # type: ignore[return-value]


def _gist(error: BaseException) -> str:
    """What an error says, without where TensorFlow's graph met it."""
    reason = getattr(error, "reason", None)  # Of urllib's errors.
    if isinstance(reason, BaseException):
        return _gist(reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    noise = ("Graph execution error", "Detected at", "<stack", "[[")
    lines = [re.sub(r"{{.*?}} | \[Op:.*?]", "", line).strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(noise)]
    return said[0][:200].rstrip(".") if said else type(error).__name__
