"""What the pages' commands call the things that they use."""

from __future__ import annotations

from pathlib import Path


def environment(folder: Path) -> dict[str, str]:
    """Name and value of each, for a folder that `prepare` filled."""
    names = {
        "PHOTOS": "flower_photos",
        "MODULE": "mobilenet_v2_100",
        "SMALL_MODULE": "mobilenet_v2_035",
        "CLASSIFIER": "classifier",
        "INCEPTION": "inception",
        "STYLE": "style",
        "DATA_DIR": "tensorflow_datasets",
        "LABELS": "ImageNetLabels.txt",
        "PHOTO": "grace_hopper.jpg",
    }
    return {variable: str(folder / name) for variable, name in names.items()}
