"""Computes the features of a run's images once, if that is right for the run, and hands them to its input."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cache_home import cache_home
from trainer.cluster import Cluster
from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.model_input import ModelInput
from trainer.data.order import Share
from trainer.data.pipeline import augmentation_of
from trainer.data.source import Source
from trainer.features.batches import (
    TrainingFeatures,
    evaluation_feature_batches,
    extractor_batches,
    training_feature_batches,
)
from trainer.features.cache import FLAG, LAYOUT, FeatureCache
from trainer.features.content_ids import IdMemory, content_ids
from trainer.features.engine import Engine
from trainer.features.fill import fill
from trainer.features.recipe import Recipe, module_digest, recipes
from trainer.features.table import FeatureTable, Part
from trainer.model.backbone import HubBackbone
from trainer.model.endpoint import FEATURE_VECTORS
from trainer.model.hub import HubModule, load_module
from trainer.storage import RunDirectory
from trainer.wording import counted


@dataclass(frozen=True)
class RunFeatures:
    """The features of all images that a run uses.

    Attributes:
      train: of the training images.
      evaluation: of the validation and test images.
      evaluated: int64 `[n]`, ascending: the images, as indices in the source, that `evaluation` has rows of.
      summary: what was done, for a person.
    """

    train: TrainingFeatures
    evaluation: FeatureTable
    evaluated: NDArray[np.int64]
    summary: str
    # Deleted with this object.
    _temporary: tempfile.TemporaryDirectory | None = field(default=None, repr=False)

    def training_batches(
        self, source: Source, indices: NDArray[np.int64], seed: int, share: Share, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """See `training_feature_batches`."""
        return training_feature_batches(self.train, source, indices, seed, share, first_step, last_step)

    def evaluation_batches(self, source: Source, indices: NDArray[np.int64], share: Share) -> tf.data.Dataset:
        """See `evaluation_feature_batches`; `indices` are some of `evaluated`."""
        rows = np.searchsorted(self.evaluated, indices).astype(np.int64)
        return evaluation_feature_batches(self.evaluation, source, indices, rows, share)


class FeaturesOnce:
    """Finds, computes and opens the features of one run."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        source: Source,
        backbone: HubBackbone,
        model_input: ModelInput,
        report: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        """Chooses the folder.

        Args:
          config: the run; it `keeps_features`.
          cluster: its devices.
          source: its examples.
          backbone: frozen, in the scope of the strategy.
          model_input: how an example becomes the backbone's input.
          report: is told what a person should know.
          progress: is told how many features of how many are there.
        """
        self._config = config
        self._source = source
        self._model_input = model_input
        self._report = report
        self._progress = progress
        self._backbone = backbone
        self._root, self._temporary = _root(config.feature_cache, report)
        self._plain, self._views = recipes(config, module_digest(backbone.hub_module.path), model_input)
        converted = RunDirectory(self._root, FLAG).join(LAYOUT, self._plain.key)
        self._engine = Engine(cluster, backbone, self._load, RunDirectory(converted, FLAG), report)
        # Of several workers each begins elsewhere; of independent runs, too. The features do not depend on it.
        self._start = (cluster.worker_index + secrets.randbelow(1000) / 1000) / cluster.workers

    def __call__(self, train: NDArray[np.int64], evaluated: NDArray[np.int64]) -> RunFeatures:
        """Computes what is missing and opens all.

        Args:
          train: int64 `[n]`, the training images.
          evaluated: int64 `[m]`, ascending, the validation and test images.

        Raises:
          UserError: the cache cannot be read or written, or the module not be used.
          tf.errors.OpError: an image cannot be read or decoded.
        """
        wanted = np.union1d(train, evaluated)
        ids = content_ids(self._source, wanted, self._memory(), self._report)
        train_ids = ids[np.searchsorted(wanted, train)]
        evaluated_ids = ids[np.searchsorted(wanted, evaluated)]
        ascending = np.argsort(train)
        views = [self._filled(recipe, train[ascending], train_ids[ascending]) for recipe in self._views]
        plain = self._filled(self._plain, evaluated, evaluated_ids) if views else self._filled(self._plain, wanted, ids)
        training = [Part(cache, train_ids) for cache, _ in views or [plain]]
        return RunFeatures(
            train=TrainingFeatures(FeatureTable(training), len(training)),
            evaluation=FeatureTable([Part(plain[0], evaluated_ids)]),
            evaluated=evaluated,
            summary=self._summary(len(wanted), sum(count for _, count in [*views, plain])),
            _temporary=self._temporary,
        )

    def _memory(self) -> IdMemory | None:
        if not isinstance(self._source, FileSource) or self._temporary:
            return None
        return IdMemory(RunDirectory(RunDirectory(self._root, FLAG).join(LAYOUT), FLAG), self._source.root)

    def _filled(self, recipe: Recipe, indices: NDArray[np.int64], ids: NDArray[np.uint8]) -> tuple[FeatureCache, int]:
        """The cache of a recipe, with the features of these images, and how many of them it lacked."""
        cache = FeatureCache(self._root, recipe, self._backbone.feature_size, self._report)
        augmentation = augmentation_of(self._config, self._model_input) if recipe.view else None

        def examples(order: tf.data.Dataset, batch: int) -> tf.data.Dataset:
            source, model_input = self._source, self._model_input
            return extractor_batches(source, indices, ids, model_input, recipe.view, augmentation, order, batch)

        return cache, fill(cache, ids, examples, self._engine, self._progress, self._start)

    def _load(self) -> HubModule:
        config = self._config
        purpose = FEATURE_VECTORS[config.example_kind]
        return load_module(self._backbone.hub_module.path, config.backbone, config.image_size, purpose)

    def _summary(self, examples: int, computed: int) -> str:
        variants = f", {len(self._views)} variants of each training image" if self._views else ""
        examples_and_variants = f"{counted(examples, self._source.kind)}{variants}"
        if not computed:
            return f"of {examples_and_variants}: all found in {self._root}"
        place = "kept for this run" if self._temporary else f"kept in {self._root}"
        return f"of {examples_and_variants}: {computed} computed now by {self._engine.name}, {place}"


def _root(feature_cache: str, report: Callable[[str], None]) -> tuple[str, tempfile.TemporaryDirectory | None]:
    """The folder of all features; a temporary one, and its owner, where the default cannot be written."""
    if feature_cache != "auto":
        return RunDirectory(feature_cache, FLAG).path, None
    folder = cache_home("features")
    try:
        os.makedirs(folder, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it may not be written"
    except OSError as error:
        reason = str(error.strerror)
    if not reason:
        return folder, None
    report(f"The features are kept for this run only, not in {folder} ({reason}); --feature_cache names another place.")
    temporary = tempfile.TemporaryDirectory(prefix="hub-trainer-features-")
    return temporary.name, temporary
