"""The fake cloud takes what Google's own clients and the real gcloud send, and refuses what the services would."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes import gcloud
from fakes.asking import BUILDS, REGION, TPU, VERTEX, ZONE, ask, build_body, job_body, slice_body
from fakes.cloud import FakeCloud, Fault, serving
from fakes.credentials import PROJECT
from fakes.gcloud import requires_gcloud
from fakes.tpu_api import QueuedResource
from fakes.vertex_api import CustomJob

MOMENT = datetime.datetime(2026, 11, 22, 17, 0, tzinfo=datetime.timezone.utc)


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serving(clock=lambda: MOMENT) as cloud:
        yield cloud


def options_of(cloud: FakeCloud, api: str) -> dict[str, Any]:
    """What makes a client of Google's ask the fake over REST."""
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    place = ClientOptions(api_endpoint=f"{cloud.address}/{api}")
    return {"transport": "rest", "credentials": AnonymousCredentials(), "client_options": place}


def test_googles_vertex_client(cloud: FakeCloud) -> None:
    from google.cloud import aiplatform_v1

    client = aiplatform_v1.JobServiceClient(**options_of(cloud, "aiplatform"))
    machine = {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "2x2"}
    pool = {"machine_spec": machine, "replica_count": 1, "container_spec": {"image_uri": "image"}}
    body = {"display_name": "d", "labels": {"a": "b"}, "job_spec": {"worker_pool_specs": [pool]}}
    job = client.create_custom_job(parent=REGION, custom_job=body)
    assert job.state.name == "JOB_STATE_QUEUED" and job.create_time.isoformat().startswith("2026-11-22T17:00")
    states = [client.get_custom_job(name=job.name).state.name for _ in range(4)]
    assert states == [f"JOB_STATE_{state}" for state in ("PENDING", "RUNNING", "SUCCEEDED", "SUCCEEDED")]
    request = {"parent": REGION, "filter": 'labels.a="b" AND state="JOB_STATE_SUCCEEDED"', "page_size": 1}
    assert [found.name for found in client.list_custom_jobs(request=request)] == [job.name]
    client.delete_custom_job(name=job.name).result(timeout=10)
    assert not cloud.vertex.jobs


def test_googles_tpu_client(cloud: FakeCloud) -> None:
    from google.cloud import tpu_v2

    client = tpu_v2.TpuClient(**options_of(cloud, "tpu"))
    node = {"accelerator_type": "v5litepod-16", "runtime_version": "v2-tpuv5-litepod", "metadata": {"a": "b"}}
    resource = tpu_v2.QueuedResource(
        spot={},
        tpu={"node_spec": [{"parent": ZONE, "node_id": "n1", "node": node}]},
        queueing_policy={"valid_until_duration": {"seconds": 3600}},
    )
    cloud.tpu.hosts = 4
    request = {"parent": ZONE, "queued_resource_id": "q1", "queued_resource": resource}
    made = client.create_queued_resource(request=request).result(timeout=10)
    states = [client.get_queued_resource(name=made.name).state.state.name for _ in range(4)]
    assert states == ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE"]
    ready = client.get_node(name=f"{ZONE}/nodes/n1")
    assert ready.state.name == "READY" and len(ready.network_endpoints) == 4 and ready.metadata == {"a": "b"}
    assert [found.name for found in client.list_queued_resources(parent=ZONE)] == [made.name]
    client.delete_queued_resource(request={"name": made.name, "force": True}).result(timeout=10)
    assert client.get_queued_resource(name=made.name).state.state.name == "DELETING"
    ask(cloud, "GET", f"tpu/v2/{made.name}", status=404)


def test_googles_cloud_build_client(cloud: FakeCloud) -> None:
    from google.cloud.devtools import cloudbuild_v1

    client = cloudbuild_v1.CloudBuildClient(**options_of(cloud, "cloudbuild"))
    cloud.builds.script = ("SUCCESS",)
    build = {"steps": [{"name": "ubuntu"}], "tags": ["a"], "timeout": {"seconds": 60}}
    operation = client.create_build(parent=REGION, project_id=PROJECT, build=build)
    assert operation.metadata.build.status.name == "QUEUED"
    assert operation.result(timeout=10).status.name == "SUCCESS"
    request = {"parent": REGION, "project_id": PROJECT, "filter": 'tags="a"'}
    assert [found.status.name for found in client.list_builds(request=request)] == ["SUCCESS"]


@requires_gcloud
def test_gcloud_cancels_jobs_on_vertex(cloud: FakeCloud, tmp_path: Path) -> None:
    name = ask(cloud, "POST", VERTEX, job_body())["name"]
    done = gcloud.run(["ai", "custom-jobs", "cancel", name], cloud, tmp_path)
    assert done.returncode == 0, done.stderr
    assert cloud.vertex.jobs[name].state == "JOB_STATE_CANCELLING"


@requires_gcloud
def test_gcloud_requests_slices(cloud: FakeCloud, tmp_path: Path) -> None:
    command = "compute tpus queued-resources create q1 --zone=us-west4-a --node-id=n1 --spot --valid-until-duration=6h"
    hardware = ["--accelerator-type=v5litepod-8", "--runtime-version=v2-tpuv5-litepod"]
    done = gcloud.run([*command.split(), *hardware], cloud, tmp_path)
    assert done.returncode == 0, done.stderr
    assert cloud.sent("tpu", "GET")[0].path == f"/v2/{ZONE}/operations/operation-create-q1"
    resource = cloud.tpu.resources[f"{ZONE}/queuedResources/q1"].resource
    assert resource["queueingPolicy"] == {"validUntilDuration": "21600s"} and resource["spot"] == {}


@requires_gcloud
def test_gcloud_builds(cloud: FakeCloud, tmp_path: Path) -> None:
    submit = "builds submit --no-source --async --region=us-central1 --config=build.json --substitutions=_TAG=2"
    body = build_body(steps=[{"name": "ubuntu", "args": ["${_TAG}"]}], substitutions={"_TAG": "1"}, timeout="60s")
    done = gcloud.run(submit.split(), cloud, tmp_path, {"build.json": json.dumps(body)})
    assert done.returncode == 0, done.stderr
    (build,) = cloud.builds.builds.values()
    assert build.resource["substitutions"] == {"_TAG": "2"} and build.status == "QUEUED"


@requires_gcloud
def test_gcloud_reads_logs(tmp_path: Path) -> None:
    with serving() as cloud:
        for number in range(3):
            cloud.logs.write(PROJECT, "ml_job", f"line {number}", {"type": "ml_job", "labels": {"job_id": "1"}})
        read = ["logging", "read", 'resource.labels.job_id="1"', "--format=value(textPayload)", "--limit=2"]
        assert gcloud.run(read, cloud, tmp_path).stdout.split("\n") == ["line 2", "line 1", ""], "the newest first"


def test_a_runner_moves_a_job(cloud: FakeCloud) -> None:
    given: list[CustomJob] = []
    cloud.vertex.on_create = given.append
    created = ask(cloud, "POST", VERTEX, job_body())
    (job,) = given
    assert ask(cloud, "GET", f"aiplatform/v1/{job.name}") == created, "looking at it does not move it"
    job.set_state("JOB_STATE_RUNNING")
    assert ask(cloud, "GET", f"aiplatform/v1/{job.name}")["startTime"] == "2026-11-22T17:00:00.000000Z"
    ask(cloud, "POST", f"aiplatform/v1/{job.name}:cancel", {})
    assert job.cancel_requested.is_set() and job.state == "JOB_STATE_CANCELLING"
    job.set_state("JOB_STATE_FAILED", "out of memory")
    seen = ask(cloud, "GET", f"aiplatform/v1/{job.name}")
    assert seen["error"] == {"code": 3, "message": "out of memory"} and "endTime" in seen
    assert (
        ask(cloud, "POST", f"aiplatform/v1/{job.name}:cancel", status=400)["error"]["status"] == "FAILED_PRECONDITION"
    )


def test_a_job_without_a_runner_is_cancelled_by_its_script(cloud: FakeCloud) -> None:
    cloud.vertex.script = ("JOB_STATE_RUNNING", "JOB_STATE_FAILED")
    path = f"aiplatform/v1/{ask(cloud, 'POST', VERTEX, job_body())['name']}"
    assert ask(cloud, "GET", path)["state"] == "JOB_STATE_RUNNING"
    ask(cloud, "DELETE", path, status=400)
    ask(cloud, "POST", f"{path}:cancel")
    assert ask(cloud, "GET", path)["state"] == "JOB_STATE_CANCELLED"


def test_a_slice_is_made_once(cloud: FakeCloud) -> None:
    request_id = "12345678-1234-1234-1234-123456789abc"
    ask(cloud, "POST", TPU, slice_body(), status=400, queuedResourceId="q1", requestId="no-uuid")
    first = ask(cloud, "POST", TPU, slice_body(), queuedResourceId="q1", requestId=request_id)
    assert ask(cloud, "POST", TPU, slice_body(), queuedResourceId="q1", requestId=request_id) == first
    other = ask(cloud, "POST", TPU, slice_body(), status=409, queuedResourceId="q1")
    assert other["error"]["status"] == "ALREADY_EXISTS"
    ask(cloud, "POST", TPU, slice_body(), status=409, queuedResourceId="q2")  # Its node is there already.
    assert len(cloud.tpu.resources) == 1


def test_a_slice_is_taken_away_and_deleted(cloud: FakeCloud) -> None:
    active: list[QueuedResource] = []
    deleted: list[str] = []
    cloud.tpu.on_active = active.append
    cloud.tpu.on_delete = lambda resource: deleted.append(resource.name)
    cloud.tpu.script = ("ACTIVE",)
    ask(cloud, "POST", TPU, slice_body("n1", spot={}), queuedResourceId="q1")
    node = f"tpu/v2/{ZONE}/nodes/n1"
    ask(cloud, "GET", node, status=404)
    assert ask(cloud, "GET", f"{TPU}/q1")["state"]["state"] == "ACTIVE"
    assert [resource.node_name for resource in active] == [f"{ZONE}/nodes/n1"]
    assert ask(cloud, "DELETE", f"{TPU}/q1", status=400)["error"]["status"] == "FAILED_PRECONDITION"
    active[0].preempt()
    assert ask(cloud, "GET", node)["state"] == "PREEMPTED"
    assert ask(cloud, "GET", f"{TPU}/q1")["state"]["state"] == "SUSPENDED"
    ask(cloud, "GET", node, status=404)
    ask(cloud, "DELETE", f"{TPU}/q1")
    assert len(active) == 1 and deleted == [f"{ZONE}/queuedResources/q1"]


def test_a_build_that_cloud_build_takes(cloud: FakeCloud) -> None:
    first = {"name": "ubuntu", "id": "one", "args": ["$_TAG $$NOT_ONE ${PROJECT_ID}"], "timeout": "60s"}
    body = build_body(
        steps=[first, {"name": "ubuntu", "waitFor": ["-", "one"]}],
        substitutions={"_TAG": "1"},
        serviceAccount="projects/p/serviceAccounts/me@example.com",
        options={"logging": "CLOUD_LOGGING_ONLY"},
    )
    number = ask(cloud, "POST", BUILDS, body)["metadata"]["build"]["id"]
    assert ask(cloud, "GET", f"{BUILDS}/{number}")["status"] == "WORKING"
    assert ask(cloud, "POST", f"{BUILDS}/{number}:cancel")["status"] == "CANCELLED"
    assert ask(cloud, "POST", f"{BUILDS}/{number}:cancel", status=400)["error"]["status"] == "FAILED_PRECONDITION"
    ask(cloud, "GET", f"cloudbuild/v1/projects/{PROJECT}/builds/{number}", status=404)  # It is not in "global".


def test_entries_come_in_order_and_some_late(cloud: FakeCloud) -> None:
    resource = {"type": "ml_job", "labels": {}}
    for second, late in ((2, 0), (1, 1), (3, 0)):
        when = MOMENT + datetime.timedelta(seconds=second)
        cloud.logs.write(PROJECT, "a/b", f"{second}", resource, when=when, unseen_lists=late)
    cloud.logs.write("other-project", "a/b", "4", resource)

    def texts(**changes: Any) -> list[str]:
        body = {"resourceNames": [f"projects/{PROJECT}"], "filter": "resource.type=ml_job", **changes}
        return [
            entry["textPayload"] for entry in ask(cloud, "POST", "logging/v2/entries:list", body).get("entries", [])
        ]

    assert texts() == ["2", "3"]
    assert texts() == ["1", "2", "3"]
    assert texts(orderBy="timestamp desc", pageSize=2) == ["3", "2"]
    refused: list[dict[str, Any]] = [
        {"orderBy": "severity"},
        {"resourceNames": []},
        {"pagesize": 1},
        {"filter": "a=b OR c"},
    ]
    for wrong in refused:
        body = {"resourceNames": [f"projects/{PROJECT}"], **wrong}
        ask(cloud, "POST", "logging/v2/entries:list", body, status=400)


def test_pages_belong_to_their_list(cloud: FakeCloud) -> None:
    for _ in range(3):
        ask(cloud, "POST", VERTEX, job_body())
    page = ask(cloud, "GET", VERTEX, pageSize=2)
    rest = ask(cloud, "GET", VERTEX, pageToken=page["nextPageToken"])
    names = [job["name"] for found in (page, rest) for job in found["customJobs"]]
    assert names == list(reversed(cloud.vertex.jobs)) and "nextPageToken" not in rest
    ask(cloud, "GET", VERTEX, status=400, pageToken=page["nextPageToken"], filter='displayName="flowers"')
    ask(cloud, "GET", VERTEX, status=400, pageToken="made up")
    assert "pagesize" in ask(cloud, "GET", VERTEX, status=400, pagesize=2)["error"]["message"]


def test_images_apis_quotas_and_projects(cloud: FakeCloud) -> None:
    digest = cloud.registry.push(f"us-central1-docker.pkg.dev/{PROJECT}/hub/folder/trainer-gpu:abc")
    repository = f"artifactregistry/v1/{REGION}/repositories/hub"
    assert ask(cloud, "GET", repository)["format"] == "DOCKER"
    tag = ask(cloud, "GET", f"{repository}/packages/folder%2Ftrainer-gpu/tags/abc")
    assert tag["version"].endswith(f"/packages/folder%2Ftrainer-gpu/versions/{digest}")
    ask(cloud, "GET", f"{repository}/packages/folder%2Ftrainer-gpu/tags/abd", status=404)

    cloud.services.disabled.add("tpu.googleapis.com")
    parent = f"projects/{PROJECT}"
    names = [f"{parent}/services/{host}.googleapis.com" for host in ("tpu", "aiplatform")]
    services = ask(cloud, "GET", f"serviceusage/v1/{parent}/services:batchGet", names=names)["services"]
    assert [service["state"] for service in services] == ["DISABLED", "ENABLED"]
    ask(cloud, "GET", f"serviceusage/v1/{parent}/services:batchGet", status=400, names=names * 16)
    host, metric = "aiplatform.googleapis.com", "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus"
    cloud.services.set_quota(host, metric, "us-central1", 4)
    cloud.services.set_quota(host, metric, "", 0)
    found = ask(cloud, "GET", f"serviceusage/v1beta1/{parent}/services/{host}/consumerQuotaMetrics")["metrics"]
    buckets = found[0]["consumerQuotaLimits"][0]["quotaBuckets"]
    assert [(bucket.get("dimensions"), bucket["effectiveLimit"]) for bucket in buckets] == [
        (None, "0"),
        ({"region": "us-central1"}, "4"),
    ]

    assert ask(cloud, "GET", f"cloudresourcemanager/v3/{parent}")["projectId"] == PROJECT
    ask(cloud, "GET", "cloudresourcemanager/v3/projects/other", status=403)
    cloud.projects.denied.add("tpu.nodes.create")
    asked = {"permissions": ["tpu.nodes.create", "tpu.nodes.get"]}
    test = f"cloudresourcemanager/v3/{parent}:testIamPermissions"
    assert ask(cloud, "POST", test, asked) == {"permissions": ["tpu.nodes.get"]}
    ask(cloud, "POST", test, {"permissions": ["nonsense"]}, status=400)


def test_buckets_tell_where_they_are_and_what_one_may_do(cloud: FakeCloud) -> None:
    cloud.bucket("bucket")
    cloud.storage.locations["bucket"] = "EUROPE-WEST4"
    assert ask(cloud, "GET", "storage/v1/b/bucket")["location"] == "EUROPE-WEST4"
    cloud.storage.denied.add("storage.objects.create")
    asked = ["storage.objects.create", "storage.objects.get"]
    granted = ask(cloud, "GET", "storage/v1/b/bucket/iam/testPermissions", permissions=asked)
    assert granted["permissions"] == ["storage.objects.get"]
    ask(cloud, "GET", "storage/v1/b/none/iam/testPermissions", status=404, permissions=asked)


@pytest.mark.parametrize("path", [VERTEX, TPU, BUILDS, "storage/v1/b/bucket", f"serviceusage/v1/projects/{PROJECT}"])
def test_every_api_wants_a_token_where_they_are_checked(cloud: FakeCloud, path: str) -> None:
    cloud.bucket("bucket")
    cloud.tokens.are_checked = True
    assert ask(cloud, "GET", path, status=401)["error"]["status"] == "UNAUTHENTICATED"


def test_what_comes_is_noted_and_goes_wrong_as_it_should(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("GET /aiplatform", 429, times=1))
    assert ask(cloud, "GET", VERTEX, status=429, filter='a="b"')["error"]["status"] == "RESOURCE_EXHAUSTED"
    cloud.faults.append(Fault("/aiplatform", "dropped", times=1))
    with pytest.raises(requests.ConnectionError):
        ask(cloud, "POST", VERTEX, job_body())
    assert not cloud.vertex.jobs
    cloud.faults.append(Fault("/aiplatform", "lost answer", times=1))
    with pytest.raises(requests.ConnectionError):
        ask(cloud, "POST", VERTEX, job_body())
    assert len(cloud.vertex.jobs) == 1
    first, second, third = cloud.requests
    assert (first.api, first.method, first.path) == ("aiplatform", "GET", f"/v1/{REGION}/customJobs")
    assert first.query == {"filter": 'a="b"'} and first.body is None
    assert second.body == third.body == job_body() and "application/json" in second.headers["content-type"]
