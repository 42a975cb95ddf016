"""What cached features depend on besides the example itself. Its hash names the folder that they are kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from trainer.blocks import read_blocks
from trainer.config import Config
from trainer.data.images import PREPROCESSING_VERSION
from trainer.data.model_input import ModelInput


@dataclass(frozen=True)
class View:
    """One way in which all images are augmented.

    Attributes:
      number: from 0; a view draws other random numbers than the next one.
      seed: of the run.
      augment: operations, sorted.
      randaugment: strength.
    """

    number: int
    seed: int
    augment: tuple[str, ...]
    randaugment: float


@dataclass(frozen=True)
class Recipe:
    """How features come about.

    Attributes:
      module: of the backbone's files, see `module_digest`.
      image_size: height and width in pixels; None where the examples are texts.
      resize: "crop" or "squash"; None where the examples are texts.
      view: how the images are augmented; None: not at all.
      preprocessing: version of how the bytes of an example become the module's input.
      precision: number format of the features: a Hub module computes as it was saved.
    """

    module: str
    image_size: int | None
    resize: str | None
    view: View | None = None
    preprocessing: int = PREPROCESSING_VERSION
    precision: str = "float32"

    @property
    def key(self) -> str:
        """32 hexadecimal digits that differ wherever the recipe does."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    def to_json(self) -> str:
        """The recipe for a person to read, always with the same bytes."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


def recipes(config: Config, module: str, model_input: ModelInput) -> tuple[Recipe, list[Recipe]]:
    """The recipes that a run needs: of the examples as they are, and of each of `--feature_cache_views`.

    Args:
      config: its augmentation and seed.
      module: see `module_digest`.
      model_input: how an example becomes the module's input.
    """
    plain = Recipe(module, **model_input.ingredients)
    views = [
        replace(plain, view=View(number, config.seed, tuple(sorted(config.augment)), config.randaugment))
        for number in range(config.feature_cache_views)
    ]
    return plain, views


def module_digest(path: str) -> str:
    """A hash over all files of a module, names and content: 64 hexadecimal digits.

    Args:
      path: the folder of a SavedModel, local or `gs://`.
    """
    digest = hashlib.sha256()
    for name, blocks in _files(path):
        digest.update(f"{name}\0".encode())
        inner = hashlib.sha256()
        for block in blocks:
            inner.update(block)
        digest.update(inner.digest())
    return digest.hexdigest()


def _files(path: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Names, sorted, inside a folder, and the content of each."""
    import tensorflow as tf

    root = path.rstrip("/")
    files: list[str] = []
    for folder, _, names in tf.io.gfile.walk(root):
        files += [f"{folder.rstrip('/')}/{name}" for name in names]
    for file in sorted(files):
        yield file[len(root) + 1 :], read_blocks(file)
