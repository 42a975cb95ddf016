"""Queued resources and nodes as Cloud TPU keeps them (v2), strict about what it takes.

Rules are those of the comments in Google's own classes (google-cloud-tpu 1.28, QueuedResource and Node) and of
cloud.google.com/tpu/docs/queued-resources, 2026-11. That a queued resource whose node is there is deleted with "force"
only (400 FAILED_PRECONDITION otherwise) is that page's too.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fakes.rest import Clock, GoogleError, Route, body_of, check_labels, checked, page, routed, stamp
from fakes.server import Answer, Request

BECOMING_ACTIVE = ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
"""What a queued resource goes through after ACCEPTED if nobody says otherwise: one step whenever it is looked at."""

LONGEST_LABEL = 63

_STATE_DATA = {
    "CREATING": "creatingData",
    "ACCEPTED": "acceptedData",
    "PROVISIONING": "provisioningData",
    "FAILED": "failedData",
    "DELETING": "deletingData",
    "ACTIVE": "activeData",
    "SUSPENDING": "suspendingData",
    "SUSPENDED": "suspendedData",
}
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NODE_OUTPUT_ONLY = ("name", "state", "createTime", "networkEndpoints", "health", "id", "apiVersion", "symptoms")
_PARENT = r"/v2/(projects/[^/]+/locations/[a-z]+-[a-z]+\d+-[a-z])"


class QueuedResource:
    """One queued resource and the node that it becomes.

    Attributes:
      resource: as the API gives it.
      node: as the API gives it; None while there is none.
      script: the states it goes through yet, one whenever somebody gets it.
      requested: the requestId and the body that it was made with.
    """

    def __init__(self, resource: dict[str, Any], requested: Any, script: Sequence[str], api: TpuApi) -> None:
        self.resource = resource
        self.requested = requested
        self.script = list(script)
        self.node: dict[str, Any] | None = None
        self._api = api

    @property
    def name(self) -> str:
        """Such as "projects/P/locations/Z/queuedResources/Q"."""
        return str(self.resource["name"])

    @property
    def state(self) -> str:
        """Such as "ACTIVE"."""
        return str(self.resource["state"]["state"])

    @property
    def node_spec(self) -> Mapping[str, Any]:
        """The node that it asks for: "nodeId", "parent" and "node"."""
        return self.resource["tpu"]["nodeSpec"][0]  # type: ignore[no-any-return]

    @property
    def node_name(self) -> str:
        """Such as "projects/P/locations/Z/nodes/N"."""
        return f"{self.node_spec['parent']}/nodes/{self.node_spec['nodeId']}"

    def set_state(self, state: str, error: str = "", initiator: str = "SERVICE") -> None:
        """Moves it, from whatever thread; with ACTIVE its node is there.

        Args:
          state: of Google's class.
          error: why it failed.
          initiator: "USER" or "SERVICE", as whose wish it is.
        """
        with self._api.lock:
            became_active = state == "ACTIVE" and self.state != "ACTIVE"
            data: dict[str, Any] = {"error": {"code": 8, "message": error}} if error else {}
            told: dict[str, Any] = {"state": state, "stateInitiator": initiator}
            if state in _STATE_DATA:
                told[_STATE_DATA[state]] = data
            self.resource["state"] = told
            if state in ("SUSPENDED", "FAILED"):
                self.node = None
            if became_active:
                self.node = self._api.ready_node(self)
                if self._api.on_active:
                    self._api.on_active(self)

    def preempt(self) -> None:
        """Takes its node away, as happens to spot ones: SUSPENDING now, SUSPENDED when somebody looks again."""
        with self._api.lock:
            self.set_state("SUSPENDING")
            if self.node is not None:
                self.node.update(state="PREEMPTED", health="HEALTH_UNSPECIFIED")
            self.script = ["SUSPENDED"]

    def step(self) -> None:
        """Takes the next step of its script."""
        if self.script:
            state = self.script.pop(0)
            self.set_state(state, "the request could not be fulfilled" if state == "FAILED" else "")


class TpuApi:
    """The service.

    Attributes:
      lock: is held while anything changes.
      resources: by their full names, the oldest first.
      script: that of the next queued resources.
      hosts: how many hosts a node has, for its network endpoints.
      on_active: is given each queued resource whose node has just become ready.
      on_delete: is given each that somebody deletes, before it goes.
    """

    def __init__(self, lock: threading.RLock, clock: Clock) -> None:
        self.lock = lock
        self.resources: dict[str, QueuedResource] = {}
        self.script: tuple[str, ...] = BECOMING_ACTIVE
        self.hosts = 1
        self.on_active: Callable[[QueuedResource], None] | None = None
        self.on_delete: Callable[[QueuedResource], None] | None = None
        self._clock = clock
        self._operations: dict[str, dict[str, Any]] = {}

    def answer(self, request: Request, path: str) -> Answer:
        """Carries out a request.

        Args:
          request: as it came.
          path: that of this API, from the version on.
        """
        routes = (
            Route("POST", rf"{_PARENT}/queuedResources", self._create, ("queuedResourceId", "requestId")),
            Route("GET", rf"{_PARENT}/queuedResources", self._list, ("pageSize", "pageToken")),
            Route("GET", rf"{_PARENT}/queuedResources/([^/:]+)", self._get),
            Route("DELETE", rf"{_PARENT}/queuedResources/([^/:]+)", self._delete, ("force", "requestId")),
            Route("GET", rf"{_PARENT}/nodes/([^/:]+)", self._get_node),
            Route("GET", rf"{_PARENT}/operations/([^/:]+)", self._get_operation),
        )
        return routed(request, path, routes)

    def ready_node(self, resource: QueuedResource) -> dict[str, Any]:
        """The node that a queued resource asks for, as the API gives it once it is there."""
        ends = [{"ipAddress": f"10.0.0.{host + 2}", "port": 8470} for host in range(self.hosts)]
        facts = {"name": resource.node_name, "state": "READY", "health": "HEALTHY", "networkEndpoints": ends}
        made = {"createTime": stamp(self._clock()), "queuedResource": resource.name}
        return {**resource.node_spec["node"], **facts, **made}

    def _create(self, request: Request, parent: str) -> dict[str, Any]:
        from google.cloud.tpu_v2.types import QueuedResource as Schema

        number = request.query.get("queuedResourceId", "")
        if not _ID.fullmatch(number):
            raise GoogleError(400, f"queued_resource_id {number!r} must match {_ID.pattern}")
        body = checked(Schema, body_of(request), ("name", "state", "createTime"))
        name = f"{parent}/queuedResources/{number}"
        check_queued_resource(body, parent)
        token = request.query.get("requestId", "")
        if token and not _UUID.fullmatch(token):
            raise GoogleError(400, f"request_id {token!r} is no UUID")
        requested = (token, body)
        known = self.resources.get(name)
        if known and token and known.requested == requested:
            return self._operation(parent, f"create-{number}", known.resource)
        if known:
            raise GoogleError(409, f"Resource '{name}' already exists")
        resource = {**body, "name": name, "createTime": stamp(self._clock()), "state": {"state": "ACCEPTED"}}
        made = QueuedResource(resource, requested, self.script, self)
        if any(other.node_name == made.node_name for other in self.resources.values()):
            raise GoogleError(409, f"Resource '{made.node_name}' already exists")
        self.resources[name] = made
        return self._operation(parent, f"create-{number}", resource)

    def _list(self, request: Request, parent: str) -> dict[str, Any]:
        there = [known.resource for known in self.resources.values() if known.name.startswith(f"{parent}/")]
        return page(request, there, "queuedResources")

    def _get(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        resource = self._resource(parent, number)
        if resource.state == "DELETING":
            del self.resources[resource.name]
        resource.step()
        return resource.resource

    def _delete(self, request: Request, parent: str, number: str) -> dict[str, Any]:
        resource = self._resource(parent, number)
        forced = request.query.get("force", "").lower() == "true"  # gcloud writes True.
        if resource.node is not None and not forced:
            message = f"{resource.name} is {resource.state}: delete its nodes first, or use force"
            raise GoogleError(400, message, reason="FAILED_PRECONDITION")
        if self.on_delete:
            self.on_delete(resource)
        resource.set_state("DELETING", initiator="USER")
        resource.node = None
        resource.script = []
        return self._operation(parent, f"delete-{number}")

    def _get_node(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        name = f"{parent}/nodes/{number}"
        for resource in self.resources.values():
            if resource.node is not None and resource.node_name == name:
                return resource.node
        raise GoogleError(404, f"Resource '{name}' was not found")

    def _operation(self, parent: str, number: str, response: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Notes an operation, which is done when it is asked for, and gives it as it is begun."""
        name = f"{parent}/operations/operation-{number}"
        kind = "google.protobuf.Empty" if response is None else "google.cloud.tpu.v2.QueuedResource"
        begun = {"name": name, "metadata": self._operation_metadata(number)}
        done = {"done": True, "response": {"@type": f"type.googleapis.com/{kind}", **(response or {})}}
        self._operations[name] = {**begun, **done}
        return {**begun, "done": False}

    def _operation_metadata(self, number: str) -> dict[str, Any]:
        kind = "type.googleapis.com/google.cloud.tpu.v2.OperationMetadata"
        verb = number.partition("-")[0]
        return {"@type": kind, "createTime": stamp(self._clock()), "verb": verb, "apiVersion": "v2"}

    def _get_operation(self, _: Request, parent: str, number: str) -> dict[str, Any]:
        name = f"{parent}/operations/{number}"
        if name not in self._operations:
            raise GoogleError(404, f"Resource '{name}' was not found")
        return self._operations[name]

    def _resource(self, parent: str, number: str) -> QueuedResource:
        name = f"{parent}/queuedResources/{number}"
        if name not in self.resources:
            raise GoogleError(404, f"Resource '{name}' was not found")
        return self.resources[name]


def check_queued_resource(body: Mapping[str, Any], parent: str) -> None:
    """Refuses what fits Google's class and is no request for one slice all the same.

    Args:
      body: as Google's class writes it.
      parent: that is asked for it, "projects/P/locations/ZONE".
    """
    specs = body.get("tpu", {}).get("nodeSpec", [])
    if len(specs) != 1:
        raise GoogleError(400, f"There are {len(specs)} node specs: exactly one is supported")
    spec = specs[0]
    if spec.get("parent") != parent:
        raise GoogleError(400, f"node_spec.parent is {spec.get('parent')}, not {parent}")
    if not _ID.fullmatch(spec.get("nodeId", "")):
        raise GoogleError(400, f"node_id {spec.get('nodeId')!r} must match {_ID.pattern}")
    node = spec.get("node", {})
    if not node.get("runtimeVersion"):
        raise GoogleError(400, "node.runtime_version is required")
    config = node.get("acceleratorConfig", {})
    if bool(node.get("acceleratorType")) == bool(config):
        raise GoogleError(400, "node needs either accelerator_type or accelerator_config")
    if config and not (config.get("type") and config.get("topology")):
        raise GoogleError(400, "node.accelerator_config needs type and topology")
    for field in _NODE_OUTPUT_ONLY:
        if field in node:
            raise GoogleError(400, f"The field node.{field} is output only")
    check_labels(node.get("labels", {}), LONGEST_LABEL)
    if "reservationName" in body and "spot" in body:
        raise GoogleError(400, "A spot request cannot use a reservation")
