"""How far preflight's estimate of a GPU's memory is from what the steps take: on CPUs, since there is no GPU here.

    python benchmarks/gpu_estimate.py MODULE

Each run is estimated as `python -m trainer.preflight --accelerator=l4` does it, from batches of about 1 GiB, and then
run with its own batch, on the same allocator. What a GPU's own kernels take besides is not in either.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

from machine import machine

from trainer.config import Config
from trainer.preflight.gpu_memory import StepBytes, measure

GIB = 2**30
SECONDS = 1800.0
ANY_BYTES = 2**50


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="folder of a Hub module")
    module = parser.parse_args().module
    print(f"{machine()}\n")
    print("| run | step | batch | run with | estimated, GiB | taken, GiB | estimated / taken | by XLA, GiB |")
    print("|---|---|---|---|---|---|---|---|")
    ratios = []
    for name, config in _runs(module):
        for estimated, taken in zip(measure(config, SECONDS), measure(config, SECONDS, trial_bytes=ANY_BYTES)):
            cells = _cells(estimated, taken)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
            if taken.run and estimated.trials[-1][0] < estimated.batch:
                ratios.append(estimated.run / taken.run)
    print(f"\nWhere it was extended: {min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}")


def _runs(module: str) -> Iterator[tuple[str, Config]]:
    variants: dict[str, dict[str, Any]] = {
        "trained": {"backbone": module, "train_backbone": True, "batch_size": 64},
        "trained, in two pieces": {
            "backbone": module,
            "train_backbone": True,
            "batch_size": 96,
            "accumulation_steps": 2,
        },
        "frozen, every step": {"backbone": module, "feature_cache": "off", "batch_size": 512},
        "convnet": {"image_size": 96, "batch_size": 1024},
        "convnet, bfloat16": {"image_size": 96, "batch_size": 1024, "precision": "mixed_bfloat16"},
    }
    for name, fields in variants.items():
        yield name, Config.parse({"data": "synthetic:5", **fields})


def _cells(estimated: StepBytes, taken: StepBytes) -> list[str]:
    tried = " and ".join(str(batch) for batch, _ in estimated.trials)
    ratio = f"{estimated.run / taken.run:.3f}" if taken.run else ""
    sizes = [f"{size / GIB:.2f}" for size in (estimated.run, taken.run)]
    return [estimated.name, str(estimated.batch), tried, *sizes, ratio, f"{estimated.compiled / GIB:.2f}"]


if __name__ == "__main__":
    main()
