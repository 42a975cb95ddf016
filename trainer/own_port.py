"""A worker's own port, held before TensorFlow takes it. No TensorFlow.

TensorFlow's server shares its port silently with whoever has it already (gRPC sets SO_REUSEPORT), and with an address
that leads to another machine it waits for workers that look elsewhere. Both are found out here.
"""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import time
from contextlib import suppress

from trainer.errors import UserError
from trainer.topology import split_address

_NAME_SECONDS = 10.0
"""How long a name that does not resolve is asked for again: a cluster may publish it when its machine already runs."""

_WAY_BACK_SECONDS = 3.0
"""How long a connection to oneself may take."""


def hold_own_port(address: str, name: str, *, timeout: float) -> socket.socket:
    """Listens on a worker's own port: on loopback alone where the address says so, otherwise on all interfaces.

    Args:
      address: "host:port" of this worker.
      name: what it is called in errors, "the chief" or "worker 1".
      timeout: seconds; where it is short, an unknown host is given up sooner.

    Returns:
      The listening socket. Close it before TensorFlow starts.

    Raises:
      UserError: the port is taken, the host does not resolve, or leads to another machine.
    """
    host, port = split_address(address)
    family, own = _resolve(host, address, name, min(timeout, _NAME_SECONDS))
    everywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    if _means_loopback(host):
        # Nobody may have the port on any interface: TensorFlow will want it on all of them.
        _take(family, (everywhere, port), address, name, listen=False).close()
        return _take(family, (own[0], port, *own[2:]), address, name)
    listener = _take(family, (everywhere, port), address, name)
    try:
        if not _is_interface(family, own) and not _leads_here(listener, family, own):
            raise UserError(
                f"{address} leads to another machine than this one, which is to be {name}: start each worker where "
                "its address is, or correct the address in TF_CONFIG."
            )
    except BaseException:
        listener.close()
        raise
    return listener


def _means_loopback(host: str) -> bool:
    """Whether a host is loopback on every machine.

    Its own name often is on a machine itself (Debian gives it 127.0.1.1), and must be reached from the others.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _resolve(host: str, address: str, name: str, patience: float) -> tuple[socket.AddressFamily, tuple]:
    """Address family of a host, and its address as `bind` and `connect` take it."""
    _, port = split_address(address)
    deadline = time.monotonic() + patience
    while True:
        try:
            family, _, _, _, own = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return family, own
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{host}, the host of {name}, does not resolve ({error.strerror}): correct {address} in "
                    "TF_CONFIG, or give the host's IP address."
                ) from None
            time.sleep(min(1.0, patience))


def _take(family: socket.AddressFamily, where: tuple, address: str, name: str, *, listen: bool = True) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier run that have not quite ended are no obstacle; a listening program is.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        if listen:
            listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            problem = "is in use on this machine: end the program that has it, or give another port in TF_CONFIG"
        else:
            problem = f"cannot be used ({error.strerror}): give another port in TF_CONFIG"
        raise UserError(f"{address}, the port of {name}, {problem}.") from None
    return listener


def _is_interface(family: socket.AddressFamily, own: tuple) -> bool:
    """Whether a network interface of this machine has the address."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((own[0], 0, *own[2:]))
        except OSError:
            return False
    return True


def _leads_here(listener: socket.socket, family: socket.AddressFamily, own: tuple) -> bool:
    """Whether who connects to the address reaches this process, as through the ports that a container publishes."""
    secret = secrets.token_bytes(16)
    deadline = time.monotonic() + _WAY_BACK_SECONDS
    with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(_WAY_BACK_SECONDS)
        caller.connect(own)
        caller.sendall(secret)
        while (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            connection, _ = listener.accept()
            with suppress(OSError), connection:  # Another worker may have come first; it will try again.
                connection.settimeout(min(left, 1.0))
                if connection.recv(len(secret)) == secret:
                    return True
    return False
