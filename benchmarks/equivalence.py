"""Does the number of replicas or processes change what is trained? Trains the same global batches of 8 images as

    1 replica of 8, 2 of 4, 4 of 2, 2 processes of 4, 2 processes x 2 replicas of 2

for 50 steps and compares losses and weights with the first: on the built-in network in float64, where there is no
room for "it is only rounding", and on a real Hub module in float32.

    python benchmarks/equivalence.py MODULE PHOTOS [CASE ...]        prints the table of benchmarks/README.md

`tests/training/test_equivalence.py` asserts a part of it, and all of it with `-m long`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

from machine import machine

from launch.local.worker_processes import free_ports, worker_environment
from trainer.agreement import come_together
from trainer.cluster import Cluster, connect
from trainer.config import Config
from trainer.preparation import Built, build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.records.goodput import Stopwatch
from trainer.training.loop import Boundary, Progress, Stops, TrainLoop

GLOBAL_BATCH = 8
WORKERS = 2
WORKER_SECONDS = 900.0
"""What the processes of one setup may take, for all cases together."""

_ALL_AT_ONCE: dict[str, Any] = {
    "clip_norm": 0.5,
    "accumulation_steps": 2,
    "ema_decay": 0.9,
    "weight_decay": 0.01,
    "class_weights": ("3:2.0", "7:0.5"),
    "label_smoothing": 0.1,
    "dropout": 0.3,
}

BUILT_IN: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01},
    "momentum": {"optimizer": "momentum", "learning_rate": 0.003},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "clipping": {"optimizer": "momentum", "learning_rate": 0.003, "clip_norm": 0.5},
    "accumulation": {"optimizer": "adam", "accumulation_steps": 2},
    "averages": {"optimizer": "adam", "ema_decay": 0.9},
    "weight decay": {"optimizer": "adam", "weight_decay": 0.01},
    "class weights": {"optimizer": "adam", "class_weights": ("balanced",)},
    "groups": {"optimizer": "adam", "freeze": "conv_0", "lr_scale": ("backbone:0.1",), "clip_norm": 0.5},
    "mixed images": {"optimizer": "adam", "mixup": 0.2, "cutmix": 1.0, "augment": ("flip",), "randaugment": 3.0},
    "all with sgd": _ALL_AT_ONCE | {"optimizer": "sgd", "learning_rate": 0.01},
    "all with momentum": _ALL_AT_ONCE | {"optimizer": "momentum", "learning_rate": 0.003},
    "all with adam": _ALL_AT_ONCE
    | {"optimizer": "adam", "schedule": "step", "decay_epochs": (0.1, 0.2), "warmup": 0.05},
    "all with adamw": _ALL_AT_ONCE | {"optimizer": "adamw", "schedule": "linear", "learning_rate_batch": 16},
}
"""On the built-in network and the digits, in float64."""

HUB_MODULE: dict[str, dict[str, Any]] = {
    "frozen module": {"optimizer": "adam"},
    "fine-tuned module": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "lr_scale": ("backbone:0.003",),
        "train_backbone": True,
        "clip_norm": 1.0,
    },
}
"""On a real Hub module and real photos, in float32, with batch norm in inference mode.

The rate is a careful one: in float32 the kinks of ReLU6 multiply rounding from step to step, the more the higher the
rate (benchmarks/README.md has the numbers, and the same growth where one replica differs by rounding alone).
"""

UPDATED_STATISTICS = "fine-tuned module, updated statistics"
"""With batch norm in training mode: a replica normalizes by its own part of the batch, so the parts' size matters."""

CASES = (
    BUILT_IN | HUB_MODULE | {UPDATED_STATISTICS: HUB_MODULE["fine-tuned module"] | {"backbone_statistics": "update"}}
)

STEPS = dict.fromkeys(CASES, 50) | {UPDATED_STATISTICS: 10}
"""How many are trained: losses that differ anyway need no more than a few."""


@dataclass(frozen=True)
class Setup:
    """How the global batch is shared: processes, and replicas in each."""

    processes: int
    replicas: int


ONE_REPLICA = "1 replica of 8"

SETUPS = {
    ONE_REPLICA: Setup(1, 1),
    "2 of 4": Setup(1, 2),
    "4 of 2": Setup(1, 4),
    "2 processes of 4": Setup(WORKERS, 1),
    "2 processes x 2 of 2": Setup(WORKERS, 2),
}


@dataclass(frozen=True)
class Inputs:
    """Folders of the Hub module and of the photos; only the cases in `HUB_MODULE` and the one after need them."""

    module: str = ""
    photos: str = ""


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
      losses: float64 `[steps]`.
      weights: the model's variables by path, and "average N" for each average.
    """

    losses: NDArray[np.float64]
    weights: dict[str, NDArray]

    def largest_difference(self, other: Trained) -> tuple[float, float]:
        """Of the losses, relative; of the weights, absolute."""
        losses = np.max(np.abs(self.losses - other.losses) / np.abs(self.losses))
        weights = max(float(np.max(np.abs(self.weights[path] - other.weights[path]))) for path in self.weights)
        return float(losses), weights


def config_of(case: str, inputs: Inputs, setup: Setup) -> Config:
    """The configuration of a case under a setup."""
    if case in BUILT_IN:
        fields = CASES[case] | {"data": "digits", "precision": "float64"}
    else:
        fields = CASES[case] | {"data": f"folder:{inputs.photos}", "backbone": inputs.module}
    if setup.processes > 1:
        fields |= {"strategy": "multi_worker", "virtual_devices": setup.replicas, "worker_timeout": 120}
    elif setup.replicas > 1:
        fields |= {"strategy": "mirrored", "virtual_devices": setup.replicas}
    return Config.parse({"batch_size": GLOBAL_BATCH, "epochs": 1} | fields)


def train(config: Config, cluster: Cluster, steps: int) -> tuple[Trained, Built]:
    """Trains some steps, through the loop that a run uses.

    Raises:
      AssertionError: the replicas of this process no longer have the same weights.
    """
    prepared = prepare(config, cluster, Console(quiet=True))
    built = build(prepared)
    dataset = training_input(prepared, built.model, first_step=0, last_step=steps)
    losses: list[NDArray[np.float64]] = []

    def keep(boundary: Boundary) -> None:
        losses.append(np.asarray(boundary.values["loss"], np.float64))

    loop = TrainLoop(cluster, build_step(prepared, built), dataset, Stopwatch())
    loop.run(Progress(0, 0), Stops([steps]), steps_per_loop=7, actions=[keep])
    variables = {variable.path: variable.value for variable in built.model.variables}
    variables |= {f"average {number}": each for number, each in enumerate(built.optimizer.averages.averages)}
    weights = {}
    for path, variable in variables.items():
        first, *others = [copy.numpy() for copy in cluster.strategy.experimental_local_results(variable)]
        weights[path] = first
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=f"replicas differ in {path}")
    return Trained(np.concatenate(losses), weights), built


def train_here(case: str, inputs: Inputs, setup: Setup) -> Trained:
    """Trains a case in this process, which must have as many logical CPU devices as the setup has replicas."""
    config = config_of(case, inputs, setup)
    return train(config, connect(config), STEPS[case])[0]


def train_in_processes(cases: Sequence[str], inputs: Inputs, setup: Setup) -> dict[str, list[Trained]]:
    """Trains cases, one after the other, in a process for each worker; gives what each worker got, by case.

    Raises:
      RuntimeError: a process failed or took too long; the message ends with what it wrote last.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            [sys.executable, __file__, "--worker", f"{folder}/{index}.npz", str(setup.replicas)]
            + [inputs.module, inputs.photos, *cases]
            for index in range(setup.processes)
        ]
        with cluster_of_processes(commands) as processes:
            for index, process in enumerate(processes):
                _, errors = process.communicate(timeout=WORKER_SECONDS)
                if process.returncode:
                    last = "\n".join(errors.splitlines()[-20:])
                    raise RuntimeError(f"worker {index} ended with {process.returncode}:\n{last}")
        found = []
        for index in range(setup.processes):
            with np.load(f"{folder}/{index}.npz") as arrays:
                found.append({name: arrays[name] for name in arrays.files})
    return {case: [_trained(case, arrays) for arrays in found] for case in cases}


def _trained(case: str, arrays: dict[str, NDArray]) -> Trained:
    prefix = f"{case}/weights/"
    weights = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return Trained(arrays[f"{case}/losses"], weights)


@contextmanager
def cluster_of_processes(
    commands: Sequence[list[str]], stdout: int = subprocess.DEVNULL
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that find each other through TF_CONFIG, on free ports; one alone gets none.

    Whatever still runs at the end is killed.
    """
    ports = free_ports(len(commands))
    processes = []
    with ExitStack() as at_the_end:
        for index, command in enumerate(commands):
            alone = len(commands) == 1
            environment = dict(os.environ) if alone else worker_environment(os.environ, ports, index)
            process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)
            at_the_end.callback(process.wait)
            at_the_end.callback(process.kill)
            processes.append(process)
        yield processes


def _work(out: str, replicas: int, inputs: Inputs, cases: Sequence[str]) -> None:
    """One worker of a cluster: trains the cases one after the other."""
    setup = Setup(WORKERS, replicas)
    first = config_of(cases[0], inputs, setup)
    cluster = connect(first, come_together(first, os.environ, Console(quiet=True)).topology)
    arrays = {}
    for case in cases:
        trained, _ = train(config_of(case, inputs, setup), cluster, STEPS[case])
        arrays[f"{case}/losses"] = trained.losses
        arrays |= {f"{case}/weights/{path}": value for path, value in trained.weights.items()}
    np.savez(out, **arrays)  # type: ignore[arg-type]
    cluster.barrier()


def main(inputs: Inputs, cases: Sequence[str]) -> None:
    """Trains all and prints the table."""
    import tensorflow as tf

    most = max(setup.replicas for setup in SETUPS.values())
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * most)
    by_workers = {
        name: train_in_processes(cases, inputs, setup) for name, setup in SETUPS.items() if setup.processes > 1
    }
    others = [name for name in SETUPS if name != ONE_REPLICA]
    print(f"{machine()}\n")
    print(f"| case | {' | '.join(others)} |\n|---|{'---|' * len(others)}", flush=True)
    for case in cases:
        reference = train_here(case, inputs, SETUPS[ONE_REPLICA])
        cells = []
        for name in others:
            here = name not in by_workers
            trained = train_here(case, inputs, SETUPS[name]) if here else by_workers[name][case][0]
            losses, weights = reference.largest_difference(trained)
            cells.append(f"{losses:.1e}, {weights:.1e}")
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        out, replicas, module, photos, *chosen = sys.argv[2:]
        _work(out, int(replicas), Inputs(module, photos), chosen)
    elif len(sys.argv) < 3:
        raise SystemExit(__doc__)
    else:
        main(Inputs(*sys.argv[1:3]), sys.argv[3:] or list(CASES))
