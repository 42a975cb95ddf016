"""cloudbuild.yaml: its schema, the real gcloud, and what neither of them sees. Each check fails on a broken variant."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builds
import pytest
from fakes import gcloud
from fakes.cloud import serving

from launch.services.build_config import build_config_problems, read_build_config
from trainer.errors import UserError

CONFIG_PATH = builds.ROOT / "cloudbuild.yaml"

Config = dict[str, Any]


def changed(change: Callable[[Config], Any]) -> Config:
    config = copy.deepcopy(read_build_config(CONFIG_PATH))
    change(config)
    return config


def step(config: Config, name: str) -> Config:
    (found,) = [each for each in config["steps"] if each["id"] == name]
    return dict(found)


def fits_schema(path: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild", str(path)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_it_fits_the_schema(tmp_path: Path) -> None:
    assert fits_schema(CONFIG_PATH)
    broken = tmp_path / "cloudbuild.json"
    broken.write_text(json.dumps(changed(lambda config: config["options"].update(machineType="E2_HUGE"))))
    assert not fits_schema(broken)


@gcloud.requires_gcloud
def test_gcloud_refuses_what_the_schema_lets_through(tmp_path: Path) -> None:
    """That it takes the file itself: test_build_request.py."""
    config = changed(lambda config: config["substitutions"].update(lower="x"))
    (tmp_path / "broken.json").write_text(json.dumps(config))
    assert fits_schema(tmp_path / "broken.json")
    with serving() as cloud:
        done = gcloud.run(["builds", "submit", "--no-source", "--async", "--config=broken.json"], cloud, tmp_path)
        assert not cloud.sent("cloudbuild")
    assert done.returncode == 1
    assert "substitution key lower does not respect format" in done.stderr


def test_nothing_is_wrong_with_it() -> None:
    assert build_config_problems(read_build_config(CONFIG_PATH)) == []


def put(config: Config, name: str, **fields: Any) -> None:
    """Sets fields of a step."""
    for each in config["steps"]:
        if each["id"] == name:
            each.update(fields)


def use_in_script(config: Config, name: str) -> None:
    """Declares a substitution, and uses it where it is not replaced."""
    config["substitutions"][name] = "x"
    put(config, "push", script=f"{step(config, 'push')['script']}echo ${{{name}}}\n")


BROKEN: dict[str, tuple[Callable[[Config], Any], str]] = {
    "undeclared substitution in an argument": (
        lambda config: config["images"].append("${_IMAGE}:${_NOPE}"),
        "_NOPE is used and not declared: add it to substitutions with a default.",
    ),
    "undeclared substitution in a default": (
        lambda config: config["substitutions"].update(_IMAGE="$_REGION/${_REPOSITORY}/${_DEVICE}/$_ROOM"),
        "_ROOM is used and not declared: add it to substitutions with a default.",
    ),
    "unknown built-in substitution": (
        lambda config: put(config, "submit", env=[*step(config, "submit")["env"], "A=$BUILD_NUMBER"]),
        "BUILD_NUMBER is used and not declared: add it to substitutions with a default.",
    ),
    "unused substitution": (
        lambda config: config["substitutions"].update(_OLD="x"),
        "_OLD is declared and not used: Cloud Build refuses such a build; remove it from substitutions.",
    ),
    "substitution used in a script alone": (
        lambda config: use_in_script(config, "_OLD"),
        "_OLD is declared and not used: Cloud Build refuses such a build; remove it from substitutions.",
    ),
    "substitution that is no text": (
        lambda config: config["substitutions"].update(_TEST=True),
        "_TEST is True, and a substitution is a text: quote it.",
    ),
    "substitutions of substitutions without the option": (
        lambda config: config["options"].pop("dynamicSubstitutions"),
        "_TAG is made of SHORT_SHA: options need dynamicSubstitutions: true for that.",
    ),
    "waiting for a step that is not there": (
        lambda config: put(config, "push", waitFor=["tests"]),
        "Step push waits for tests, and no step before it has that id.",
    ),
    "waiting for a later step": (
        lambda config: put(config, "test", waitFor=["submit"]),
        "Step test waits for submit, and no step before it has that id.",
    ),
    "two steps of one id": (
        lambda config: put(config, "try", id="build"),
        "Two steps have the id build: give one of them another.",
    ),
    "a step longer than the build": (
        lambda config: put(config, "build", timeout="7201s"),
        "Step build may take 7201 s, the whole build 7200: raise the build's timeout.",
    ),
    "steps longer than the build together": (
        lambda config: config.update(timeout="5699s"),
        "Steps behind one another may take 5700 s, the whole build 5699: raise the build's timeout.",
    ),
    "steps longer than a build that does not say": (
        lambda config: config.pop("timeout"),
        "Steps behind one another may take 5700 s, the whole build 3600: raise the build's timeout.",
    ),
    "an image that is not pushed": (
        lambda config: put(config, "push", script='docker push "$IMAGE:$TAG"'),
        "The image ${_IMAGE}:cache is built and not pushed: it is gone when the build has ended; add it to images.",
    ),
    "an image that is not built": (
        lambda config: config["images"].append("${_IMAGE}:latest"),
        "The image ${_IMAGE}:latest is to be pushed, and no step builds it.",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_neither_schema_nor_gcloud_sees_is_found(name: str) -> None:
    change, sentence = BROKEN[name]
    assert sentence in build_config_problems(changed(change))


def test_steps_that_wait_for_nobody_run_beside_others() -> None:
    """Steps without waitFor wait for all before them."""
    apart = {"steps": [{"name": "a", "timeout": "60s", "waitFor": ["-"]}] * 2, "timeout": "60s"}
    assert build_config_problems(apart) == []
    (found,) = build_config_problems({"steps": [{"name": "a", "timeout": "60s"}] * 2, "timeout": "60s"})
    assert found.startswith("Steps behind one another may take 120 s")


def test_two_dollar_signs_are_no_substitution() -> None:
    assert build_config_problems({"steps": [{"name": "a", "args": ["$$NAME $${OTHER}"]}]}) == []


def test_images_are_read_from_arguments_too() -> None:
    commands = (["build", "-t", "one", "--tag=two", "."], ["push", "two"])
    steps = [{"name": "docker", "args": arguments} for arguments in commands]
    (found,) = build_config_problems({"steps": steps})
    assert found.startswith("The image one is built and not pushed")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: [", r"cloudbuild\.yaml:1 is no YAML: "),
        ("steps:\n- a: b: c", r"cloudbuild\.yaml:2 is no YAML: mapping values are not allowed here"),
        ("- 1", "describes no build"),
        ("steps: 1", "describes no build"),
        ("steps: [1]", "step 0 must be names with values"),
        ("steps: []\nsubstitutions:", "substitutions must be names with values"),
        ("steps: []\noptions: [1]", "options must be names with values"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_build_is_said(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "cloudbuild.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_build_config(tmp_path / "cloudbuild.yaml")


@pytest.mark.parametrize("timeout", [7200, "2h", "s", "-1s"])
def test_a_timeout_that_is_none_is_said(timeout: Any) -> None:
    with pytest.raises(UserError, match="must be seconds, as in 3600s"):
        build_config_problems({"steps": [], "timeout": timeout})


def test_nothing_is_submitted_or_pushed_before_it_was_tested() -> None:
    """From each step back to all that it waits for."""
    config = read_build_config(CONFIG_PATH)
    behind: dict[str, set[str]] = {}
    for each in config["steps"]:
        awaited = [name for name in each["waitFor"] if name != "-"]
        behind[each["id"]] = set(awaited).union(*(behind[name] for name in awaited))
    assert {"test", "build", "try"} <= behind["push"]
    assert {"test", "build", "try", "push"} <= behind["submit"]


@pytest.mark.parametrize("tag", ["", "abc1234"])
def test_a_build_that_knows_no_commit_says_how_to_tell_it(tmp_path: Path, tag: str) -> None:
    """The script of the build's step, with a docker that tells what it is given."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    script = step(read_build_config(CONFIG_PATH), "build")["script"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IMAGE": "r/i", "TAG": tag, "DEVICE": "cpu"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=10)
    if tag:
        assert done.returncode == 0
        assert {"--target=cpu", "--tag=r/i:abc1234", "--cache-from=r/i:cache"} <= set(done.stdout.splitlines())
    else:
        assert done.returncode == 2
        assert "--substitutions=_TAG=$(git rev-parse --short HEAD)" in done.stdout
