"""Packaging. `pip install .` for CPU, `pip install .[gpu]` for GPUs, and for a TPU machine

    TRAINER_TENSORFLOW=tpu pip install . && pip install --no-deps -r requirements-tpu.txt

TensorFlow for TPUs is another distribution (`tensorflow-tpu`) that installs the same package as `tensorflow`: a
machine that gets both is broken. tensorflow-hub asks for tf-keras, and that for `tensorflow`, so on a TPU machine those
two are installed without their dependencies.
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

TENSORFLOW = ["tensorflow>=2.20,<2.22", "tensorflow-hub>=0.16.1,<0.17"]
TENSORFLOW_FOR_TPU = ["tensorflow-tpu==2.20.0", "libtpu==0.0.31"]  # The newest pair that imports (2026-11).

COMMON = [
    "absl-py>=2.1",
    "google-cloud-storage>=2.16",
    "google-crc32c>=1.5",
    "importlib-resources>=6",  # tensorflow-datasets 4.9.10 prepares nothing without it, and does not ask for it.
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pillow>=10",
    "pydantic>=2.7",
    "pyyaml>=6",
    "rich>=13.7",
    "scikit-learn>=1.4",
    "scipy>=1.10",
    "setuptools<81",  # tensorflow_hub 0.16 imports pkg_resources, which later versions do not have.
    "tensorboard>=2.20,<2.22",
    "tensorflow-datasets>=4.9.6",
]


def requirements(tensorflow: str) -> list[str]:
    """What to install for "default" or "tpu"."""
    choices = {"default": TENSORFLOW, "tpu": TENSORFLOW_FOR_TPU}
    if tensorflow not in choices:
        raise SystemExit(f"TRAINER_TENSORFLOW={tensorflow}: must be one of {', '.join(choices)}.")
    return choices[tensorflow] + COMMON


def version() -> str:
    """The version that `trainer/__init__.py` states."""
    text = Path(__file__).with_name("trainer").joinpath("__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


setup(
    name="hub-trainer",
    version=version(),
    description="Retrains a TensorFlow Hub image module on your images: one command from a laptop to a TPU slice",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["trainer", "trainer.*", "launch", "launch.*"]),
    package_data={"trainer.report": ["templates/*"]},
    python_requires=">=3.10,<3.13",
    install_requires=requirements(os.environ.get("TRAINER_TENSORFLOW", "default")),
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        # Google's TPU compiler for machines without a TPU (2026-11). It needs Python 3.11.
        "preflight": ["jax==0.10.2", "jaxlib==0.10.2", "libtpu==0.0.51"],
        "test": [
            "check-jsonschema>=0.29",
            "google-cloud-aiplatform>=1.90",  # This and the next two judge our requests; nothing is sent with them.
            "google-cloud-build>=3.20",
            "google-cloud-tpu>=1.20",
            "mypy>=1.11",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.7",
            "ruff>=0.17,<0.18",
            "selenium>=4.20",
        ],
    },
)
