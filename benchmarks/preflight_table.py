"""What preflight says of a real Hub module: frozen and trained, two optimizers, two number formats, six slices.

    python benchmarks/preflight_table.py MODULE CACHE [--only=trained] [--optimizers=adam] [--slices=v5litepod-8]

prints a table in Markdown, a row as soon as it is known. What the compiler said once is kept in the folder CACHE, so
that a table which was interrupted goes on where it stopped. It needs the TPU compiler: pip install '.[preflight]'.

Each chip, or core of a v2 or v3, gets 64 made-up images a step, of the module's own size. "frozen" is how a frozen
module is trained by default: its features are computed once, 256 images at a time, and the steps train the head alone;
"every step" computes them in each step (--feature_cache=off).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()

from machine import machine

from trainer.accelerators import Slice, slice_named
from trainer.config import Config
from trainer.preflight.__main__ import ALL
from trainer.preflight.cache import Cache
from trainer.preflight.check import Checker, Options
from trainer.preflight.compiler import COMPILER, Compiler, compiler_python
from trainer.preflight.report import Report
from trainer.preflight.verdict import Fits
from trainer.records.console import Console

IMAGES_A_DEVICE = 64
SECONDS = 1800.0
GIB = 2**30

WAYS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "every step": {"feature_cache": "off"},
    "trained": {"train_backbone": True},
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="folder of a Hub module")
    parser.add_argument("cache", help="folder that results are kept in")
    parser.add_argument("--only", default=",".join(WAYS), help="of " + ", ".join(WAYS))
    parser.add_argument("--optimizers", default="sgd,adam")
    parser.add_argument("--precisions", default="float32,mixed_bfloat16")
    parser.add_argument("--slices", default=",".join(ALL))
    arguments = parser.parse_args()
    print(f"{machine()}, {COMPILER}\n")
    print("| module | optimizer | precision | slice | verdict | HBM, GiB | of | tracing, s | compiling, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for config, way in _configs(arguments):
        checkers: dict[int, Checker] = {}
        for slice_ in map(slice_named, arguments.slices.split(",")):
            if slice_.replicas not in checkers:
                batch = {"batch_size": IMAGES_A_DEVICE * slice_.replicas}
                made = Config.parse({**config, **batch})
                console = Console(quiet=True)
                checkers[slice_.replicas] = Checker(
                    made, Options("b", SECONDS), _compiler, Cache(arguments.cache), console
                )
            report = checkers[slice_.replicas].check(slice_)
            cells = [way, config["optimizer"], config["precision"].removeprefix("mixed_"), slice_.name, *_cells(report)]
            print(f"| {' | '.join(cells)} |", flush=True)


def _configs(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], str]]:
    for way in arguments.only.split(","):
        for optimizer in arguments.optimizers.split(","):
            for precision in arguments.precisions.split(","):
                common = {"strategy": "tpu", "data": "synthetic:5", "backbone": arguments.module}
                yield {**common, "optimizer": optimizer, "precision": precision, **WAYS[way]}, way


def _compiler(slice_: Slice) -> Compiler:
    return Compiler(slice_, [compiler_python(os.environ)], SECONDS)


def _cells(report: Report) -> list[str]:
    verdict = report.verdict
    trace = f"{report.seconds['trace']:.0f}"
    if not isinstance(verdict, Fits):
        return [verdict.word, "", "", trace, ""]
    most = max(step.needed for step in verdict.steps)
    compiling = sum(step.seconds for step in verdict.steps)
    return [verdict.word, f"{most / GIB:.2f}", f"{verdict.allowed / GIB:.2f}", trace, f"{compiling:.0f}"]


if __name__ == "__main__":
    main()
