"""What setup.py asks for, and that a TPU machine never gets a second TensorFlow.

Reads the metadata of what is installed, and no network.
"""

import re
import runpy
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import setuptools  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import trainer

ROOT = Path(__file__).resolve().parents[1]

ONLY_ON_TPU_MACHINES = {"tensorflow-tpu", "libtpu"}
"""Their own requirements cannot be looked up here. Those of tensorflow-tpu are tensorflow's and libtpu has none."""


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives what setup.py tells setuptools, for a value of TRAINER_TENSORFLOW."""

    def read(tensorflow: str | None = None) -> dict[str, Any]:
        captured: dict[str, Any] = {}
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(setuptools, "setup", lambda **given: captured.update(given))
        monkeypatch.delenv("TRAINER_TENSORFLOW", raising=False)
        if tensorflow is not None:
            monkeypatch.setenv("TRAINER_TENSORFLOW", tensorflow)
        runpy.run_path(str(ROOT / "setup.py"))
        return captured

    return read


def needed(requirements: Iterable[str]) -> set[str]:
    """Names of all distributions that are reached from some requirements, as far as they are installed."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in found:
            continue
        found.add((name, extras))
        try:
            inner = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            inner = []
        for each in map(Requirement, inner):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append(each)
    return {name for name, _ in found}


def tpu_extra_requirements() -> list[Requirement]:
    lines = (ROOT / "requirements-tpu.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_a_cpu_or_gpu_machine_gets_tensorflow(arguments: Any) -> None:
    assert {"tensorflow", "tensorflow-hub", "tf-keras"} <= needed(arguments()["install_requires"])


def test_nothing_that_a_tpu_machine_gets_asks_for_the_other_tensorflow(arguments: Any) -> None:
    names = needed(arguments("tpu")["install_requires"])
    assert names >= {*ONLY_ON_TPU_MACHINES, "tensorflow-datasets", "tensorboard"}
    assert not names & {"tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-hub", "tf-keras"}


def test_every_requirement_of_a_tpu_machine_is_looked_into(arguments: Any) -> None:
    """A distribution that is not installed would hide what it asks for."""
    direct = {canonicalize_name(Requirement(text).name) for text in arguments("tpu")["install_requires"]}
    installed = {canonicalize_name(each.metadata["Name"]) for each in metadata.distributions()}
    assert direct - installed <= ONLY_ON_TPU_MACHINES


def test_what_is_installed_without_its_requirements_finds_them_all_the_same(arguments: Any) -> None:
    """requirements-tpu.txt goes in with --no-deps; all that it needs but tensorflow must come from setup.py."""
    given = needed(arguments("tpu")["install_requires"])
    listed = {canonicalize_name(each.name) for each in tpu_extra_requirements()}
    assert listed == {"tensorflow-hub", "tf-keras"}
    asked = needed(f"{each.name}" for each in tpu_extra_requirements()) - needed(["tensorflow"])
    assert asked - listed <= given


def test_tf_keras_is_of_the_same_release_as_the_tensorflow_for_tpus(arguments: Any) -> None:
    pins = {Requirement(text).name: str(Requirement(text).specifier) for text in arguments("tpu")["install_requires"]}
    keras = next(str(each.specifier) for each in tpu_extra_requirements() if each.name == "tf-keras")
    assert re.match(r"==\d+\.\d+\.", keras)
    assert keras.split(".")[:2] == pins["tensorflow-tpu"].split(".")[:2]


def test_an_unknown_kind_of_tensorflow_is_refused(arguments: Any) -> None:
    with pytest.raises(SystemExit, match=r"TRAINER_TENSORFLOW=gpu: must be one of default, tpu\."):
        arguments("gpu")


def test_every_folder_with_code_is_packaged_and_the_version_is_ours(arguments: Any) -> None:
    given = arguments()
    folders = {path.parent for package in ("trainer", "launch") for path in (ROOT / package).rglob("*.py")}
    assert set(given["packages"]) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert given["version"] == trainer.__version__


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_supported_pythons_are_accepted(arguments: Any, python: str) -> None:
    accepted = Requirement(f"python{arguments()['python_requires']}").specifier
    assert python in accepted
    assert "3.9" not in accepted and "3.13" not in accepted
