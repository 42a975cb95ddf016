"""The options of benchmarks that train classifiers of photos on a Hub module, once for each seed."""

from __future__ import annotations

import argparse


def flower_options(description: str) -> argparse.Namespace:
    """What the command line says: photos, module, seeds (separated by commas) and epochs.

    Args:
      description: of the benchmark, for --help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="folder with one folder of photos a class")
    parser.add_argument("module", help="folder of a Hub module")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=6)
    return parser.parse_args()
