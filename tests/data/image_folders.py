"""Makes folders of small images, good and bad, for the tests beside it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(height: int = 12, width: int = 18, shift: int = 0) -> NDArray[np.uint8]:
    """A smooth colourful image, uint8 [height, width, 3]; `shift` makes different ones."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 9 + shift, columns * 7 + 2 * shift, rows * 3 + columns * 2 + 3 * shift]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], image_format: str = "PNG", mode: str = "RGB") -> bytes:
    """The image as the bytes of a file, first converted to one of PIL's modes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format)
    return buffer.getvalue()


def write_image(path: Path, shift: int = 0) -> None:
    """Writes a small PNG or JPEG, by the path's extension, and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image_format = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    path.write_bytes(encoded(gradient(shift=shift), image_format))


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """Writes that many images into a folder for each class: ROOT/roses/000.png and so on."""
    for class_number, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / name / f"{number:03d}.png", shift=40 * class_number + number)
    return root
