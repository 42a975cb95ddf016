"""What `launch doctor` looks at on this machine: TensorFlow and its devices, versions that go together, other programs.

TensorFlow is asked in a process of its own, which may take long, fail or hang: `launch` never imports it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trainer
from launch.doctor.checks import Check
from trainer.wording import counted

TENSORFLOW_SECONDS = 90.0
"""What TensorFlow's start may take; on a slow disk it reads for half a minute."""

_ASKING_TENSORFLOW = """
import json
import tensorflow as tf
from trainer.tpu import has_tpu_support
gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
names = [details.get("device_name", "GPU") for details in gpus]
print(json.dumps({"version": tf.__version__, "gpus": names, "tpu_support": has_tpu_support()}))
"""

_GPU_FILE = "/dev/nvidia0"
_TPU_FILES = ("/dev/accel0", "/dev/vfio/0")
"""What Linux shows of a GPU with NVIDIA's driver, and of the chips of a TPU VM."""

VERSIONS = {
    # distribution: at least, less than
    "tensorflow": ("2.20", "2.22"),
    "tensorflow-tpu": ("2.20.0", "2.20.1"),
    "libtpu": ("0.0.31", "0.0.32"),
    "keras": ("3", "4"),
    "tensorflow-hub": ("0.16.1", "0.17"),
    "setuptools": ("0", "81"),
}
"""The versions that this program was tried with, as in setup.py. tensorflow-tpu 2.20.0 is the last one, and it imports
with libtpu 0.0.31 and not with later ones; tensorflow_hub needs pkg_resources, which setuptools 81 lacks (2026-11)."""


def tensorflow_check(
    *,
    command: Sequence[str] = (sys.executable, "-c", _ASKING_TENSORFLOW),
    seconds: float = TENSORFLOW_SECONDS,
    environment: Mapping[str, str],
    root: Path = Path("/"),
) -> Check:
    """Whether TensorFlow starts here, and which devices it finds.

    Args:
      command: asks it, and prints JSON on its last line.
      seconds: what that may take.
      environment: for it.
      root: of the file system, where devices are looked for.
    """
    title = "TensorFlow"
    try:
        done = subprocess.run(
            command,
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=Path(trainer.__file__).parents[1],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Check(title, "unknown", f"it did not start within {seconds:g} s.")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"it ends with exit code {done.returncode}"])[-1]
        if "No module named 'tensorflow'" in reason:
            return Check(title, "problem", "it is not installed here.", "pip install .")
        return Check(title, "problem", f"it does not start: {reason}", "pip install --force-reinstall .")
    return _device_check(title, json.loads(lines[-1]), root)


def _device_check(title: str, found: Mapping[str, Any], root: Path) -> Check:
    version = found["version"]
    if _is_there(root, (_GPU_FILE,)) and not found["gpus"]:
        return Check(
            title,
            "problem",
            f"{version} does not find the GPU of this machine.",
            f"pip install 'tensorflow[and-cuda]=={version}'",
        )
    if _is_there(root, _TPU_FILES) and not found["tpu_support"]:
        return Check(
            title,
            "problem",
            f"{version} cannot use the TPU of this machine.",
            "TRAINER_TENSORFLOW=tpu pip install . && pip install --no-deps -r requirements-tpu.txt",
        )
    if found["gpus"]:
        devices = f"{counted(len(found['gpus']), 'GPU')} here: {', '.join(found['gpus'])}"
    else:
        devices = "a TPU here" if _is_there(root, _TPU_FILES) else "no GPU or TPU here, so it trains on the CPU"
    return Check(title, "ok", f"{version}, {devices}.")


def _is_there(root: Path, files: Sequence[str]) -> bool:
    return any((root / file.lstrip("/")).exists() for file in files)


def version_checks(version_of: Callable[[str], str | None]) -> list[Check]:
    """Whether the versions of what is installed go together: a check for each that does not, or one for all.

    Args:
      version_of: gives the version of a distribution, or None where it is not installed.
    """
    versions = {name: version_of(name) for name in (*VERSIONS, "tf-keras")}
    problems = [*_tensorflow_problems(versions), *_range_problems(versions), *_keras_problems(versions)]
    if problems:
        return problems
    shown = [f"{name} {version}" for name, version in versions.items() if version and name != "setuptools"]
    if not versions["tensorflow"] and not versions["tensorflow-tpu"]:
        return [Check("versions", "unknown", "TensorFlow is not installed here.", "pip install .")]
    return [Check("versions", "ok", f"{', '.join(shown)} go together.")]


def _tensorflow_problems(versions: Mapping[str, str | None]) -> list[Check]:
    if versions["tensorflow"] and versions["tensorflow-tpu"]:
        return [
            Check(
                "versions",
                "problem",
                "tensorflow and tensorflow-tpu are both installed, and overwrite each other.",
                "pip uninstall --yes tensorflow tensorflow-tpu && pip install --force-reinstall .",
            )
        ]
    if versions["tensorflow-tpu"] and not versions["libtpu"]:
        return [Check("versions", "problem", "tensorflow-tpu needs libtpu.", _pip("libtpu", "0.0.31", "0.0.32"))]
    return []


def _range_problems(versions: Mapping[str, str | None]) -> list[Check]:
    found = []
    for name, (least, below) in VERSIONS.items():
        version = versions[name]
        if name == "libtpu" and not versions["tensorflow-tpu"]:
            continue  # It is there for something else, such as jax.
        if version and not _numbers(least) <= _numbers(version) < _numbers(below):
            found.append(
                Check(
                    "versions",
                    "problem",
                    f"{name} {version} is not from {least} to below {below}.",
                    _pip(name, least, below),
                )
            )
    return found


def _keras_problems(versions: Mapping[str, str | None]) -> list[Check]:
    """tensorflow_hub brings tf-keras, which is of the same release as TensorFlow or fails."""
    tensorflow, tf_keras = versions["tensorflow"] or versions["tensorflow-tpu"], versions["tf-keras"]
    if not tensorflow or not tf_keras or _numbers(tensorflow)[:2] == _numbers(tf_keras)[:2]:
        return []
    release = ".".join(map(str, _numbers(tensorflow)[:2]))
    return [
        Check(
            "versions",
            "problem",
            f"tf-keras {tf_keras} does not go with TensorFlow {tensorflow}.",
            f"pip install --no-deps 'tf-keras=={release}.*'",
        )
    ]


def _pip(name: str, least: str, below: str) -> str:
    return f"pip install '{name}>={least},<{below}'"


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", re.match(r"[0-9.]*", version)[0]))  # type: ignore[index]


def program_checks(find: Callable[[str], str | None]) -> list[Check]:
    """Whether Google's and Docker's programs are here. `launch` submits without them.

    Args:
      find: gives the path of a program, or None.
    """
    gcloud, docker = find("gcloud"), find("docker")
    return [
        Check("gcloud", "ok", f"{gcloud}.")
        if gcloud
        else Check(
            "gcloud",
            "problem",
            "not found; the commands that doctor and plan name need it, submitting does not.",
            "https://cloud.google.com/sdk/docs/install",
        ),
        Check("docker", "ok", f"{docker}.")
        if docker
        else Check("docker", "unknown", "not found; images can be built by Cloud Build alone (submit --build)."),
    ]
