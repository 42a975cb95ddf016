"""What the real services would refuse, the fake cloud refuses too, each by the rule that it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes.asking import BUILDS, REGION, TPU, VERTEX, ZONE, ask, build_body, job_body, pool_body, slice_body
from fakes.cloud import FakeCloud, serving


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serving() as cloud:
        yield cloud


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (job_body(typo=1), '"typo"'),
        (job_body(name="mine"), "name is output only"),
        (job_body(displayName=""), "display_name"),
        (job_body(displayName="x" * 129), "display_name"),
        (job_body(labels={"Key": "b"}), "label key: Key"),
        (job_body(labels={"a": "B"}), "label value: B"),
        (job_body(labels={"a": "x" * 65}), "label value: x"),
        (job_body(spec={"scheduling": {"strategy": "FLEX"}}), "FLEX"),
        (job_body(spec={"scheduling": {"timeout": "1h"}}), "timeout field"),
        (job_body(spec={"workerPoolSpecs": []}), "worker_pool_specs[0] is required"),
        (job_body(spec={"baseOutputDirectory": {"outputUriPrefix": "bucket/folder"}}), "Cloud Storage path"),
        (job_body(spec={"tensorboard": f"{REGION}/tensorboards/1"}), "tensorboard needs"),
        (pool_body({"machineType": "g2-standard-12"}, replicaCount=2), "replica_count must be 1"),
        (pool_body({"machineType": "g2-standard-12"}, containerSpec={}), "image_uri is required"),
        (pool_body({"machineType": "g2-standard-12", "acceleratorType": "NVIDIA_L4"}), "go together"),
        (
            pool_body({"machineType": "g2-standard-12", "acceleratorType": "L4", "acceleratorCount": 1}),
            "acceleratorType",
        ),
        (pool_body({"machineType": "g2-standard-12", "tpuTopology": "2x2"}), "goes with a TPU"),
        (pool_body({"machineType": "ct5lp-hightpu-4t"}), "goes with a TPU"),
        (pool_body({"machineType": ""}), "machine_type ''"),
    ],
)
def test_jobs_that_vertex_refuses(cloud: FakeCloud, body: dict[str, Any], rule: str) -> None:
    error = ask(cloud, "POST", VERTEX, body, status=400)["error"]
    assert error["status"] == "INVALID_ARGUMENT" and rule in error["message"]
    assert not cloud.vertex.jobs
    ask(cloud, "POST", VERTEX, job_body())


@pytest.mark.parametrize(
    ("name", "body", "rule"),
    [
        ("q1", slice_body(typo=1), '"typo"'),
        ("q1", slice_body(state={"state": "ACTIVE"}), "state is output only"),
        ("q1", slice_body(node={"state": "READY"}), "node.state is output only"),
        ("q1", slice_body(node={"runtimeVersion": ""}), "runtime_version"),
        ("q1", slice_body(node={"acceleratorConfig": {"type": "V5LITE_POD", "topology": "2x4"}}), "either"),
        ("q1", slice_body(node={"acceleratorType": ""}), "either"),
        (
            "q1",
            slice_body(node={"acceleratorType": "", "acceleratorConfig": {"type": "V5E", "topology": "2x4"}}),
            "Invalid enum value V5E",
        ),
        ("q1", slice_body(node={"labels": {"a": "x" * 64}}), "label value"),
        ("q1", slice_body(spot={}, guaranteed={}), "tier"),
        ("q1", slice_body(spot={}, reservationName=f"{ZONE}/reservations/r"), "reservation"),
        ("q1", slice_body("Slice_1"), "node_id"),
        ("q1", {"tpu": {"nodeSpec": [{**slice_body()["tpu"]["nodeSpec"][0], "parent": REGION}]}}, "parent"),
        ("q1", {}, "0 node specs"),
        ("Q1", slice_body(), "id 'Q1'"),
        ("q" * 64, slice_body(), "queued_resource_id"),
        ("", slice_body(), "queued_resource_id"),
    ],
)
def test_slices_that_cloud_tpu_refuses(cloud: FakeCloud, name: str, body: dict[str, Any], rule: str) -> None:
    assert rule in ask(cloud, "POST", TPU, body, status=400, queuedResourceId=name)["error"]["message"]
    assert not cloud.tpu.resources
    ask(cloud, "POST", TPU, slice_body(), queuedResourceId="q1")


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (build_body(typo=1), '"typo"'),
        (build_body(id="mine"), "id is output only"),
        (build_body(steps=[]), "at least one step"),
        (build_body(steps=[{"id": "one"}]), "specify name"),
        (build_body(steps=[{"name": "ubuntu", "id": "one"}, {"name": "ubuntu", "id": "one"}]), "id 'one'"),
        (build_body(steps=[{"name": "ubuntu", "waitFor": ["two"]}, {"name": "ubuntu", "id": "two"}]), "waits for"),
        (build_body(timeout="86401s"), "86401s"),
        (build_body(timeout="60s", steps=[{"name": "ubuntu", "timeout": "61s"}]), "61s"),
        (build_body(substitutions={"_UNUSED": "1"}), "_UNUSED"),
        (build_body(substitutions={"lower": "1"}, steps=[{"name": "$lower"}]), "lower"),
        (build_body(steps=[{"name": "ubuntu", "args": ["${_UNDECLARED}"]}]), "_UNDECLARED"),
        (build_body(tags=["a b"]), "tag"),
        (build_body(options={"machineType": "E2_HUGE"}), "E2_HUGE"),
        (
            build_body(serviceAccount="me@example.com", options={"logging": "CLOUD_LOGGING_ONLY"}),
            "invalid service account",
        ),
        (build_body(serviceAccount="projects/p/serviceAccounts/me@example.com"), "where its logs go"),
    ],
)
def test_builds_that_cloud_build_refuses(cloud: FakeCloud, body: dict[str, Any], rule: str) -> None:
    assert rule in ask(cloud, "POST", BUILDS, body, status=400)["error"]["message"]
    assert not cloud.builds.builds
