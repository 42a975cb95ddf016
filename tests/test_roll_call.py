"""The workers meet on their own ports: all go, or all say the same. Each worker is a thread here."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, TextIO

import pytest

from trainer import own_port, roll_call
from trainer.config import Config
from trainer.errors import UserError
from trainer.own_port import hold_own_port
from trainer.roll_call import meet
from trainer.roll_call_messages import LONGEST, Greeting
from trainer.topology import Topology, split_address
from trainer.worker_differences import PER_MACHINE_FIELDS, config_differences, version_differences

RUN_DIR = "gs://bucket/run"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def addresses(count: int, host: str = "127.0.0.1") -> tuple[str, ...]:
    """Addresses with ports that were free a moment ago."""
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    probes = [socket.socket(family, socket.SOCK_STREAM) for _ in range(count)]
    for probe in probes:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return tuple(f"{host}:{port}" for port in ports)


def topologies(workers: tuple[str, ...], *, has_chief_type: bool = False) -> list[Topology]:
    return [Topology(workers, "worker" if i else "chief", i, has_chief_type) for i in range(len(workers))]


class Meeting:
    """Workers in threads."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(16)
        self.notes: list[list[str]] = []

    def send(self, topology: Topology, timeout: float = 10.0, **options: Any) -> Future[Config]:
        notes: list[str] = []
        self.notes.append(notes)
        versions = options.pop("versions", None)
        options.setdefault("run_dir", RUN_DIR if topology.is_chief else "")
        config = Config(**options)
        return self.pool.submit(meet, topology, config, timeout=timeout, announce=notes.append, versions=versions)


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Meeting]:
    monkeypatch.setattr(roll_call, "_RETRY_SECONDS", 0.05)
    meeting = Meeting()
    yield meeting
    meeting.pool.shutdown()
    assert caplog.get_records("call") == []


def sentence(worker: Future[Config]) -> str:
    with pytest.raises(UserError) as raised:
        worker.result(30)
    return str(raised.value)


def call(address: str) -> socket.socket:
    """A connection to a chief that may not listen yet."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(split_address(address), 5)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def greet(connection: socket.socket, greeting: Greeting) -> TextIO:
    """Says the greeting and hears the chief's patience; gives what comes after."""
    connection.settimeout(10)
    connection.sendall(json.dumps(greeting.message()).encode() + b"\n")
    heard = connection.makefile()
    assert "patience" in json.loads(heard.readline())
    return heard


def open_sockets() -> set[str]:
    """The sockets that this process has open, where the system tells."""
    folder = "/proc/self/fd"
    links = set()
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with suppress(OSError):  # What listed the folder is closed again.
            links.add(os.readlink(f"{folder}/{name}"))
    return {link for link in links if link.startswith("socket:")}


def free_at_once(address: str) -> None:
    """Raises OSError if the port cannot be bound as gRPC binds it."""
    host, port = split_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("[::1]", marks=needs_ipv6)])
def test_all_go_with_the_chiefs_run_dir_and_their_own_machines_fields(meeting: Meeting, host: str) -> None:
    workers = addresses(3, host)
    open_before = open_sockets()
    first, *others = topologies(workers)
    late = [meeting.send(others[1], data="folder:/here", hub_mirror="https://mirror", worker_timeout=7)]
    time.sleep(0.2)  # The chief comes after a worker, which tries again.
    chief = meeting.send(first, data="folder:/there")
    late.append(meeting.send(others[0], data="folder:/elsewhere", run_dir=RUN_DIR, repair_hub_cache=True))
    config = chief.result(30)
    third, second = (worker.result(30) for worker in late)
    for address in workers:
        free_at_once(address)
    assert open_sockets() <= open_before
    assert [each.run_dir for each in (config, second, third)] == [RUN_DIR] * 3
    assert [each.data for each in (config, second, third)] == ["folder:/there", "folder:/elsewhere", "folder:/here"]
    assert (third.hub_mirror, third.worker_timeout, second.repair_hub_cache) == ("https://mirror", 7, True)
    assert meeting.notes == [[], [], []]


def test_a_field_that_differs_is_said_by_every_worker(meeting: Meeting) -> None:
    chief, second, third = topologies(addresses(3), has_chief_type=True)
    workers = [
        meeting.send(chief, learning_rate=0.01),
        meeting.send(second, learning_rate=0.01),
        meeting.send(third, learning_rate=0.1, classes="a,b"),
    ]
    said = [sentence(worker) for worker in workers]
    assert len(set(said)) == 1
    assert said[0] == (
        "--classes is a,b on worker 1 and empty on the chief; --learning_rate is 0.1 on worker 1 and 0.01 on the "
        "chief: give all workers the same flags."
    )
    for address in chief.workers:
        free_at_once(address)


def test_only_the_fields_of_a_machine_may_differ() -> None:
    chief = Config(data="folder:/there", run_dir=RUN_DIR).model_dump(mode="json")
    reported = {
        name
        for name in chief
        if config_differences(chief, {**chief, name: "folder:/here" if name == "data" else "other"}, "worker 1")
    }
    assert reported == set(chief) - PER_MACHINE_FIELDS - {"data"}
    assert set(chief) >= PER_MACHINE_FIELDS
    assert config_differences(chief, {**chief, "run_dir": "", "data": "folder:/here"}, "worker 1") == []


def test_a_folder_on_one_worker_and_digits_on_another_differ() -> None:
    chief = Config(data="folder:/there").model_dump(mode="json")
    worker = Config(data="digits").model_dump(mode="json")
    assert config_differences(chief, worker, "worker 1") == [
        "--data is digits on worker 1 and folder:/there on the chief"
    ]


@pytest.mark.parametrize(
    "theirs, words",
    [
        ({"trainer": "1.0", "tensorflow": "2.21.1"}, None),
        ({"trainer": "1.0", "tensorflow": "2.20.0"}, "worker 1 has tensorflow 2.20.0 and the chief 2.21.0"),
        ({"trainer": "1.1", "tensorflow": "2.21.0"}, "worker 1 has trainer 1.1 and the chief 1.0"),
        ({"trainer": "1.0", "tensorflow": None}, "worker 1 has tensorflow None and the chief 2.21.0"),
    ],
)
def test_versions_must_go_together(theirs: Mapping[str, str | None], words: str | None) -> None:
    found = version_differences({"trainer": "1.0", "tensorflow": "2.21.0"}, theirs, "worker 1")
    assert found == ([words] if words else [])


def test_versions_that_differ_are_said_by_every_worker_before_fields(meeting: Meeting) -> None:
    chief, second = topologies(addresses(2))
    workers = [
        meeting.send(chief, versions={"trainer": "1.0", "tensorflow": "2.21.0"}),
        meeting.send(second, versions={"trainer": "1.0", "tensorflow": "2.20.0"}, seed=1),
    ]
    said = {sentence(worker) for worker in workers}
    assert said == {"worker 1 has tensorflow 2.20.0 and the chief 2.21.0: install the same versions on all workers."}


def test_a_run_dir_that_is_not_the_chiefs_is_refused(meeting: Meeting) -> None:
    chief, second = topologies(addresses(2))
    workers = [meeting.send(chief), meeting.send(second, run_dir="gs://bucket/other")]
    assert "--run_dir is gs://bucket/other on worker 1 and gs://bucket/run on the chief" in sentence(workers[0])
    assert sentence(workers[0]) == sentence(workers[1])


def test_who_does_not_come_is_named_to_all_who_are_there(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "_FIRST_NOTE_SECONDS", 0.2)
    monkeypatch.setattr(roll_call, "_NOTE_SECONDS", 0.2)
    chief, _, third, _ = topologies(addresses(4))
    workers = [meeting.send(chief, timeout=1.5), meeting.send(third, timeout=1.5)]
    waiting_for_chief = f"waiting for the chief ({chief.workers[0]}): connection refused"
    said = [sentence(worker) for worker in workers]
    assert said[0] == said[1]
    assert said[0] == (
        f"worker 1 ({chief.workers[1]}) and worker 3 ({chief.workers[3]}) did not come within 1.5 s of "
        "--worker_timeout: start all workers with the same flags, and let them reach the chief at "
        f"{chief.workers[0]}."
    )
    note = f"waiting for worker 1 ({chief.workers[1]}) and worker 3 ({chief.workers[3]})"
    for notes in meeting.notes:
        assert notes.count(note) >= 2 and set(notes) <= {note, waiting_for_chief}


def test_the_first_reminder_comes_after_5_seconds_and_then_one_every_30(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(roll_call, "_now", lambda: now)
    reminder = roll_call._Reminder()
    due = []
    for moment in (104.9, 105.0, 105.1, 134.9, 135.0, 135.1):
        now = moment
        due.append(reminder.due())
    assert due == [False, True, False, False, True, False]
    assert reminder.left() == pytest.approx(29.9)


def test_the_workers_say_that_the_chief_does_not_come(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "_FIRST_NOTE_SECONDS", 0.2)
    _, second, _ = topologies(addresses(3))
    worker = meeting.send(second, timeout=1.0)
    begun = time.monotonic()
    said = sentence(worker)
    assert time.monotonic() - begun < 5
    assert said.startswith(f"The chief ({second.workers[0]}) did not come within 1 s of --worker_timeout (")
    assert "connection refused" in said
    assert meeting.notes == [[f"waiting for the chief ({second.workers[0]}): connection refused"]]


def test_a_worker_waits_as_long_as_the_chief_does(meeting: Meeting) -> None:
    chief, second, third = topologies(addresses(3))
    workers = [meeting.send(chief, timeout=20.0), meeting.send(second, timeout=1.0)]
    time.sleep(1.5)
    workers.append(meeting.send(third, timeout=1.0))
    assert {worker.result(30).run_dir for worker in workers} == {RUN_DIR}


def test_two_workers_of_the_same_index_are_refused_at_once(meeting: Meeting) -> None:
    workers = addresses(4)
    chief, second, _ = topologies(workers[:3])
    # Where two machines mistake themselves for the same one, each has the port; here the second says so by hand.
    first = [meeting.send(chief), meeting.send(second)]
    greeting = Greeting(1, list(workers[:3]), False, {}, {}, "process 7 on another machine", "other")
    with call(workers[0]) as double, greet(double, greeting) as heard:
        answer = json.loads(heard.readline())
    said = [sentence(worker) for worker in first]
    assert said[0] == said[1] == answer["error"]
    assert said[0].startswith("Two processes say that they are worker 1, process ")
    assert " and process " in said[0] and "process 7 on another machine" in said[0]


@pytest.mark.parametrize("change", ["address", "length", "type"])
def test_another_list_of_workers_is_refused_at_once(meeting: Meeting, change: str) -> None:
    workers = addresses(4)
    chief = topologies(workers[:3])[0]
    other = {
        "address": Topology((workers[0], workers[1], workers[3]), "worker", 1, False),
        "length": Topology(workers[:2], "worker", 1, False),
        "type": Topology(workers[:3], "worker", 1, True),
    }[change]
    said = {sentence(worker) for worker in [meeting.send(chief), meeting.send(other)]}
    words = {
        "address": f"has {workers[3]} where the chief has {workers[2]}.",
        "length": f"has nobody where the chief has {workers[2]}.",
        "type": "lists the chief as chief 0, and the chief does not.",
    }[change]
    assert len(said) == 1
    assert re.fullmatch(
        rf"The cluster in TF_CONFIG must be the same on all workers: process \d+ on .+ {re.escape(words)}", said.pop()
    )


def greeting_with(**changes: Any) -> bytes:
    greeting = Greeting(1, ["a:1", "b:1"], False, {}, {}, "p", "t")
    return json.dumps({"roll_call": {**vars(greeting), **changes}}).encode()


STRANGERS = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    b"[1]\n",
    b'{"roll_call": 1}\n',
    b'{"roll_call": {"index": 1}}\n',
    b"[" * 100_000 + b"\n",
    b"x" * (LONGEST + 10),
    greeting_with(),  # The line does not end.
    greeting_with(index=9) + b"\n",
    greeting_with(index="1") + b"\n",
    greeting_with(more=1) + b"\n",
]


@pytest.mark.parametrize("hangs_up", [True, False])
def test_strangers_hold_nobody_up(meeting: Meeting, hangs_up: bool) -> None:
    chief, second = topologies(addresses(2))
    workers = [meeting.send(chief)]
    begun = time.monotonic()
    strangers = [call(chief.workers[0]) for _ in STRANGERS]
    for stranger, words in zip(strangers, STRANGERS):
        with suppress(BrokenPipeError, ConnectionResetError):  # It may have been sent away already.
            stranger.sendall(words)
        if hangs_up:
            stranger.close()
    workers.append(meeting.send(second))
    assert [worker.result(30).run_dir for worker in workers] == [RUN_DIR] * 2
    assert time.monotonic() - begun < 9  # A silent one would be listened to for 10.
    free_at_once(chief.workers[0])
    for stranger in strangers:
        stranger.close()
    gc.collect()  # asyncio logs what went wrong with a connection once it is forgotten; the fixture looks for that.


def test_a_silent_stranger_is_sent_away(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "_GREETING_SECONDS", 0.3)
    chief, _ = topologies(addresses(2))
    worker = meeting.send(chief, timeout=2.0)
    with call(chief.workers[0]) as stranger:
        stranger.settimeout(1.5)
        assert stranger.recv(1) == b""  # Long before the roll call ends.
    assert "worker 1" in sentence(worker)


def test_a_worker_that_leaves_may_come_back(meeting: Meeting) -> None:
    chief, second, third = topologies(addresses(3))
    workers = [meeting.send(chief)]
    greeting = Greeting(1, list(chief.workers), False, Config(seed=5).model_dump(mode="json"), {}, "p", "first")
    with call(chief.workers[0]) as connection, greet(connection, greeting):
        pass
    time.sleep(0.1)
    workers += [meeting.send(second), meeting.send(third)]
    assert [worker.result(30).run_dir for worker in workers] == [RUN_DIR] * 3


def test_a_process_that_greets_again_is_not_two(meeting: Meeting) -> None:
    chief, second, third = topologies(addresses(3))
    workers = [meeting.send(chief)]
    config, versions = Config().model_dump(mode="json"), roll_call.installed_versions()
    greeting = Greeting(1, list(chief.workers), False, config, versions, "p", "same")
    with call(chief.workers[0]) as first, call(chief.workers[0]) as again:
        greet(first, greeting)
        with greet(again, greeting) as heard:
            workers.append(meeting.send(third))
            assert "config" in json.loads(heard.readline())
    assert [worker.result(30).run_dir for worker in workers] == [RUN_DIR] * 2


def test_another_program_on_the_chiefs_port_is_told_from_the_chief(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roll_call, "_GREETING_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        workers = (f"127.0.0.1:{server.getsockname()[1]}", *addresses(1))
        worker = meeting.send(topologies(workers)[1], timeout=1.0)
        server.settimeout(10)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 ESMTP\n")
            assert "(another program listens there)" in sentence(worker)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
@pytest.mark.parametrize("role", ["chief", "worker"])
def test_a_port_in_use_is_named_even_if_its_owner_would_share_it(meeting: Meeting, host: str, role: str) -> None:
    workers = addresses(2, host)
    mine = topologies(workers)[role == "worker"]
    own_host, port = split_address(workers[mine.index])
    family = socket.AF_INET6 if ":" in own_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind((own_host, port))
        owner.listen()
        begun = time.monotonic()
        said = sentence(meeting.send(mine))
        assert time.monotonic() - begun < 5
    name = "the chief" if role == "chief" else "worker 1"
    assert said.startswith(f"{workers[mine.index]}, the port of {name}, is in use on this machine: end the program")


def test_one_worker_goes_at_once_but_not_on_a_port_in_use(meeting: Meeting) -> None:
    (alone,) = topologies(addresses(1))
    assert meeting.send(alone).result(5).run_dir == RUN_DIR
    free_at_once(alone.workers[0])
    with socket.create_server(split_address(alone.workers[0])):
        assert "is in use on this machine" in sentence(meeting.send(alone))


def test_a_host_that_does_not_resolve_is_named() -> None:
    with pytest.raises(UserError, match=r"^no-such-host\.invalid, the host of worker 1, does not resolve \(.+\): "):
        hold_own_port("no-such-host.invalid:2222", "worker 1", timeout=0.2)


def test_the_address_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_port, "_WAY_BACK_SECONDS", 0.3)
    (address,) = addresses(1, "192.0.2.1")  # Reserved for documentation (RFC 5737): nobody's.
    with pytest.raises(UserError, match=r"^192\.0\.2\.1:\d+ leads to another machine than this one, .* worker 1: "):
        hold_own_port(address, "worker 1", timeout=1)
    free_at_once(address.replace("192.0.2.1", "127.0.0.1"))


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # Sends nothing.
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def test_an_address_that_leads_here_by_a_detour_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = addresses(1, own_address())
    with hold_own_port(address, "worker 1", timeout=1):
        pass
    monkeypatch.setattr(own_port, "_is_interface", lambda family, own: False)  # As behind a container's ports.
    with hold_own_port(address, "worker 1", timeout=1) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
        listener.settimeout(5)
        with socket.create_connection(split_address(address), 5):
            listener.accept()[0].close()


@pytest.mark.parametrize("host, everywhere", [("127.0.0.1", False), ("own", True)])
def test_loopback_workers_are_not_to_be_reached_from_outside(host: str, everywhere: bool) -> None:
    own = own_address()
    (address,) = addresses(1, own if host == "own" else host)
    with hold_own_port(address, "the chief", timeout=1), closing(socket.socket()) as caller:
        assert (caller.connect_ex((own, split_address(address)[1])) == 0) is everywhere


def test_a_machine_that_knows_itself_as_loopback_is_reached_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = addresses(1, "my-node")
    own = ("127.0.0.1", split_address(address)[1])
    monkeypatch.setattr(own_port, "_resolve", lambda *arguments: (socket.AF_INET, own))
    with hold_own_port(address, "the chief", timeout=1) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_loopback_port_that_is_taken_on_another_interface_is_in_use() -> None:
    # TensorFlow will want it on all of them.
    (address,) = addresses(1)
    with (
        socket.create_server((own_address(), split_address(address)[1])),
        pytest.raises(UserError, match="is in use on this machine"),
    ):
        hold_own_port(address, "the chief", timeout=1)
