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

UNUSED_BY_KERAS = ("jax", "matplotlib", "sklearn")
"""What it imports where it finds them; the built-in digits alone need one of these."""

TRAIN_AND_LIST_MODULES = """
import gc, json, sys
from trainer import task  # As `python -m trainer.task` does.
from trainer.startup import import_tensorflow_quietly
looks = []
gc.callbacks.append(lambda phase, info: looks.append(phase))
import_tensorflow_quietly()
gc.callbacks.pop()
print(json.dumps({"imported": sorted(sys.modules), "collections": len(looks), "collects": gc.isenabled()}))
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
    start, imported = (json.loads(line) for line in done.stdout.splitlines())
    assert not {name.split(".")[0] for name in start["imported"]} & set(UNUSED_BY_KERAS)
    assert start["collects"] and start["collections"] < 10, "garbage is looked for hundreds of times in vain otherwise"
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


def test_the_process_of_the_parity_gate_imports_tensorflow_and_hardly_more() -> None:
    code = (
        "import json, sys; from trainer.export import fresh_check; "
        "print(json.dumps([name for name, module in sys.modules.items() if module]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    imported = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in imported if name.split(".")[0] == "trainer"] == [
        "trainer",
        "trainer.export",
        "trainer.export.fresh_check",
    ]
    assert "tensorflow" in imported and not {name.split(".")[0] for name in imported} & set(UNUSED_BY_KERAS)
