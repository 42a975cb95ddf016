"""The server of a TPU host as far as it goes without a TPU: its checks, and a cluster of two for the CPU."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from launch.local.worker_processes import free_ports
from trainer import tpu_server
from trainer.errors import EXIT_DONE, EXIT_USER, UserError

SECONDS = 60

SERVER = """
import sys
from trainer import tpu_server
from trainer.startup import import_tensorflow_quietly
tpu_server.hold_signals()
import_tensorflow_quietly()
tpu_server.serve(int(sys.argv[1]))
"""

CLIENT = """
import sys
from trainer.startup import import_tensorflow_quietly
import_tensorflow_quietly()
import tensorflow as tf
resolver = tf.distribute.cluster_resolver.TPUClusterResolver(sys.argv[1])
tf.config.experimental_connect_to_cluster(resolver)
for task in range(int(sys.argv[2])):
    with tf.device(f"/job:worker/task:{task}/device:CPU:0"):
        product = tf.constant(2.0) * 3
        print(product.device, float(product))
"""


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


@pytest.mark.parametrize("hosts", [1, pytest.param(2, marks=pytest.mark.long)])
def test_servers_and_a_client_become_one_cluster_and_end_on_sigterm(hosts: int) -> None:
    ports = free_ports(hosts)
    with ExitStack() as held:
        servers = [held.enter_context(started(SERVER, str(port))) for port in ports]
        for server, port in zip(servers, ports):
            assert server.stdout and server.stdout.readline().endswith(f"at port {port}\n")
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        client = held.enter_context(started(CLIENT, f"grpc://{addresses}", str(hosts)))
        said, _ = client.communicate(timeout=SECONDS)
        assert said.splitlines() == [f"/job:worker/replica:0/task:{task}/device:CPU:0 6.0" for task in range(hosts)]
        for server in servers:
            server.terminate()
            assert server.wait(timeout=SECONDS) == EXIT_DONE


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} cannot be listened on .Address already in use.: end the"):
            tpu_server.check_port(port)
    tpu_server.check_port(port)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_is_a_number_that_ports_have(port: int) -> None:
    with pytest.raises(UserError, match=f"--port={port}: must be a number from 1 to 65535"):
        tpu_server.check_port(port)


def test_without_tpu_support_it_does_not_begin() -> None:
    with pytest.raises(UserError, match="has no TPU support: take the image's target tpu"):
        tpu_server.require_tpu_support(lambda: False)


def test_the_program_says_what_is_wrong_with_its_command_line() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "trainer.tpu_server", "8470"], capture_output=True, text=True, timeout=SECONDS
    )
    assert process.returncode == EXIT_USER
    assert process.stderr == "error: 8470 is not a flag: give --port=NUMBER alone.\n"
