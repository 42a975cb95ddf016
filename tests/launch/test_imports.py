"""What `launch` imports: never TensorFlow, and of `trainer` only what says what a run is."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import launch

REPOSITORY = Path(__file__).resolve().parents[2]

OF_TRAINER = {
    *("trainer", "trainer.accelerators", "trainer.errors", "trainer.terminal", "trainer.wording", "trainer.sweep"),
    *("trainer.config", "trainer.config_errors", "trainer.config_fields", "trainer.config_flags"),
    *("trainer.config_texts", "trainer.config_values", "trainer.storage_errors"),
}

IMPORT_ALL = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
from launch.commands.plan_command import NAME
print(json.dumps(sorted(sys.modules)))
"""


def test_launch_imports_no_tensorflow() -> None:
    modules = [module.name for module in pkgutil.walk_packages(launch.__path__, "launch.")]
    assert {"launch.__main__", "launch.services.vertex", "launch.local.supervise"} <= set(modules)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(modules)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = json.loads(done.stdout)
    assert "launch.jobs.plan" in imported and "tensorflow" not in imported and "numpy" not in imported
    assert {name for name in imported if name.partition(".")[0] == "trainer"} <= OF_TRAINER
