"""Transfer from our own export: digits 0 to 4 teach a backbone, digits 5 to 9 are learned from a few images a class.

    python benchmarks/few_shot_transfer.py --seeds=10

One run trains the built-in network on digits 0 to 4 and publishes it. For 5, 10 and 20 labelled images a class of
digits 5 to 9, its `export/feature_vector` is reused frozen, beside the same network trained from scratch on the same
images. The table gives the mean test accuracy over the seeds, and the difference with its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.preparation import build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.evaluation import Evaluator
from trainer.training.loop import Progress, Stops, TrainLoop

SHOTS = (5, 10, 20)
STEPS = 400

HEADINGS = """\
| images a class | transfer, frozen | transfer, fine-tuned | from scratch | frozen - scratch |
|---|---|---|---|---|"""


def teach(run_dir: str) -> float:
    """A whole run on digits 0 to 4, export included; gives its test accuracy."""
    config = Config(classes=tuple("01234"), epochs=60, augment=("crop",), dropout=0.5, run_dir=run_dir)
    run.execute(config, quiet=True)
    status = json.loads(Path(run_dir, "status.json").read_text(encoding="utf-8"))
    return float(status["test"]["accuracy"])


def learn(config: Config) -> float:
    """Trains `STEPS` steps and gives the test accuracy: the trainer's own parts, without checkpoints and export."""
    prepared = prepare(config, connect(config), Console(quiet=True))
    built = build(prepared)
    dataset = training_input(prepared, built.model, first_step=0, last_step=STEPS)
    step = build_step(prepared, built)
    TrainLoop(prepared.cluster, step, dataset, Stopwatch()).run(Progress(0, 0), Stops([STEPS]), STEPS, [])
    evaluate = Evaluator(prepared.cluster, built.model, prepared.source, 256)
    return evaluate(prepared.splits.test).accuracy


def accuracies_of(seed: int, shots: int, backbone: str) -> tuple[float, float, float]:
    """Test accuracy of one seed: transfer frozen, transfer fine-tuned, the same network from scratch."""
    scratch = Config(
        classes=tuple("56789"),
        examples_per_class=shots,
        splits=(50, 0, 50),
        batch_size=5 * shots,
        epochs=STEPS,
        seed=seed,
    )
    frozen = scratch.model_copy(update={"backbone": backbone})
    tuned = frozen.model_copy(update={"train_backbone": True})
    return learn(frozen), learn(tuned), learn(scratch)


def row(shots: int, accuracies: list[tuple[float, float, float]]) -> str:
    """A row of the table: means, and the frozen module's lead over scratch with its standard error."""
    frozen, tuned, scratch = (statistics.mean(column) for column in zip(*accuracies, strict=True))
    leads = [each[0] - each[2] for each in accuracies]
    error = statistics.stdev(leads) / math.sqrt(len(leads)) if len(leads) > 1 else math.nan
    return f"| {shots} | {frozen:.4f} | {tuned:.4f} | {scratch:.4f} | {statistics.mean(leads):+.4f} ± {error:.4f} |"


def main() -> None:
    """Runs all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"teacher: test accuracy {teach(f'{folder}/teacher'):.4f} on digits 0 to 4", flush=True)
        backbone = f"{folder}/teacher/export/feature_vector"
        print(HEADINGS, flush=True)
        for shots in map(int, options.shots.split(",")):
            accuracies = [accuracies_of(seed, shots, backbone) for seed in range(options.seeds)]
            print(row(shots, accuracies), flush=True)


if __name__ == "__main__":
    main()
