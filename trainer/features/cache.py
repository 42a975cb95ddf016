"""A folder of shards: which images' features are there, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.features.recipe import Recipe
from trainer.features.shards import ID_BYTES, SUFFIX, DamagedShardError, Shard, comparable, decode_shard
from trainer.storage import RunDirectory

LAYOUT = "v1"
"""Version of the folders and shards. A program of another version uses another folder, and both are left alone."""

RECIPE_FILE = "recipe.json"

FLAG = "--feature_cache"


class Places(NamedTuple):
    """Where the features of some images are; row i of both belongs to the same image.

    Attributes:
      shards: int32 `[n]`, numbers of shards; -1 where the cache has none.
      rows: int32 `[n]`, rows in them.
    """

    shards: NDArray[np.int32]
    rows: NDArray[np.int32]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Bool `[n]`, which images the cache lacks."""
        return self.shards < 0


class FeatureCache:
    """The features of one recipe, local or on `gs://`. Any number of processes may read and add at the same time.

    Nothing is ever changed in place: shards are added, and damaged ones taken away.

    Attributes:
      folder: where they are.
      feature_size: length of a feature vector.
    """

    def __init__(self, root: str, recipe: Recipe, feature_size: int, report: Callable[[str], None]) -> None:
        """Looks at what is there already; nothing is written.

        Args:
          root: the folder that `--feature_cache` names; shared by all recipes.
          recipe: how the features come about.
          feature_size: length of a feature vector.
          report: is told of damaged shards.

        Raises:
          UserError: the place may not be read.
        """
        self.folder = RunDirectory(RunDirectory(root, FLAG).join(LAYOUT, recipe.key), FLAG)
        self.feature_size = feature_size
        self._recipe = recipe
        self._report = report
        self._names: list[str] = []
        self._ids: list[NDArray[np.uint8]] = []
        self._seen: set[str] = set()
        self.refresh()

    def refresh(self) -> NDArray[np.uint8]:
        """Takes in what other runs have added since.

        Returns:
          The ids of those images, uint8 `[n, 16]`.

        Raises:
          UserError: the place may not be read.
        """
        before = len(self._ids)
        for name in self.folder.list():
            if name.endswith(SUFFIX) and not name.startswith(".") and name not in self._seen:
                self._seen.add(name)
                shard = self._read(name)
                if shard:
                    self._add(name, shard)
        return np.concatenate([np.zeros((0, ID_BYTES), np.uint8), *self._ids[before:]])

    def find(self, ids: NDArray[np.uint8]) -> Places:
        """Where the features of some images are.

        Args:
          ids: uint8 `[n, 16]`.
        """
        nowhere = Places(np.full(len(ids), -1, np.int32), np.zeros(len(ids), np.int32))
        if not self._ids:
            return nowhere
        # The order of the names and not that of their discovery decides where an image is twice.
        by_name = sorted(range(len(self._names)), key=self._names.__getitem__)
        shards = np.concatenate([np.full(len(self._ids[shard]), shard, np.int32) for shard in by_name])
        rows = np.concatenate([np.arange(len(self._ids[shard]), dtype=np.int32) for shard in by_name])
        known, first = np.unique(comparable(np.concatenate([self._ids[shard] for shard in by_name])), return_index=True)
        wanted = comparable(ids)
        nearest = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found = known[nearest] == wanted
        places = first[nearest]
        return Places(np.where(found, shards[places], -1).astype(np.int32), np.where(found, rows[places], 0))

    def shard_name(self, number: int) -> str:
        """The file name of a shard that `find` gave."""
        return self._names[number]

    def load(self, number: int) -> Shard:
        """The content of a shard that `find` gave.

        Raises:
          UserError: it was taken away or damaged since, or may not be read.
        """
        name = self._names[number]
        try:
            return decode_shard(name, self.folder.read_bytes(name), self.feature_size)
        except DamagedShardError as error:
            raise UserError(f"{self.folder.join(name)} was damaged just now ({error}): start the run again.") from error

    def write(self, ids: NDArray[np.uint8], features: NDArray[np.float32]) -> None:
        """Adds a shard.

        Args:
          ids: uint8 `[rows, 16]`.
          features: float32 `[rows, feature_size]`, finite.

        Raises:
          UserError: the place cannot be written, or the disk is full; what is there stays good.
        """
        if not self.folder.exists(RECIPE_FILE):
            self.folder.write_text(RECIPE_FILE, self._recipe.to_json())
        shard = Shard(ids, features)
        name, content = shard.encode()
        self.folder.write_bytes(name, content)
        if name not in self._seen:
            self._seen.add(name)
            self._add(name, shard)

    def _add(self, name: str, shard: Shard) -> None:
        self._names.append(name)
        self._ids.append(shard.ids.copy())

    def _read(self, name: str) -> Shard | None:
        """A shard; None if it is damaged, and then taken away, or if another run has just taken it away."""
        try:
            content = self.folder.read_bytes(name)
        except UserError:
            if self.folder.exists(name):
                raise
            return None
        try:
            return decode_shard(name, content, self.feature_size)
        except DamagedShardError as error:
            self._report(f"The feature cache has a damaged shard ({error}): its features are computed again.")
            self._take_away(name)
            return None

    def _take_away(self, name: str) -> None:
        try:
            self.folder.delete_tree(name)
        except UserError as error:  # A cache that may only be read is of use all the same.
            self._report(f"The damaged shard stays where it is: {error}")
