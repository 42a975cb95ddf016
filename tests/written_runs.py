"""Run directories written by hand: what a run leaves, without the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import Config
from trainer.records.facts import Facts
from trainer.records.predictions import Predictions
from trainer.storage import RunDirectory

SECONDS = {"startup": 5.0, "features": 40.0, "train": 10.0, "total": 60.0, "starts": 1, "share": 1 / 6}


def write_run(
    path: Path,
    answers: str | Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    config: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    export_bytes: int = 0,
) -> str:
    """Writes one, and gives its path.

    Args:
      path: of the directory.
      answers: predicted class of every test example; None for no test predictions.
      labels: true classes, by default "a" for all.
      keys: names of the examples, by default "0000", "0001", ...
      config: fields that are not at their defaults.
      status: fields of status.json beside those of a finished run.
      export_bytes: size of a file in the export; 0: no export.
    """
    settings = Config(**(config or {}), run_dir=str(path))
    run = RunDirectory(str(path), layout=settings.run_dir_layout)
    run.write_text("config.json", settings.to_json())
    facts = Facts(
        "photos", "image", ["a", "b"], {"test": [1, 1]}, 224, 1280, 2_000_000, 6_405, "one CPU", 1, 1, "Linux"
    )
    facts.write(run)
    told: dict[str, Any] = {
        "state": "done",
        "epoch": settings.epochs,
        "goodput": SECONDS,
        "examples_per_second": 100.0,
        "data_fingerprint": "0123456789abcdef",
    }
    if answers is not None:
        labels = labels if labels is not None else ["a"] * len(answers)
        keys = keys if keys is not None else [f"{number:04d}" for number in range(len(answers))]
        table = Predictions(keys, labels, list(answers), np.full(len(keys), 0.9), np.full(len(keys), 0.1))
        table.write(run, "test")
        told["test"] = {"accuracy": float(table.right.mean()), "loss": 0.1, "examples": len(keys)}
    run.write_text("status.json", json.dumps(told | (status or {})))
    if export_bytes:
        run.write_bytes("export/saved_model.pb", bytes(export_bytes))
    return str(path)
