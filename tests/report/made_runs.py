"""Run directories made up for tests of what is looked at afterwards: no training, any number of classes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from trainer.config import Config
from trainer.records.examples import ShownExample, choose_examples, write_examples
from trainer.records.facts import Facts
from trainer.records.goodput import PHASES, Attempt
from trainer.records.predictions import Predictions
from trainer.records.status import BestResult, Status, TestResult
from trainer.storage import RunDirectory

HOSTILE_NAMES = (
    "<script>document.title='broken'</script>",
    '"><img src=http://192.0.2.1/x.png onerror=alert(1)>',
    "</style></svg>&amp;{{ 7 * 7 }}",
    "$5 to $10 \\frac{1}{2}",
    "花 Ünïcödé ‮gnp.txt",
    "a" * 300,
    "line\nbreak\x1b[31m",
)


def made_run(
    folder: Path,
    class_names: Sequence[str],
    *,
    accuracy: float = 0.8,
    examples: int = 400,
    steps: int = 300,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    interrupted: bool = False,
) -> RunDirectory:
    """A run of three epochs with plausible numbers; an interrupted one stands in the second."""
    run, random = RunDirectory(str(folder)), np.random.default_rng(seed)
    run.write_text("config.json", Config(**(config or {})).to_json())
    _write_metrics(run, steps if not interrupted else steps // 2, steps // 3)
    predictions = _predictions(class_names, accuracy, examples, random)
    facts = _facts(class_names)
    facts.write(run)
    status = _status(predictions, steps, interrupted)
    status.write(run)
    predictions.write(run, "validation")
    if not interrupted:
        predictions.write(run, "test")
        write_examples(run, _examples(predictions, random))
    return run


def _write_metrics(run: RunDirectory, steps: int, epoch_steps: int) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        epoch = -(-step // epoch_steps)
        loss = 2 * np.exp(-step / 80) + 0.05 * np.sin(step)
        row = {"split": "train", "step": step, "epoch": epoch, "loss": float(loss), "accuracy": 1 - float(loss) / 3}
        rows.append(row | {"learning_rate": 1e-3 * (1 - step / steps)})
        if step % epoch_steps == 0:
            rows.append({"split": "validation", "step": step, "epoch": epoch, "accuracy": 0.7, "loss": 0.9})
    run.write_text("metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def _predictions(
    class_names: Sequence[str], accuracy: float, examples: int, random: np.random.Generator
) -> Predictions:
    labels = np.arange(examples) % len(class_names)
    right = random.random(examples) < accuracy
    predicted = np.where(right, labels, (labels + random.integers(1, len(class_names), examples)) % len(class_names))
    order = np.argsort(labels, kind="stable")
    return Predictions(
        keys=[f"{labels[place]:04d}/{place:05d}.jpg" for place in order],
        labels=[class_names[labels[place]] for place in order],
        predictions=[class_names[predicted[place]] for place in order],
        confidences=(0.5 + 0.5 * random.random(examples)).astype(np.float32),
        losses=random.random(examples).astype(np.float32),
    )


def _facts(class_names: Sequence[str]) -> Facts:
    sizes = [50 + 7 * (place % 5) for place in range(len(class_names))]
    parts = {"train": 75, "validation": 15, "test": 10}
    return Facts(
        data="folder /photos",
        example_kind="image",
        class_names=list(class_names),
        examples={split: [size * part // 100 for size in sizes] for split, part in parts.items()},  # type: ignore[misc]
        image_size=96,
        feature_size=1280,
        parameters=2_230_277,
        trained_parameters=6_405,
        devices="default: one CPU replica",
        replicas=1,
        workers=1,
        machine="Linux on x86_64, 2 processors",
    )


def _status(predictions: Predictions, steps: int, interrupted: bool) -> Status:
    done = steps // 2 if interrupted else steps
    right = float(np.mean(predictions.right))
    loss = float(np.mean(predictions.losses, dtype=np.float64))
    seconds = {phase: 1.0 + place for place, phase in enumerate(PHASES)} | {"total": 40.0}
    status = Status(
        state="preempted" if interrupted else "done",
        step=done,
        epoch=1 if interrupted else 3,
        steps_total=steps,
        best=BestResult(steps // 3, 1, 0.7, 0.9),
        test=None if interrupted else TestResult(right, loss, len(predictions)),
        examples_per_second=1234.5,
        attempts=[Attempt("2026-11-22T10:00:00+00:00", 0, done)],
        error="SIGTERM came" if interrupted else None,
    )
    status.take_time(seconds)
    return status


def _examples(predictions: Predictions, random: np.random.Generator) -> list[ShownExample]:
    def shown(place: int) -> ShownExample:
        picture = io.BytesIO()
        imsave(picture, random.random((96, 96, 3)), format="jpg")
        return ShownExample(
            predictions.keys[place],
            predictions.labels[place],
            predictions.predictions[place],
            float(predictions.confidences[place]),
            picture.getvalue(),
            "image/jpeg",
        )

    return [shown(place) for place in choose_examples(predictions).tolist()]
