"""How a TPU is reached, as far as that goes without one: what each wrong way says, and the order of the right one."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from typing import Any, NamedTuple

import pytest
import tensorflow as tf
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from trainer import tpu
from trainer.errors import UserError
from trainer.tpu import TpuCalls, connect_tpu

pytestmark = pytest.mark.strategies

ordinary_wheel = pytest.mark.skipif(
    any(each.name == "tensorflow-tpu" for each in metadata.distributions()), reason="this TensorFlow can use TPUs"
)


class Device(NamedTuple):
    name: str
    device_type: str
    memory_limit: int


class StandIn(tf.distribute.cluster_resolver.ClusterResolver):
    """Says that there are TPU servers, and TPU cores on each of them."""

    def __init__(self, servers: list[str], cores: int = 4) -> None:
        self.servers = servers
        self.cores = cores
        self.task_type = None
        self.task_id = None

    def cluster_spec(self) -> tf.train.ClusterSpec:
        return tf.train.ClusterSpec({"worker": self.servers} if self.servers else {})

    def get_tpu_system_metadata(self) -> TPUSystemMetadata:
        hosts = [f"/job:worker/replica:0/task:{i}" for i in range(len(self.servers))] or [
            "/job:localhost/replica:0/task:0"
        ]
        devices = [Device(f"{host}/device:TPU:{i}", "TPU", 0) for host in hosts for i in range(self.cores)]
        return TPUSystemMetadata(len(devices), len(hosts), self.cores, None, devices)

    def master(self, *arguments: Any, **options: Any) -> str:
        return ""

    def num_accelerators(self, *arguments: Any, **options: Any) -> dict[str, int]:
        return {"TPU": self.cores}

    @property
    def environment(self) -> str:
        return ""


class Recorder:
    """TensorFlow's calls, recorded in order; each may be made to fail."""

    def __init__(self, servers: tuple[str, ...] = (), *, supported: bool = True, **failures: Exception) -> None:
        self.made: list[tuple[str, Any]] = []
        self.resolver = StandIn(list(servers))
        self.supported = supported
        self.failures = failures

    def calls(self) -> TpuCalls:
        return TpuCalls(
            supported=lambda: self.supported,
            resolve=self._call("resolve", lambda argument: self.resolver),
            connect=self._call("connect", lambda argument: None),
            initialize=self._call("initialize", lambda argument: None),
            build=self._call("build", tf.distribute.TPUStrategy),
        )

    def _call(self, name: str, result: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(argument: Any) -> Any:
            self.made.append((name, argument))
            if name in self.failures:
                raise self.failures[name]
            return result(argument)

        return call


def problem(name: str, recorder: Recorder | None = None) -> str:
    """The sentence for `--tpu=NAME`, which must come within seconds."""
    begun = time.monotonic()
    with pytest.raises(UserError) as raised:
        connect_tpu(name, recorder.calls() if recorder else None, {})
    assert time.monotonic() - begun < 10
    sentence = str(raised.value)
    assert sentence.startswith(f"--tpu={name}") and sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.fixture
def grpc_servers() -> Iterator[tuple[str, ...]]:
    """Addresses of two real gRPC servers."""
    grpc = pytest.importorskip("grpc")
    servers = [grpc.server(ThreadPoolExecutor(1)) for _ in range(2)]
    ports = [server.add_insecure_port("127.0.0.1:0") for server in servers]
    for server in servers:
        server.start()
    yield tuple(f"127.0.0.1:{port}" for port in ports)
    for server in servers:
        server.stop(None).wait(5)


def test_the_tpu_of_this_machine_is_started_and_every_core_is_a_replica() -> None:
    recorder = Recorder()
    strategy = connect_tpu("local", recorder.calls(), {})
    assert recorder.made == [
        ("resolve", "local"),
        ("initialize", recorder.resolver),
        ("build", recorder.resolver),
    ]
    assert isinstance(strategy, tf.distribute.TPUStrategy)
    assert strategy.num_replicas_in_sync == 4


@pytest.mark.parametrize("supported", [True, False])
def test_a_slice_is_connected_to_before_it_is_started_and_needs_no_tpu_support_here(
    grpc_servers: tuple[str, ...], supported: bool
) -> None:
    recorder = Recorder(grpc_servers, supported=supported)
    environment = {"https_proxy": "http://proxy:3128"}
    strategy = connect_tpu("my-slice", recorder.calls(), environment)
    assert [name for name, _ in recorder.made] == ["resolve", "connect", "initialize", "build"]
    assert recorder.made[0] == ("resolve", "my-slice")
    assert strategy.num_replicas_in_sync == 8
    assert strategy.extended.num_hosts == 2
    assert environment["no_grpc_proxy"] == "127.0.0.1"


def test_a_slice_is_reached_by_the_addresses_of_all_its_hosts(grpc_servers: tuple[str, ...]) -> None:
    recorder = Recorder(grpc_servers)
    address = f"grpc://{','.join(grpc_servers)}"
    assert connect_tpu(address, recorder.calls(), {}).num_replicas_in_sync == 8
    assert recorder.made[0] == ("resolve", address)


def test_a_server_is_reached_by_its_address(grpc_servers: tuple[str, ...]) -> None:
    recorder = Recorder(grpc_servers[:1])
    assert connect_tpu(f"grpc://{grpc_servers[0]}", recorder.calls(), {}).num_replicas_in_sync == 4
    assert recorder.made[0] == ("resolve", f"grpc://{grpc_servers[0]}")
    assert recorder.made[1][0] == "connect"


def test_tensorflow_resolves_an_address_to_itself() -> None:
    resolver = TpuCalls().resolve("grpc://10.0.0.2:8470")
    assert resolver.cluster_spec().as_dict() == {"worker": ["10.0.0.2:8470"]}
    assert not TpuCalls().resolve("local").cluster_spec()


@ordinary_wheel
def test_the_ordinary_tensorflow_has_no_tpu_support() -> None:
    assert problem("local").startswith(f"--tpu=local: this TensorFlow ({tf.__version__}) has no TPU support. ")


def test_the_kernels_that_are_asked_for_are_looked_up_by_name() -> None:
    # Were the operation renamed, support would be denied everywhere; its definition is in every wheel.
    from tensorflow.python.framework import op_def_registry

    assert op_def_registry.get("_ConfigureDistributedTPU") is not None


@ordinary_wheel
def test_what_tensorflow_raises_without_a_tpu_becomes_a_sentence() -> None:
    recorder = Recorder()
    calls = TpuCalls(supported=lambda: True, build=recorder.calls().build)
    with pytest.raises(UserError, match=r"^--tpu=local has no TPU that starts \(TPUs not found in the cluster\..+\): "):
        connect_tpu("local", calls, {})
    assert recorder.made == []


@pytest.mark.parametrize(
    "error, gist",
    [
        (
            tf.errors.InternalError(
                None,
                None,
                "Graph execution error:\n\nDetected at node x defined at (most recent call last):\n"
                "<stack traces unavailable>\n{{function_node y}} RET_CHECK failure (a.cc:433) *platform\n"
                "\t [[{{node x}}]]",
            ),
            "RET_CHECK failure (a.cc:433) *platform",
        ),
        (tf.errors.NotFoundError(None, None, "TPUs not found. [Op:__inference_4]"), "TPUs not found"),
    ],
)
def test_a_tpu_that_does_not_start_is_said(error: Exception, gist: str) -> None:
    sentence = problem("local", Recorder(initialize=error))
    assert sentence == (
        f"--tpu=local has no TPU that starts ({gist}): run this on a TPU VM, and let no other process use its TPU."
    )


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        connect_tpu("local", Recorder(initialize=ZeroDivisionError()).calls(), {})


@pytest.mark.parametrize("failing, words", [("connect", "cannot be connected to"), ("initialize", "has no TPU that")])
def test_a_server_without_a_tpu_is_said(grpc_servers: tuple[str, ...], failing: str, words: str) -> None:
    failure = tf.errors.UnavailableError(None, None, "gone away")
    recorder = Recorder(grpc_servers[:1], **{failing: failure})
    sentence = problem(f"grpc://{grpc_servers[0]}", recorder)
    assert words in sentence and "(gone away): " in sentence
    assert recorder.made[-1][0] == failing


@pytest.mark.parametrize(
    "name",
    [
        "10.0.0.2:8470",
        "grpc://10.0.0.2",
        "grpc://10.0.0.2:",
        "grpc://10.0.0.2:0",
        "grpc://10.0.0.2:99999",
        "grpc://[::1]:8470",
        "grpc://a:8470,b",
        "grpc://a:8470,",
        "grpc://a:8470,grpc://b:8470",
        "grpc://a..b:8470",
        "http://10.0.0.2:8470",
        "grpc:10.0.0.2:8470",
        "projects/p/locations/z/nodes/n",
    ],
)
def test_an_address_must_be_grpc_host_and_port(name: str) -> None:
    recorder = Recorder()
    assert "must be grpc://HOST:PORT, as in grpc://10.0.0.2:8470" in problem(name, recorder)
    assert recorder.made == []


@pytest.mark.parametrize("name", ["Local", "my tpu", "my_tpu", "8-tpus", "tpu-", "ä"])
def test_a_name_has_only_certain_letters(name: str) -> None:
    recorder = Recorder()
    assert "must be local, grpc://HOST:PORT, or the name of a Cloud TPU" in problem(name, recorder)
    assert recorder.made == []


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_at_the_address() -> None:
    address = free_address()
    recorder = Recorder((address,))
    assert f"no TPU server answers at {address} (Connection refused): " in problem(f"grpc://{address}", recorder)
    assert [name for name, _ in recorder.made] == ["resolve"]


def test_the_one_silent_host_of_a_slice_is_named(
    grpc_servers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpu, "_ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        recorder = Recorder((*grpc_servers, address))
        assert f"no TPU server answers at {address} (timed out): " in problem("my-slice", recorder)
    assert [name for name, _ in recorder.made] == ["resolve"]


class Metadata(BaseHTTPRequestHandler):
    """What a Google Cloud machine's metadata server says, on loopback."""

    def do_GET(self) -> None:
        answers = {"project/project-id": "p", "instance/zone": "projects/1/zones/us-central1-a"}
        answer = answers.get(self.path.removeprefix("/computeMetadata/v1/"))
        self.send_response(200 if answer else 404)
        self.end_headers()
        self.wfile.write((answer or "").encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def http_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


def test_another_program_at_the_address(http_server: str) -> None:
    sentence = problem(f"grpc://{http_server}", Recorder((http_server,)))
    assert f"no TPU server answers at {http_server} (another program listens there): " in sentence


def without_proxy(monkeypatch: pytest.MonkeyPatch, metadata: str) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", metadata)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_name_away_from_google_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch, free_address())
    assert "cannot be looked up (Connection refused): names are known only to Google Cloud" in problem("my-tpu")


def test_a_metadata_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu, "_LOOKUP_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        without_proxy(monkeypatch, f"127.0.0.1:{silent.getsockname()[1]}")
        assert "cannot be looked up (no answer within 0.3 s): " in problem("my-tpu")


@pytest.mark.skipif(bool(importlib.util.find_spec("googleapiclient")), reason="the package is installed")
def test_a_name_without_the_package_that_looks_it_up(http_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch, http_server)
    assert "takes one more package: pip install cloud-tpu-client, or give grpc://HOST:PORT." in problem("my-tpu")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Could not lookup TPU metadata from name 'my-tpu'. Please doublecheck."),
        RuntimeError('TPU "my-tpu" is not yet ready; state: "CREATING"'),
        Exception("The Application Default Credentials are not available."),
    ],
)
def test_a_name_that_the_api_does_not_give(error: Exception) -> None:
    sentence = problem("my-tpu", Recorder(resolve=error))
    assert f"cannot be looked up ({str(error).rstrip('.')}): give the name of a TPU in this machine's" in sentence
