"""Who the workers are: TF_CONFIG, Vertex's CLUSTER_SPEC in both shapes, and one sentence for everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.topology import Topology, bypass_proxy, read_topology, split_address

A, B, C = "10.0.0.1:2222", "10.0.0.2:2222", "10.0.0.3:2222"


def variable(cluster: object, kind: object = "worker", index: object = 0, **more: Any) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}, **more})


def from_tf_config(cluster: object, kind: object = "worker", index: object = 0) -> Topology:
    return read_topology({"TF_CONFIG": variable(cluster, kind, index)})


def problem(text: str, name: str = "TF_CONFIG") -> str:
    """The sentence for a value of the variable, which must begin with its name and end with one full stop."""
    with pytest.raises(UserError) as raised:
        read_topology({name: text})
    sentence = str(raised.value)
    assert sentence.startswith(f"{name} ") and sentence.endswith(".") and not sentence.endswith("..")
    assert "\n" not in sentence
    return sentence


def test_without_a_chief_type_worker_0_is_the_chief() -> None:
    chief, second = (from_tf_config({"worker": [A, B, C]}, "worker", index) for index in (0, 1))
    assert (chief.role, chief.index, chief.is_chief, chief.name) == ("chief", 0, True, "chief")
    assert (chief.task_type, chief.task_index) == ("worker", 0)
    assert (second.role, second.index, second.is_chief, second.name) == ("worker", 1, False, "worker 1")
    assert (second.task_type, second.task_index) == ("worker", 1)
    assert second.workers == (A, B, C) and second.cluster == {"worker": [A, B, C]}
    assert second.name_of(0) == "chief" and second.name_of(2) == "worker 2"


@pytest.mark.parametrize("kind", ["chief", "master"])
def test_a_chief_type_comes_first_and_the_others_keep_their_numbers(kind: str) -> None:
    cluster = {"worker": [B, C], kind: [A]}
    chief, last = from_tf_config(cluster, kind), from_tf_config(cluster, "worker", 1)
    assert (chief.role, chief.index, chief.task_type, chief.task_index) == ("chief", 0, "chief", 0)
    assert last.workers == (A, B, C)
    assert (last.role, last.index, last.name) == ("worker", 2, "worker 1")
    assert (last.task_type, last.task_index) == ("worker", 1)
    assert last.cluster == {"chief": [A], "worker": [B, C]}
    assert last.name_of(0) == "chief" and last.name_of(2) == "worker 1"


@pytest.mark.parametrize("has_chief_type", [True, False])
def test_tensorflow_finds_every_task_where_the_topology_says(has_chief_type: bool) -> None:
    for index, address in enumerate((A, B, C)):
        topology = Topology((A, B, C), "worker" if index else "chief", index, has_chief_type)
        spec = tf.train.ClusterSpec(topology.cluster)
        assert spec.task_address(topology.task_type, topology.task_index) == address


def test_one_machine_is_a_cluster_too() -> None:
    alone = from_tf_config({"worker": [A]})
    assert (alone.workers, alone.role, alone.trains) == ((A,), "chief", True)
    assert from_tf_config({"chief": [A]}, "chief").cluster == {"chief": [A]}


@pytest.mark.parametrize("cluster", [{"worker": [A, B]}, {"worker": [A, B], "evaluator": [C]}])
def test_the_evaluator_is_no_worker_whether_or_not_the_cluster_lists_it(cluster: object) -> None:
    evaluator = from_tf_config(cluster, "evaluator")
    assert (evaluator.role, evaluator.index, evaluator.name) == ("evaluator", 0, "evaluator")
    assert not evaluator.trains and not evaluator.is_chief
    assert (evaluator.task_type, evaluator.task_index) == ("evaluator", 0)
    assert evaluator.workers == (A, B) and evaluator.cluster == {"worker": [A, B]}


def test_a_task_index_may_be_a_text_of_digits() -> None:
    assert from_tf_config({"worker": [A, B]}, "worker", "1").index == 1


def test_ipv6_addresses_come_in_brackets() -> None:
    topology = from_tf_config({"worker": ["[::1]:2222", "[fe80::2%eth0]:2223"]}, "worker", 1)
    assert topology.workers == ("[::1]:2222", "[fe80::2%eth0]:2223")
    assert split_address(topology.workers[0]) == ("::1", 2222)
    assert split_address("worker-1.train.svc:2222") == ("worker-1.train.svc", 2222)


POOLS = {
    "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
    "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    "workerpool2": [],
    "workerpool3": ["cmle-training-workerpool3-ab-0:2222"],
}


@pytest.mark.parametrize(
    "job", [{"worker_pool_specs": [{"replica_count": 1}]}, '{"worker_pool_specs": [{"cluster": 1}]}', None]
)
def test_vertex_names_worker_pools(job: object) -> None:
    more = {"environment": "cloud", "job": job, "open_ports": [3333]}
    spec = variable(POOLS, "workerpool1", 1, **more)
    worker = read_topology({"CLUSTER_SPEC": spec})
    assert worker.workers == (*POOLS["workerpool0"], *POOLS["workerpool1"])
    assert (worker.role, worker.index, worker.name, worker.has_chief_type) == ("worker", 2, "worker 1", True)
    assert worker.cluster == {"chief": POOLS["workerpool0"], "worker": POOLS["workerpool1"]}
    assert read_topology({"CLUSTER_SPEC": variable(POOLS, "workerpool0", 0, **more)}).is_chief
    assert read_topology({"CLUSTER_SPEC": variable(POOLS, "workerpool3", 0, **more)}).role == "evaluator"


def test_vertex_also_uses_tensorflows_names() -> None:
    spec = variable({"chief": [A], "worker": [B]}, "worker", 0, environment="cloud", job="{}")
    assert read_topology({"CLUSTER_SPEC": spec, "TF_CONFIG": "  "}).workers == (A, B)


def test_tf_config_counts_where_both_are_set() -> None:
    environment = {"TF_CONFIG": variable({"worker": [A]}), "CLUSTER_SPEC": variable(POOLS, "workerpool0")}
    assert read_topology(environment).workers == (A,)


def test_neither_variable_set_tells_how_to_go_on() -> None:
    with pytest.raises(UserError, match=r"needs TF_CONFIG.*`python -m launch run --workers=2 -- FLAGS`"):
        read_topology({"PATH": "/bin"})


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", '"cluster"'),
        ('{"task": {}}', '"cluster"'),
        (json.dumps({"cluster": {"worker": [A]}}), "which task this process is"),
        (json.dumps({"cluster": {"worker": [A]}, "task": {"type": "worker"}}), "which task this process is"),
        (variable({}), "lists no workers"),
        (variable({"evaluator": [A]}, "evaluator"), "lists no workers"),
        (variable({"worker": [A]}, "worker", 1), 'worker 1, but the "cluster" lists 1 of that type'),
        (variable({"worker": [A]}, "chief"), 'chief 0, but the "cluster" lists none of that type'),
        (variable({"chief": [A]}, "worker"), 'worker 0, but the "cluster" lists none of that type'),
        (variable({"worker": [A], "evaluator": [B]}, "evaluator", 1), "evaluator 1, but"),
        (variable({"worker": [A]}, "worker", -1), "task index -1"),
        (variable({"worker": [A]}, "worker", "one"), 'task index "one"'),
        (variable({"worker": [A]}, "worker", True), "task index true"),
        (variable({"worker": [A]}, "worker", None), "task index null"),
        (variable({"worker": [A]}, "coordinator"), '"coordinator", which must be chief, worker or evaluator'),
        (variable({"worker": [A]}, ["worker"]), "must be chief, worker or evaluator"),
        (variable({"worker": [A], "gpu": [B]}), '"gpu"'),
        (variable({"worker": [A], "ps": [B]}), "parameter servers (ps)"),
        (variable({"worker": [A]}, "ps"), "parameter servers (ps)"),
        (variable({"chief": [A, B]}, "chief"), f"lists 2 chiefs, {A} and {B}"),
        (variable({"chief": [A], "master": [B]}, "chief"), "lists chief and master, which mean the same"),
        (variable({"worker": A}), "must list the addresses of worker"),
        (variable({"worker": [A, B, A]}), f"gives {A} to worker 0 and to worker 2"),
        (variable({"chief": [A], "worker": [A]}), f"gives {A} to chief 0 and to worker 0"),
        (variable({"worker": ["[::1]:2222", "[0:0::1]:2222"]}), "to worker 0 and to worker 1"),
        (variable({"worker": ["Host:2222", "host:2222"]}), "to worker 0 and to worker 1"),
        (variable({"worker": ["10.0.0.1"]}), "without a port: write 10.0.0.1:2222"),
        (variable({"worker": ["[::1]"]}), "without a port: write [::1]:2222"),
        (variable({"worker": ["::1:2222"]}), "brackets, as in [::1]:2222"),
        (variable({"worker": ["[10.0.0.1]:2222"]}), "must be HOST:PORT"),
        (variable({"worker": ["grpc://10.0.0.1:2222"]}), "write HOST:PORT"),
        (variable({"worker": ["my host:2222"]}), "must be HOST:PORT"),
        (variable({"worker": ["host:http"]}), "must be HOST:PORT"),
        (variable({"worker": ["host..svc:2222"]}), "must be HOST:PORT"),
        (variable({"worker": ["a" * 64 + ":2222"]}), "must be HOST:PORT"),
        (variable({"worker": ["host:0"]}), "from 1 to 65535"),
        (variable({"worker": ["host:" + "9" * 5000]}), "from 1 to 65535"),
        (variable({"worker": [2222]}), "2222 as the address of worker 0"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_the_variable(text: str, words: str) -> None:
    assert words in problem(text)


def test_vertex_parameter_servers_are_refused_and_the_variable_is_named() -> None:
    spec = variable({**POOLS, "workerpool2": [A]}, "workerpool0")
    assert "parameter servers (workerpool2)" in problem(spec, "CLUSTER_SPEC")


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        ({"no_proxy": "10.0.0.1"}, None),
        ({"https_proxy": "http://proxy:3128"}, "10.0.0.1,::1"),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "localhost, 10.0.0.1"}, "localhost,10.0.0.1,::1"),
        ({"http_proxy": "http://proxy:3128", "no_proxy": "a", "no_grpc_proxy": "b"}, "b,10.0.0.1,::1"),
    ],
)
def test_grpc_is_told_to_go_around_a_proxy(environment: dict[str, str], expected: str | None) -> None:
    bypass_proxy(["10.0.0.1", "::1"], environment)
    assert environment.get("no_grpc_proxy") == expected


def test_the_workers_meet_without_tensorflow() -> None:
    script = "import sys, trainer.topology, trainer.roll_call; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[1])
