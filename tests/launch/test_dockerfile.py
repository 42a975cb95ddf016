"""The image: what its Dockerfile says, what is pinned, what the build is given; and, where there is buildah, the image.

The last takes minutes and is asked for by hand, with a base image that has Python 3.11 and the way to a package index:

    TRAINER_TEST_BASE=docker.io/library/python:3.11-slim python -m pytest -m long tests/launch/test_dockerfile.py
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import builds
import pytest
import setuptools  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from launch.images import pin

FOLDER = builds.ROOT / "launch" / "images"
TARGETS = ("cpu", "gpu", "tpu")


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, its FROM the first, continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[str]] = {"": []}
    for instruction in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if instruction.startswith("FROM "):
            found[instruction.rpartition(" AS ")[2]] = []
        found[list(found)[-1]].append(instruction)
    return found


def pins(target: str) -> dict[str, str]:
    """The versions of a target's file by the names of packages."""
    lines = (FOLDER / f"{target}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {pair[0]: pair[1] for pair in pairs}


def test_there_is_a_stage_for_each_target_on_one_base() -> None:
    found = stages()
    assert list(found) == ["", "base", *TARGETS]
    assert found["base"][0] == "FROM ${BASE} AS base"
    assert [found[target][0] for target in TARGETS] == [f"FROM base AS {target}" for target in TARGETS]


def test_the_base_is_pinned_and_of_the_python_that_pins_are_made_with() -> None:
    (default,) = stages()[""]
    version = re.fullmatch(r"ARG BASE=docker\.io/library/python:(3\.\d+)\.\d+-slim-[a-z]+", default)
    assert version is not None
    assert version[1] == ".".join(map(str, pin.PYTHON))
    tests = re.search(r"name: python:(\S+)", (builds.ROOT / "cloudbuild.yaml").read_text(encoding="utf-8"))
    assert tests is not None
    assert tests[1].replace("-", "-slim-") == default.rpartition(":")[2]


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_is_root_in_the_end(target: str) -> None:
    instructions = stages()["base"] + stages()[target]
    assert instructions[-1] == "USER 1000:1000"
    assert any(re.match(r"RUN useradd --uid 1000 ", each) for each in stages()["base"])


@pytest.mark.parametrize("target", TARGETS)
def test_packages_are_a_layer_below_the_source(target: str) -> None:
    kinds = [each.partition(" ")[0] for each in stages()[target] if not each.startswith("ENV")]
    assert kinds == ["FROM", "COPY", "RUN", "COPY", "COPY", "USER"]
    copies = [each.split()[1:] for each in stages()[target] if each.startswith("COPY")]
    assert copies[0] == [f"launch/images/{target}.txt", "/opt/pinned.txt"]
    assert [source for source, _ in copies[1:]] == ["trainer", "launch"]


def test_nothing_is_installed_but_what_is_pinned() -> None:
    installs = [each for target in TARGETS for each in stages()[target] if "install" in each]
    for command in re.findall(r"pip install[^&]*", " ".join(installs)):
        assert "--no-deps" in command and "/opt/pinned.txt" in command
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^(?:RUN|ADD) .*\b(?:apt|apt-get|curl|wget|gcc|git)\b|^ADD", text, re.MULTILINE)
    assert "PYTHONUNBUFFERED=1" in " ".join(stages()["base"])


def test_nothing_that_is_kept_in_the_image_is_a_secret() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG (\w+)", text, re.MULTILINE) == ["BASE"]
    assert not re.search(r"TOKEN|PASSWORD|SECRET|CREDENTIALS|_KEY\b", text)


def test_the_build_is_given_what_it_copies_and_nothing_else() -> None:
    lines = (builds.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        each.split()[1].split("/")[0] for target in TARGETS for each in stages()[target] if each.startswith("COPY")
    }
    assert let_in == copied
    assert {"**/__pycache__", "**/*.pyc"} <= set(rules)


def required(target: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What setup.py and requirements-tpu.txt ask for."""
    given: dict[str, Any] = {}
    monkeypatch.chdir(builds.ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.setenv("TRAINER_TENSORFLOW", "tpu" if target == "tpu" else "default")
    runpy.run_path("setup.py")
    beside = (builds.ROOT / "requirements-tpu.txt").read_text(encoding="utf-8").splitlines() if target == "tpu" else []
    extra = given["extras_require"]["gpu"] if target == "gpu" else []
    return [*given["install_requires"], *extra, *(line for line in beside if line and not line.startswith("#"))]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_pinned_is_what_setup_asks_for(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = pins(target)
    for requirement in map(Requirement, required(target, monkeypatch)):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and re.fullmatch(r"[0-9][0-9a-z.]*", pinned[name]) for name in pinned)
    assert {"setuptools", "wheel"} <= set(pinned)  # They build the one package that is no wheel.


def test_no_image_gets_two_tensorflows() -> None:
    assert {"tensorflow-tpu", "libtpu"} <= set(pins("tpu")) and "tensorflow" not in pins("tpu")
    for target in ("cpu", "gpu"):
        assert "tensorflow" in pins(target) and not {"tensorflow-tpu", "libtpu"} & set(pins(target))
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12"} <= set(pins("gpu"))


def test_pins_are_what_pip_chose_in_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [
        ("typing_extensions", "4.16.0", "https://files/t.whl"),
        ("Jinja2", "3.1.6", "https://files/j.whl"),
        ("hub-trainer", "0.1.0", builds.ROOT.as_uri()),
    ]

    def pip(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        assert {"--dry-run", "--ignore-installed", "."} <= set(command)
        assert env["TRAINER_TENSORFLOW"] == "tpu"
        (report,) = [each.partition("=")[2] for each in command if each.startswith("--report=")]
        installs = [{"metadata": {"name": n, "version": v}, "download_info": {"url": url}} for n, v, url in chosen]
        Path(report).write_text(json.dumps({"install": installs}))

    monkeypatch.setattr(pin.subprocess, "run", pip)
    head, *lines = pin.pinned_text("tpu").splitlines()
    assert head == "# Written by `python3.11 -m launch.images.pin tpu`."
    assert lines == ["jinja2==3.1.6", "tensorflow-hub==0.16.1", "tf-keras==2.20.1", "typing-extensions==4.16.0"]


@pytest.mark.parametrize("arguments", [[], ["cpu", "npu"]])
def test_pins_of_another_target_are_not_made(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pin, "PYTHON", sys.version_info[:2])
    assert pin.main(arguments) == 2
    assert "targets are cpu, gpu, tpu" in capsys.readouterr().err
    monkeypatch.setattr(pin, "PYTHON", (3, 0))
    assert pin.main(["cpu"]) == 2
    assert "the images have Python 3.0" in capsys.readouterr().err


BASE = os.environ.get("TRAINER_TEST_BASE", "")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed here")
@pytest.mark.skipif(not BASE, reason="TRAINER_TEST_BASE names no image with Python 3.11 to build on")
def test_the_image_builds_and_trains() -> None:
    """Storage, mounts and such are set for buildah by its own CONTAINERS_CONF and CONTAINERS_STORAGE_CONF."""

    def buildah(*arguments: str, seconds: int = 60) -> str:
        command = ["buildah", "--storage-driver=vfs", *arguments]
        done = subprocess.run(command, cwd=builds.ROOT, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.strip()

    tag = f"localhost/hub-trainer-test:{uuid.uuid4().hex}"
    chroot = "--isolation=chroot"
    file, argument = "--file=launch/images/Dockerfile", f"--build-arg=BASE={BASE}"
    buildah("bud", chroot, file, "--target=cpu", argument, f"--tag={tag}", ".", seconds=1500)
    container = ""
    try:
        container = buildah("from", tag, seconds=300)
        assert buildah("run", chroot, container, "--", "id", "-u") == "1000"
        said = buildah("run", chroot, container, "--", "python", "-m", "trainer.task", "--dry_run", seconds=300)
        assert "plan     10 epochs" in said
    finally:
        if container:
            buildah("rm", container)
        buildah("rmi", tag)
