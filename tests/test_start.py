"""The sample run imports nothing that it does not use: every import is waited for at every start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.startup import import_tensorflow_quietly

UNUSED = (
    "google.auth",
    "google.cloud.storage",
    "jax",
    "matplotlib",
    "pandas",
    "tensorflow_datasets",
    "tensorflow_hub",
    "tf_keras",
    "torch",
    "trainer.preflight",
    "trainer.tpu",
)
"""What other runs need, or other programs beside TensorFlow; TensorFlow and Keras import none of them by themselves."""

TRAIN_AND_LIST_MODULES = """
import json, sys
from trainer import task  # As `python -m trainer.task` does.
from trainer.startup import import_tensorflow_quietly
import_tensorflow_quietly()
from trainer.export import publish
from trainer import run
from trainer.config import Config

def list_modules(*arguments):
    print(json.dumps(sorted(sys.modules)))
    sys.exit(0)

publish.export_model = list_modules
run.execute(Config(epochs=1, batch_size=448, run_dir=sys.argv[1]), quiet=True)
"""


def test_the_sample_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN_AND_LIST_MODULES, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "trainer.training.loop" in imported and (tmp_path / "run/metrics.jsonl").exists()
    too_many = [name for name in imported if any(f"{name}.".startswith(f"{unused}.") for unused in UNUSED)]
    assert not too_many


def test_gs_has_deadlines_and_the_users_own_ones_win(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"GCS_RETRY_CONFIG_MAX_RETRIES": "2"}
    monkeypatch.setattr(os, "environ", settings)
    import_tensorflow_quietly()
    assert settings["GCS_RETRY_CONFIG_MAX_RETRIES"] == "2" and settings["GCS_STAT_CACHE_MAX_AGE"] == "0"
    deadlines = [int(value) for name, value in settings.items() if name.endswith("_TIMEOUT_SECS")]
    assert len(deadlines) == 4 and max(deadlines) <= 600
