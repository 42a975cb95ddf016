"""What doctor says of this machine: TensorFlow and its devices, versions that go together, other programs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from launch.doctor.checks import Check
from launch.doctor.machine_checks import VERSIONS, program_checks, tensorflow_check, version_checks

GOOD = {"tensorflow": "2.21.0", "keras": "3.15.1", "tensorflow-hub": "0.16.1", "tf-keras": "2.21.0"}
GOOD_TPU = {"tensorflow-tpu": "2.20.0", "libtpu": "0.0.31", "keras": "3.15.1", "tf-keras": "2.20.1"}


def checked(code: str, root: Path, seconds: float = 60.0) -> Check:
    """What is said of a TensorFlow that does as the code says."""
    return tensorflow_check(command=[sys.executable, "-c", code], seconds=seconds, environment=os.environ, root=root)


def answering(tmp_path: Path, gpus: list[str], tpu_support: bool, *devices: str) -> Check:
    """What is said of a TensorFlow that finds these GPUs on a machine with these device files."""
    for device in devices:
        (tmp_path / device).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / device).touch()
    found = json.dumps({"version": "2.21.0", "gpus": gpus, "tpu_support": tpu_support})
    return checked(f"print('a note')\nprint({found!r})", tmp_path)


def test_the_real_tensorflow_is_asked() -> None:
    check = tensorflow_check(environment=os.environ)
    assert check.verdict == "ok"
    assert check.finding.startswith(importlib.metadata.version("tensorflow"))


def test_a_machine_without_devices_trains_on_its_cpu(tmp_path: Path) -> None:
    check = answering(tmp_path, [], False)
    assert check == Check("TensorFlow", "ok", "2.21.0, no GPU or TPU here, so it trains on the CPU.")


def test_gpus_are_named(tmp_path: Path) -> None:
    check = answering(tmp_path, ["NVIDIA L4", "NVIDIA L4"], False, "dev/nvidia0")
    assert check == Check("TensorFlow", "ok", "2.21.0, 2 GPUs here: NVIDIA L4, NVIDIA L4.")


def test_a_gpu_that_tensorflow_does_not_find(tmp_path: Path) -> None:
    check = answering(tmp_path, [], False, "dev/nvidia0")
    assert (check.verdict, check.way_out) == ("problem", "pip install 'tensorflow[and-cuda]==2.21.0'")


def test_a_tpu_that_tensorflow_cannot_use(tmp_path: Path) -> None:
    check = answering(tmp_path, [], False, "dev/vfio/0")
    assert check.verdict == "problem"
    assert check.way_out.startswith("TRAINER_TENSORFLOW=tpu pip install . && ")
    assert answering(tmp_path, [], True).finding == "2.21.0, a TPU here."


@pytest.mark.parametrize(
    ("code", "verdict", "finding", "way_out"),
    [
        ("raise ModuleNotFoundError(\"No module named 'tensorflow'\")", "problem", "not installed", "pip install ."),
        ("raise ImportError('libtpu is too new')", "problem", "ImportError: libtpu is too new", "pip install --force"),
        ("import os; os.abort()", "problem", "it ends with exit code -6", "pip install --force"),
        ("", "problem", "it ends with exit code 0", "pip install --force"),
    ],
)
def test_a_tensorflow_that_does_not_start(code: str, verdict: str, finding: str, way_out: str, tmp_path: Path) -> None:
    check = checked(code, tmp_path)
    assert check.verdict == verdict
    assert finding in check.finding
    assert check.way_out.startswith(way_out)


def test_a_tensorflow_that_hangs_is_unknown(tmp_path: Path) -> None:
    check = checked("import time; time.sleep(60)", tmp_path, seconds=0.3)
    assert check == Check("TensorFlow", "unknown", "it did not start within 0.3 s.")


@pytest.mark.parametrize("versions", [GOOD, GOOD_TPU])
def test_versions_that_go_together(versions: Mapping[str, str]) -> None:
    (check,) = version_checks({**versions, "setuptools": "80.9.0"}.get)
    assert check.verdict == "ok"
    assert (
        check.finding == f"{', '.join(f'{name} {version}' for name, version in sorted_as_shown(versions))} go together."
    )


def sorted_as_shown(versions: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, versions[name]) for name in (*VERSIONS, "tf-keras") if name in versions]


@pytest.mark.parametrize(
    ("changed", "finding", "way_out"),
    [
        ({"tensorflow": "2.19.1", "tf-keras": "2.19.0"}, "tensorflow 2.19.1 is not from", "'tensorflow>=2.20,<2.22'"),
        ({"tensorflow": "2.22.0", "tf-keras": "2.22.0"}, "tensorflow 2.22.0 is not from", "'tensorflow>=2.20,<2.22'"),
        ({"tf-keras": "2.20.1"}, "tf-keras 2.20.1 does not go with TensorFlow 2.21.0.", "--no-deps 'tf-keras==2.21.*'"),
        ({"keras": "2.15.0"}, "keras 2.15.0 is not from 3 to below 4.", "'keras>=3,<4'"),
        ({"tensorflow-hub": "0.15.0"}, "tensorflow-hub 0.15.0", "'tensorflow-hub>=0.16.1,<0.17'"),
        ({"setuptools": "81.0.0"}, "setuptools 81.0.0 is not from 0 to below 81.", "'setuptools>=0,<81'"),
        ({"setuptools": "81"}, "setuptools 81 is not from 0 to below 81.", "pip install"),
        (
            {"tensorflow-tpu": "2.20.0", "libtpu": "0.0.31"},
            "both installed",
            "pip uninstall --yes tensorflow tensorflow-tpu",
        ),
    ],
)
def test_versions_that_do_not(changed: dict[str, str], finding: str, way_out: str) -> None:
    (check,) = version_checks({**GOOD, **changed}.get)
    assert check.verdict == "problem"
    assert finding in check.finding
    assert way_out in check.way_out


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"libtpu": "0.0.51"}, "libtpu 0.0.51 is not from 0.0.31 to below 0.0.32."),
        ({"libtpu": None}, "tensorflow-tpu needs libtpu."),
        ({"tensorflow-tpu": "2.19.0", "tf-keras": "2.19.0"}, "tensorflow-tpu 2.19.0 is not from"),
    ],
)
def test_versions_on_a_tpu_machine_that_do_not(changed: dict[str, str | None], finding: str) -> None:
    (check,) = version_checks({**GOOD_TPU, **changed}.get)
    assert (check.verdict, finding in check.finding) == ("problem", True)
    assert check.way_out.startswith("pip install ")


def test_a_libtpu_that_is_there_for_something_else_is_let_be() -> None:
    (check,) = version_checks({**GOOD, "libtpu": "0.0.51"}.get)
    assert check.verdict == "ok"


def test_no_tensorflow_is_not_ok() -> None:
    (check,) = version_checks(lambda _: None)
    assert check.verdict == "unknown"


def test_the_versions_are_those_that_setup_asks_for() -> None:
    setup = (Path(__file__).resolve().parents[2] / "setup.py").read_text(encoding="utf-8")
    for name in ("tensorflow", "tensorflow-hub"):
        assert f'"{name}>={VERSIONS[name][0]},<{VERSIONS[name][1]}"' in setup
    for name in ("tensorflow-tpu", "libtpu"):
        assert f'"{name}=={VERSIONS[name][0]}"' in setup
    assert f'"setuptools<{VERSIONS["setuptools"][1]}"' in setup


def test_programs() -> None:
    assert [check.verdict for check in program_checks(lambda program: f"/usr/bin/{program}")] == ["ok", "ok"]
    gcloud, docker = program_checks(lambda _: None)
    assert (gcloud.verdict, gcloud.way_out) == ("problem", "https://cloud.google.com/sdk/docs/install")
    assert docker.verdict == "unknown"
