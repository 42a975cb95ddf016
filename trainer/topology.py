"""Who the workers of `--strategy=multi_worker` are, and which of them this process is. No TensorFlow.

It is read from TensorFlow's own variable,

    TF_CONFIG={"cluster": {"chief": ["10.0.0.1:2222"], "worker": ["10.0.0.2:2222"]},
               "task": {"type": "worker", "index": 0}}

or, where there is none, from the CLUSTER_SPEC of Vertex AI. That has the same form and comes in two shapes: with
TensorFlow's names for the tasks, or with the names of the job's worker pools. Keys beside "cluster" and "task", such as
"job" and "environment", say nothing that matters here. (Vertex AI's and AI Platform's documentation of distributed
training, as of 2026-11.)
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.errors import UserError

VARIABLES = ("TF_CONFIG", "CLUSTER_SPEC")
"""Where the workers are listed; the first that is set counts."""

HOST_PATTERN = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
"""A host's name or IPv4 address, by its letters; Python's resolver fails on empty and on longer labels."""

Role = Literal["chief", "worker", "evaluator"]

_PARAMETER_SERVER = "ps"

_ROLES = {
    "chief": "chief",
    "master": "chief",  # What TensorFlow 1 called it.
    "worker": "worker",
    "evaluator": "evaluator",
    "ps": _PARAMETER_SERVER,
    "workerpool0": "chief",
    "workerpool1": "worker",
    "workerpool2": _PARAMETER_SERVER,
    "workerpool3": "evaluator",
}
"""What a type of task means here: TensorFlow's names, then Vertex's worker pools by what each of them is for."""


@dataclass(frozen=True)
class Topology:
    """All training workers, and which of them this process is.

    Attributes:
      workers: addresses "host:port" of all training workers, the chief first; IPv6 as "[::1]:2222".
      role: of this process. The evaluator trains nothing and is none of the workers.
      index: of this process among `workers`, 0 for the chief; for the evaluator, its index among the evaluators.
      has_chief_type: whether the cluster lists its chief apart, as type "chief", or its worker 0 is the chief.
    """

    workers: tuple[str, ...]
    role: Role
    index: int
    has_chief_type: bool

    @property
    def trains(self) -> bool:
        """Whether this process is one of the workers."""
        return self.role != "evaluator"

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.role == "chief"

    @property
    def name(self) -> str:
        """What this process is called: "chief", "worker 1" or "evaluator"."""
        return self.name_of(self.index) if self.trains else "evaluator"

    def name_of(self, index: int) -> str:
        """What a worker is called, with the number that it has in the environment variable: "chief" or "worker 1".

        Args:
          index: among `workers`.
        """
        return "chief" if index == 0 else f"worker {index - self.has_chief_type}"

    @property
    def task_type(self) -> str:
        """What TensorFlow calls this process: "chief", "worker" or "evaluator"."""
        return "worker" if self.is_chief and not self.has_chief_type else self.role

    @property
    def task_index(self) -> int:
        """The number of this process among those of its `task_type`."""
        return self.index - self.has_chief_type if self.role == "worker" else self.index

    @property
    def cluster(self) -> dict[str, list[str]]:
        """All workers by type, as `tf.train.ClusterSpec` wants them."""
        if not self.has_chief_type:
            return {"worker": list(self.workers)}
        others = list(self.workers[1:])
        return {"chief": [self.workers[0]], **({"worker": others} if others else {})}


def read_topology(environment: Mapping[str, str]) -> Topology:
    """Reads who the workers are.

    Args:
      environment: the variables of the process.

    Raises:
      UserError: no variable lists them, or the one that does is not as it must be; the sentence names it.
    """
    for variable in VARIABLES:
        text = environment.get(variable, "").strip()
        if text:
            try:
                return _topology(text)
            except _UnusableError as problem:
                raise UserError(f"{variable} {problem}.") from None
    raise UserError(
        "--strategy=multi_worker needs TF_CONFIG, which lists the workers and says which of them this one is; "
        "`python -m launch run --workers=2 -- FLAGS` sets it for local workers."
    )


def split_address(address: str) -> tuple[str, int]:
    """Host and port of one of `Topology.workers`; an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bypass_proxy(hosts: Iterable[str], environment: MutableMapping[str, str]) -> None:
    """Has gRPC reach hosts directly where the environment names an HTTP proxy: through one, TensorFlow hangs (2.21).

    Only gRPC is told; what goes to gs:// and https:// takes the proxy as before.

    Args:
      hosts: names and addresses, IPv6 without brackets.
      environment: of this process, `os.environ`; gRPC reads it when it connects.
    """
    if not any(environment.get(name) for name in ("grpc_proxy", "https_proxy", "http_proxy")):
        return
    known = environment.get("no_grpc_proxy") or environment.get("no_proxy", "")
    listed = [entry.strip() for entry in known.split(",") if entry.strip()]
    environment["no_grpc_proxy"] = ",".join(dict.fromkeys([*listed, *hosts]))


class _UnusableError(Exception):
    """What is wrong with the variable: the rest of a sentence that begins with its name."""


def _topology(text: str) -> Topology:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"is not JSON ({error})") from None
    cluster = values.get("cluster") if isinstance(values, dict) else None
    if not isinstance(cluster, dict):
        raise _UnusableError(
            'must be a JSON object with a "cluster", such as {"worker": ["10.0.0.1:2222"]}, and a "task"'
        )
    tasks = _tasks(cluster)
    chiefs, others = tasks.get("chief", []), tasks.get("worker", [])
    if len(chiefs) > 1:
        raise _UnusableError(f"lists {len(chiefs)} chiefs, {' and '.join(chiefs)}, and there can be only one")
    if not chiefs and not others:
        raise _UnusableError("lists no workers; on a single machine --strategy=mirrored needs none")
    role, index = _task(values.get("task"), tasks)
    if role == "worker" and chiefs:
        index += 1
    elif role == "worker" and index == 0:
        role = "chief"
    return Topology((*chiefs, *others), role, index, has_chief_type=bool(chiefs))


def _tasks(cluster: dict[str, Any]) -> dict[str, list[str]]:
    """Checked addresses by role."""
    tasks: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    names: dict[str, str] = {}
    for kind, addresses in cluster.items():
        if not addresses:
            continue
        role = _role(kind)
        if role in kinds:
            raise _UnusableError(f"lists {kinds[role]} and {kind}, which mean the same: give one of them")
        kinds[role] = kind
        if not isinstance(addresses, list):
            raise _UnusableError(
                f'must list the addresses of {kind} as in ["10.0.0.1:2222"], not as {json.dumps(addresses)}'
            )
        tasks[role] = [_checked(address, f"{kind} {index}") for index, address in enumerate(addresses)]
        for index, address in enumerate(tasks[role]):
            name = f"{kind} {index}"
            other = names.setdefault(_canonical(address), name)
            if other != name:
                raise _UnusableError(f"gives {address} to {other} and to {name}: each needs an address of its own")
    return tasks


def _role(kind: object) -> str:
    role = _ROLES.get(kind) if isinstance(kind, str) else None
    if role is None:
        raise _UnusableError(f"has tasks of the type {json.dumps(kind)}, which must be chief, worker or evaluator")
    if role == _PARAMETER_SERVER:
        raise _UnusableError(f"has parameter servers ({kind}), which are not used here: let these machines be workers")
    return role


def _task(task: object, tasks: dict[str, list[str]]) -> tuple[Role, int]:
    """Role and index of this process, as the variable gives them."""
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        raise _UnusableError('must say which task this process is, as in "task": {"type": "worker", "index": 0}')
    kind, index = task["type"], task["index"]
    role = _role(kind)
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise _UnusableError(f"has the task index {json.dumps(index)}, which must be a whole number from 0")
    listed = len(tasks.get(role, []))
    # An evaluator is no part of the cluster, and TensorFlow's own rules leave it out of the list.
    if index >= listed and (role != "evaluator" or listed):
        raise _UnusableError(
            f'says that this is {kind} {index}, but the "cluster" lists {listed or "none"} of that type'
        )
    return role, index  # type: ignore[return-value]


def _checked(address: object, name: str) -> str:
    """`address`, if it is HOST:PORT."""
    if not isinstance(address, str):
        raise _UnusableError(
            f"has {json.dumps(address)} as the address of {name}, which must be a text such as 10.0.0.1:2222"
        )
    if address.count(":") > 1 and not address.startswith("["):
        hint = ": write HOST:PORT" if "/" in address else ": IPv6 addresses go into brackets, as in [::1]:2222"
        raise _UnusableError(f"has {address} as the address of {name}{hint}")
    bracketed = re.fullmatch(r"\[(.*)](?::([0-9]+))?", address)
    parts = bracketed or re.fullmatch(rf"({HOST_PATTERN})(?::([0-9]+))?", address)
    if not parts or (bracketed and not _is_ipv6(parts[1])):
        raise _UnusableError(f"has {json.dumps(address)} as the address of {name}, which must be HOST:PORT")
    if parts[2] is None:
        raise _UnusableError(
            f"has {address} as the address of {name}, without a port: write {address}:2222 or another one"
        )
    if len(parts[2]) > 5 or not 1 <= int(parts[2]) <= 65535:
        raise _UnusableError(f"has {address} as the address of {name}: a port is a number from 1 to 65535")
    return address


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _canonical(address: str) -> str:
    """The same text for two spellings of an address."""
    host, port = split_address(address)
    return f"{ipaddress.IPv6Address(host) if ':' in host else host.lower()}:{port}"
