"""Reads cloudbuild.yaml, and finds what is wrong in it that neither its schema nor gcloud sees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.wording import first_line

BUILT_IN = frozenset(
    ("PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION", "TRIGGER_NAME", "COMMIT_SHA", "REVISION_ID", "SHORT_SHA",
     "REPO_NAME", "REPO_FULL_NAME", "BRANCH_NAME", "TAG_NAME", "REF_NAME", "TRIGGER_BUILD_CONFIG_PATH",
     "SERVICE_ACCOUNT_EMAIL", "SERVICE_ACCOUNT")
)  # fmt: skip
"""Substitutions that Cloud Build makes by itself; those of triggers are empty in other builds
(cloud.google.com/build/docs/configuring-builds/substitute-variable-values, 2026-11)."""

DEFAULT_SECONDS = 3600
"""What a build may take that does not say (google-cloud-build, Build.timeout, 2026-11: 60 minutes)."""

_REFERENCE = re.compile(r"\$\$|\$\{?([A-Z_][A-Z0-9_]*)")
"""A substitution, or the two dollar signs that stand for one."""

_TAGGED = re.compile(r"(?:--tag[= ]|(?<!\S)-t )[\"']?([^\s\"']+)")
_PUSHED = re.compile(r"\bpush [\"']?([^\s\"'-][^\s\"']*)")
"""Names of images in a command line of docker."""


def read_build_config(path: Path) -> dict[str, Any]:
    """The build that a file describes.

    Raises:
      UserError: it is not there, no YAML, or no build.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise UserError(f"{where} is no YAML: {getattr(error, 'problem', None) or first_line(error)}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("steps"), list):
        raise UserError(f"{path} describes no build: it must have a list of steps.")
    for name in ("substitutions", "options"):
        if not isinstance(config.get(name, {}), dict):
            raise UserError(f"{path}: {name} must be names with values, or be left out.")
    for number, step in enumerate(config["steps"]):
        if not isinstance(step, dict):
            raise UserError(f"{path}: step {number} must be names with values, such as name and args.")
    return config


def build_config_problems(config: Mapping[str, Any]) -> list[str]:
    """What Cloud Build would refuse or silently do wrong, a sentence each; [] if nothing.

    Args:
      config: as `read_build_config` gives it.

    Raises:
      UserError: a timeout is none.
    """
    return [
        *_substitution_problems(config),
        *_order_problems(config["steps"]),
        *_timeout_problems(config),
        *_image_problems(config),
    ]


def _substitution_problems(config: Mapping[str, Any]) -> Iterator[str]:
    declared = config.get("substitutions", {})
    used = set(_references({name: value for name, value in config.items() if name != "substitutions"}))
    dynamic = config.get("options", {}).get("dynamicSubstitutions", False)
    for name, value in declared.items():
        if not isinstance(value, str):
            yield f"{name} is {value!r}, and a substitution is a text: quote it."
        inner = set(_references(value))
        if inner and not dynamic:
            yield f"{name} is made of {', '.join(sorted(inner))}: options need dynamicSubstitutions: true for that."
        used |= inner
    for name in sorted(used - set(declared) - BUILT_IN):
        yield f"{name} is used and not declared: add it to substitutions with a default."
    for name in sorted(set(declared) - used):
        yield f"{name} is declared and not used: Cloud Build refuses such a build; remove it from substitutions."


def _references(part: Any) -> Iterator[str]:
    """The substitutions that a part of a build uses. A script of a step uses none: Cloud Build leaves it as it is."""
    if isinstance(part, str):
        yield from (match[1] for match in _REFERENCE.finditer(part) if match[1])
    elif isinstance(part, Mapping):
        for name, value in part.items():
            if name != "script":
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _order_problems(steps: list[Mapping[str, Any]]) -> Iterator[str]:
    earlier: set[str] = set()
    for number, step in enumerate(steps):
        name = _name_of(step, number)
        for awaited in step.get("waitFor", []):
            if awaited != "-" and awaited not in earlier:
                yield f"{name} waits for {awaited}, and no step before it has that id."
        if step.get("id") in earlier:
            yield f"Two steps have the id {step['id']}: give one of them another."
        earlier.add(step.get("id", ""))


def _name_of(step: Mapping[str, Any], number: int) -> str:
    return f"Step {step.get('id') or number}"


def _timeout_problems(config: Mapping[str, Any]) -> Iterator[str]:
    whole = _seconds(config.get("timeout", f"{DEFAULT_SECONDS}s"))
    ends: dict[str, float] = {}
    latest = 0.0
    for number, step in enumerate(config["steps"]):
        own = _seconds(step.get("timeout", "0s"))
        awaited = [name for name in step.get("waitFor", list(ends)) if name != "-"]
        begin = max((ends.get(name, 0.0) for name in awaited), default=0.0)
        ends[step.get("id") or str(number)] = begin + own
        latest = max(latest, begin + own)
        if own > whole:
            yield f"{_name_of(step, number)} may take {own:g} s, the whole build {whole:g}: raise the build's timeout."
    if latest > whole and all(_seconds(step.get("timeout", "0s")) <= whole for step in config["steps"]):
        yield f"Steps behind one another may take {latest:g} s, the whole build {whole:g}: raise the build's timeout."


def _seconds(timeout: Any) -> float:
    """Of a duration as Cloud Build writes it, such as "3600s".

    Raises:
      UserError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(timeout), re.ASCII)
    if not match:
        raise UserError(f"A timeout of the build is {timeout!r}: it must be seconds, as in 3600s.")
    return float(match[1])


def _image_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Images that are built and stay on the build's machine, or are to be pushed and were never built."""
    commands = [_command_of(step) for step in config["steps"]]
    tagged = {name for command in commands for name in _TAGGED.findall(command)}
    pushed = {name for command in commands for name in _PUSHED.findall(command)}
    listed = set(config.get("images", []))
    for name in sorted(tagged - pushed - listed):
        yield f"The image {name} is built and not pushed: it is gone when the build has ended; add it to images."
    for name in sorted((listed | pushed) - tagged):
        yield f"The image {name} is to be pushed, and no step builds it."


def _command_of(step: Mapping[str, Any]) -> str:
    """What a step runs, on one line, with the variables of a script in place."""
    command = " ".join([step.get("script", ""), *step.get("args", [])])
    for assignment in step.get("env", []):
        name, _, value = assignment.partition("=")
        command = command.replace(f"${{{name}}}", value)
        command = re.sub(rf"\${name}\b", value.replace("\\", r"\\"), command)
    return command
