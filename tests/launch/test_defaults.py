"""What gcloud is set to, from its files and variables, without gcloud."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from launch.jobs.defaults import gcloud_default


def configuration(folder: Path, text: str, name: str = "default") -> dict[str, str]:
    """The environment in which gcloud is set up like this."""
    (folder / "configurations").mkdir(parents=True, exist_ok=True)
    (folder / "active_config").write_text(name)
    (folder / "configurations" / f"config_{name}").write_text(text)
    return {"CLOUDSDK_CONFIG": str(folder)}


def test_of_the_active_configuration(tmp_path: Path) -> None:
    configuration(tmp_path, "[core]\nproject = other\n", "default")
    environment = configuration(
        tmp_path, "[core]\nproject = mine%20\n[compute]\nregion = us-east1\nzone = us-east1-b\n", "work"
    )
    assert [gcloud_default(name, environment) for name in ("project", "region", "zone")] == [
        "mine%20",
        "us-east1",
        "us-east1-b",
    ]
    assert gcloud_default("project", {**environment, "CLOUDSDK_ACTIVE_CONFIG_NAME": "default"}) == "other"


def test_the_region_of_vertex_comes_first(tmp_path: Path) -> None:
    environment = configuration(tmp_path, "[ai]\nregion = europe-west4\n[compute]\nregion = us-east1\n")
    assert gcloud_default("region", environment) == "europe-west4"


def test_variables_come_before_files(tmp_path: Path) -> None:
    environment = configuration(tmp_path, "[core]\nproject = mine\n")
    assert gcloud_default("project", {**environment, "GOOGLE_CLOUD_PROJECT": "theirs"}) == "theirs"
    both = {**environment, "GOOGLE_CLOUD_PROJECT": "theirs", "CLOUDSDK_CORE_PROJECT": "first"}
    assert gcloud_default("project", both) == "first"


@pytest.mark.parametrize("text", ["no section", "[core\n", "[core]\nproject", "\x00"])
def test_a_broken_configuration_says_nothing(tmp_path: Path, text: str) -> None:
    assert gcloud_default("project", configuration(tmp_path, text)) == ""


def test_none_at_all(tmp_path: Path) -> None:
    assert gcloud_default("zone", {"HOME": str(tmp_path)}) == gcloud_default("zone", {}) == ""


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_as_gcloud_itself_writes_it(tmp_path: Path) -> None:
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    subprocess.run(
        ["gcloud", "config", "set", "ai/region", "us-west1"],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert gcloud_default("region", {"CLOUDSDK_CONFIG": str(tmp_path)}) == "us-west1"
