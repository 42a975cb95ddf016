"""`launch doctor`: every line is right about what it looked at, says how to mend it, and is never ok unseen."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.cloud import Answer, FakeCloud, Fault, GoogleError, serving
from fakes.credentials import EMAIL, PROJECT

from launch.commands import doctor_command as doctor
from launch.commands.doctor_command import Wanted, add_options, all_checks, execute, lines_of, wanted_by
from launch.doctor.checks import Check, Verdict
from launch.doctor.quotas import effective_limit
from launch.tables import Look
from trainer.errors import EXIT_DONE, EXIT_USER, UserError

IMAGE = f"us-central1-docker.pkg.dev/{PROJECT}/hub-trainer/trainer-gpu:abc"
WANTED = Wanted(PROJECT, "us-central1", "", "l4:2", "gs://flowers/runs/1", IMAGE)
TPU = replace(WANTED, region="us-west4", zone="us-west4-a", accelerator="v5litepod-16", image="")

METRIC = "aiplatform.googleapis.com/custom_model_training_nvidia_l4_gpus"
VERSIONS = {"tensorflow": "2.21.0", "keras": "3.15.1", "tensorflow-hub": "0.16.1", "tf-keras": "2.21.0"}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    """A cloud in which all is well, and this process with credentials for it."""
    with serving() as fake:
        for name, value in {**fake.environment(), **fake.credentials(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        fake.bucket("flowers")
        fake.storage.locations["flowers"] = "US-CENTRAL1"
        fake.registry.push(IMAGE)
        fake.services.set_quota("aiplatform.googleapis.com", METRIC, "us-central1", 8)
        yield fake


def found(wanted: Wanted, *, offline: bool = False) -> dict[str, Check]:
    """What doctor finds, by title."""
    checks = all_checks(
        wanted,
        os.environ,
        offline=offline,
        ask_tensorflow=lambda: Check("TensorFlow", "ok", "2.21.0."),
        version_of=VERSIONS.get,
        sleep=lambda _: None,
    )
    return {check.title: check for check in checks}


def assert_check(check: Check, verdict: Verdict, finding: str, way_out: str = "") -> None:
    assert check.verdict == verdict, check
    assert finding in check.finding
    assert way_out in check.way_out if way_out else not check.way_out


def test_where_all_is_well_all_is_ok(cloud: FakeCloud) -> None:
    checks = found(WANTED)
    cloud_checks = [check for title, check in checks.items() if title not in ("gcloud", "docker")]
    assert [check.verdict for check in cloud_checks] == ["ok"] * len(cloud_checks)
    assert list(checks) == [
        "credentials",
        "project",
        "APIs",
        "machines",
        "bucket",
        "bucket region",
        "image",
        "quota",
        "gcloud",
        "docker",
        "versions",
        "TensorFlow",
    ]
    assert EMAIL in checks["credentials"].finding
    assert checks["machines"].finding == "l4:2 (g2-standard-24) in us-central1."
    assert checks["quota"].finding == "custom_model_training_nvidia_l4_gpus in us-central1: 8."


def test_it_changes_nothing(cloud: FakeCloud) -> None:
    found(WANTED)
    assert {request.method for request in cloud.requests if request.api != "token"} == {"GET"}


def test_credentials_that_are_not_accepted(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("^POST /token", 400))
    checks = found(WANTED)
    assert_check(checks["credentials"], "problem", "they are not accepted", "gcloud auth application-default login")
    for title in ("project", "APIs", "bucket", "image", "quota"):
        assert checks[title].verdict == "unknown"
    assert {request.api for request in cloud.requests} == {"token"}


def test_nobody_answers(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("^POST /token", "dropped"))
    checks = found(WANTED)
    assert_check(checks["credentials"], "unknown", "Google does not answer from here.")
    assert checks["project"].verdict == checks["quota"].verdict == "unknown"


def test_no_credentials(cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    check = found(WANTED)["credentials"]
    assert_check(check, "problem", "absent.json cannot be used.", "gcloud auth application-default login")


def test_a_project_that_is_not_there(cloud: FakeCloud) -> None:
    checks = found(replace(WANTED, project="other"))
    assert_check(checks["project"], "problem", "other is not there, or may not be seen.", "gcloud projects list")


def test_a_project_that_is_being_deleted(cloud: FakeCloud) -> None:
    deleted = Answer(200, json.dumps({"projectId": PROJECT, "lifecycleState": "DELETE_REQUESTED"}).encode())
    cloud.faults.append(Fault("cloudresourcemanager", deleted))
    undelete = f"gcloud projects undelete {PROJECT}"
    assert_check(found(WANTED)["project"], "problem", f"{PROJECT} is DELETE_REQUESTED.", undelete)


def test_credentials_that_an_api_does_not_accept(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("serviceusage", 401))
    login = "gcloud auth application-default login"
    assert_check(found(WANTED)["APIs"], "problem", "Google does not accept the credentials.", login)


def test_no_project_is_given(cloud: FakeCloud) -> None:
    checks = found(replace(WANTED, project=""))
    assert_check(checks["project"], "problem", "give --project", "gcloud config set project PROJECT")
    assert checks["APIs"].verdict == checks["quota"].verdict == "unknown"


def test_apis_that_are_not_enabled(cloud: FakeCloud) -> None:
    cloud.services.disabled |= {"tpu.googleapis.com", "cloudbuild.googleapis.com"}
    assert_check(
        found(WANTED)["APIs"],
        "problem",
        "not enabled: tpu, cloudbuild.",
        f"gcloud services enable tpu.googleapis.com cloudbuild.googleapis.com --project={PROJECT}",
    )


def test_an_api_that_says_that_it_is_not_enabled_is_to_be_enabled(cloud: FakeCloud) -> None:
    message = "Service Usage API has not been used in project 1 before or it is disabled. Enable it by visiting a page"
    cloud.faults.append(Fault("serviceusage", GoogleError(403, message).answer()))
    checks = found(WANTED)
    for title in ("APIs", "quota"):
        enable = f"gcloud services enable serviceusage.googleapis.com --project={PROJECT}"
        assert_check(checks[title], "problem", "serviceusage.googleapis.com is not enabled.", enable)


def test_what_may_not_be_seen_is_unknown(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("serviceusage|artifactregistry", 403))
    checks = found(WANTED)
    for title in ("APIs", "image", "quota"):
        assert_check(checks[title], "unknown", "this account may not ask for it: ")


def test_what_does_not_answer_is_unknown(cloud: FakeCloud) -> None:
    cloud.faults.append(Fault("serviceusage|/storage/|artifactregistry|cloudresourcemanager", 503))
    checks = found(WANTED)
    for title in ("project", "APIs", "bucket", "image", "quota"):
        assert_check(checks[title], "unknown", "answers 503")
    assert len([request for request in cloud.requests if request.api != "token"]) == 5 * 2


def test_a_bucket_that_is_not_there(cloud: FakeCloud) -> None:
    checks = found(replace(WANTED, run_dir="gs://absent/run"))
    create = f"gcloud storage buckets create gs://absent --location=us-central1 --project={PROJECT}"
    assert_check(checks["bucket"], "problem", "gs://absent is not there.", create)
    assert "bucket region" not in checks


def test_a_bucket_that_may_not_be_written_to(cloud: FakeCloud) -> None:
    cloud.storage.denied.add("storage.objects.create")
    checks = found(WANTED)
    grant = (
        f"gcloud storage buckets add-iam-policy-binding gs://flowers --member=serviceAccount:{EMAIL} "
        "--role=roles/storage.objectAdmin"
    )
    assert_check(checks["bucket"], "problem", "without storage.objects.create for this account.", grant)
    assert checks["bucket region"].verdict == "ok"


@pytest.mark.parametrize(
    ("location", "region", "verdict", "finding"),
    [
        ("EUROPE-WEST4", "us-central1", "problem", "is in europe-west4 and the job in us-central1"),
        ("EU", "us-central1", "problem", "is in eu and the job in us-central1"),
        ("US", "us-central1", "unknown", "is in several regions, us; Google wants buckets of one"),
        ("EU", "europe-west4", "unknown", "is in several regions, eu; Google wants buckets of one"),
        ("US-CENTRAL1", "us-central1", "ok", "and the job are in us-central1."),
        ("US-CENTRAL1", "", "unknown", "is in us-central1; where is the job?"),
    ],
)
def test_where_a_bucket_is(cloud: FakeCloud, location: str, region: str, verdict: Verdict, finding: str) -> None:
    cloud.storage.locations["flowers"] = location
    check = found(replace(WANTED, region=region))["bucket region"]
    assert check.verdict == verdict
    assert finding in check.finding
    wants_another = verdict == "problem" or "several regions" in finding
    another = f"gcloud storage buckets create gs://flowers-{region} --location={region} --project={PROJECT}"
    assert check.way_out == (another if wants_another else "")


def test_a_run_directory_that_is_on_no_bucket(cloud: FakeCloud) -> None:
    for run_dir in ("/tmp/run", "gs://"):
        check = found(replace(WANTED, run_dir=run_dir))["bucket"]
        assert_check(check, "problem", f"--run_dir={run_dir} is not on gs://BUCKET/FOLDER.")


def test_images(cloud: FakeCloud) -> None:
    other = IMAGE.replace(":abc", ":def")
    check = found(replace(WANTED, image=other))["image"]
    listing = f"gcloud artifacts docker images list us-central1-docker.pkg.dev/{PROJECT}/hub-trainer --include-tags"
    assert_check(check, "problem", f"{other} is not there", listing)
    digest = cloud.registry.push(IMAGE)
    assert found(replace(WANTED, image=IMAGE.replace(":abc", f"@{digest}")))["image"].verdict == "ok"
    unpushed = IMAGE.replace(":abc", f"@sha256:{'0' * 64}")
    assert found(replace(WANTED, image=unpushed))["image"].verdict == "problem"
    elsewhere = found(replace(WANTED, image="docker.io/library/python:3.11"))["image"]
    assert_check(elsewhere, "unknown", "is not in Artifact Registry.", "docker manifest inspect docker.io/")


@pytest.mark.parametrize(
    ("limits", "verdict", "finding"),
    [
        ({"us-central1": 1}, "problem", "in us-central1 is 1, and t4 takes 2."),
        ({"us-central1": 0, "": 8}, "problem", "in us-central1 is 0, and t4 takes 2."),
        ({"europe-west4": 0, "": 8}, "ok", "in us-central1: 8."),
        ({"us-central1": -1}, "ok", "in us-central1: no limit."),
        ({"europe-west4": 8}, "unknown", "has no limit for us-central1."),
    ],
)
def test_quotas_of_gpus(cloud: FakeCloud, limits: dict[str, int], verdict: Verdict, finding: str) -> None:
    metric = "aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus"
    for region, limit in limits.items():
        cloud.services.set_quota("aiplatform.googleapis.com", metric, region, limit)
    check = found(replace(WANTED, accelerator="t4:2"))["quota"]
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={PROJECT}"
    assert_check(check, verdict, finding, "" if verdict == "ok" else page)


def test_of_several_limits_the_least_counts_and_an_omitted_number_is_zero() -> None:
    def limit(*buckets: dict[str, object]) -> dict[str, object]:
        return {"quotaBuckets": list(buckets)}

    zone, region = {"zone": "us-west4-a"}, {"region": "us-west4"}
    of_zone = limit({"effectiveLimit": "64"}, {"dimensions": zone, "effectiveLimit": "32"})
    of_region = limit({"effectiveLimit": "64"}, {"dimensions": region, "effectiveLimit": "16"})
    endless = limit({"effectiveLimit": "-1"})

    def least(*limits: dict[str, object]) -> int | None:
        return effective_limit({"consumerQuotaLimits": list(limits)}, "us-west4-a", "us-west4")

    assert least(of_zone) == 32
    assert least(of_zone, of_region, endless) == 16
    assert least(endless) == -1
    assert least(limit({"effectiveLimit": "64"}, {"dimensions": zone})) == 0
    assert least(limit({"dimensions": {"zone": "us-west4-b"}, "effectiveLimit": "8"})) is None
    assert least() is None


def test_quotas_of_tpus_are_of_chips_or_cores_and_nobody_says_which(cloud: FakeCloud) -> None:
    metric = "aiplatform.googleapis.com/custom_model_training_tpu_v3"
    v3 = replace(WANTED, accelerator="v3-8")
    for limit, verdict in ((3, "problem"), (4, "unknown"), (8, "ok")):
        cloud.services.set_quota("aiplatform.googleapis.com", metric, "us-central1", limit)
        assert found(v3)["quota"].verdict == verdict


def test_a_zone_means_cloud_tpu(cloud: FakeCloud) -> None:
    cloud.services.set_quota("tpu.googleapis.com", "tpu.googleapis.com/tpu-v5s-litepod", "", 8)
    checks = found(TPU)
    assert checks["machines"].finding == "v5litepod-16 in us-west4-a."
    assert_check(checks["quota"], "problem", "tpu-v5s-litepod in us-west4-a is 8, and v5litepod-16 takes 16.", "https")
    assert_check(found(replace(TPU, accelerator="v2-8"))["quota"], "unknown", "the quota of v2-8 is not known", "https")


def test_a_quota_that_the_service_does_not_have_is_unknown(cloud: FakeCloud) -> None:
    check = found(replace(WANTED, accelerator="t4"))["quota"]
    assert_check(
        check, "unknown", "this project has no aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus", "h"
    )


def test_machines_that_do_not_go_together(cloud: FakeCloud) -> None:
    check = found(replace(WANTED, accelerator="l4", region="us-west3"))["machines"]
    assert_check(check, "problem", "--region=us-west3 has no l4 for training; take us-central1,")
    checks = found(replace(WANTED, accelerator="l5"))
    assert (checks["machines"].verdict, checks["quota"].verdict) == ("problem", "unknown")


def test_offline_nobody_is_asked(cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = found(WANTED, offline=True)
    assert not cloud.requests
    assert_check(checks["credentials"], "unknown", "service-account.json; whether Google accepts them was not asked")
    for title in ("project", "APIs", "bucket", "image", "quota"):
        assert_check(checks[title], "unknown", "not asked: --offline.")
    assert checks["machines"].verdict == checks["versions"].verdict == "ok"
    login = "gcloud auth application-default login"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    assert_check(found(WANTED, offline=True)["credentials"], "problem", "absent.json is not there.", login)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert_check(found(WANTED, offline=True)["credentials"], "unknown", "only Google's own machines need none.", login)


def test_nothing_given_is_nothing_known(cloud: FakeCloud) -> None:
    checks = found(Wanted(PROJECT))
    for title in ("machines", "bucket", "image", "quota"):
        assert_check(checks[title], "unknown", "give --")


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_what_is_not_given_is_gclouds() -> None:
    environment = {"CLOUDSDK_CORE_PROJECT": "p1", "CLOUDSDK_COMPUTE_REGION": "us-east1"}
    assert wanted_by(parsed(), environment) == Wanted("p1", "us-east1")
    assert wanted_by(parsed("--project=p2", "--zone=us-west4-a"), environment) == Wanted("p2", "us-west4", "us-west4-a")


@pytest.mark.parametrize(("verdicts", "code"), [(["ok", "unknown"], EXIT_DONE), (["ok", "problem"], EXIT_USER)])
def test_the_exit_code_tells_of_problems_alone(
    verdicts: Sequence[Verdict], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        Check(f"thing {number}", verdict, "a \x1b[31mfinding.", "mend \x1b[2J")
        for number, verdict in enumerate(verdicts)
    ]
    monkeypatch.setattr(doctor, "all_checks", lambda *_, **__: iter(checks))
    assert execute(parsed(), ()) == code
    text = capsys.readouterr().out
    assert "\x1b" not in text and "thing 1" in text
    assert execute(parsed("--json"), ()) == code
    assert json.loads(capsys.readouterr().out) == [check.to_json() for check in checks]


def test_trainer_flags_are_refused() -> None:
    with pytest.raises(UserError, match="--data=digits stands behind --"):
        execute(parsed(), ("--data=digits",))


def test_it_reads_well_in_60_columns() -> None:
    look = Look(io.StringIO(), 60, False)
    create = "gcloud storage buckets create gs://flowers-us-central1 --location=us-central1 --project=p"
    finding = "gs://flowers is in europe-west4 and the job in us-central1: slow, and each byte is charged for."
    assert lines_of(Check("bucket region", "problem", finding, create), look) == [
        "problem   bucket region: gs://flowers is in europe-west4 and",
        "          the job in us-central1: slow, and each byte is",
        "          charged for.",
        "          gcloud storage buckets create gs://flowers-us-central1 \\",
        "            --location=us-central1 \\",
        "            --project=p",
    ]
    assert lines_of(Check("docker", "ok", "/usr/bin/docker."), look) == ["ok        docker: /usr/bin/docker."]
