"""Exact metrics: every example counts once, whatever the batch and the number of replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cluster import Cluster
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches
from trainer.data.source import Source
from trainer.model.classifier import Classifier
from trainer.training.step import EvaluationStep

if TYPE_CHECKING:
    from trainer.features.once import RunFeatures


@dataclass(frozen=True)
class Evaluation:
    """What a model said of every example of a split.

    Attributes:
      indices: int64 `[n]`, the examples' indices in the source.
      losses: float32 (float64 with that precision) `[n]`, cross-entropy in nats.
      predictions: int32 `[n]`, most probable class.
      confidences: `[n]`, its probability, of the same type.
      labels: int32 `[n]`, the true class.
    """

    indices: NDArray[np.int64]
    losses: NDArray[np.floating]
    predictions: NDArray[np.int32]
    confidences: NDArray[np.floating]
    labels: NDArray[np.int32]

    @property
    def examples(self) -> int:
        """How many examples were judged."""
        return len(self.indices)

    @property
    def accuracy(self) -> float:
        """Share of right predictions, in [0, 1]."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, summed in float64 in the order of the indices."""
        return float(np.mean(self.losses, dtype=np.float64))


def evaluation_input(
    cluster: Cluster,
    model: Classifier,
    source: Source,
    indices: NDArray[np.int64],
    global_batch: int,
    features: RunFeatures | None = None,
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """A batch for each replica, until every example came once; see `evaluation_batches`.

    Args:
      cluster: where `model` was built.
      model: its preprocessing is applied.
      source: where the examples come from.
      indices: int64 `[n]`, into the source.
      global_batch: examples a step over all replicas.
      features: computed before; None reads the images.
    """

    def of_one_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = Share.of(context, global_batch)
        if features:
            return features.evaluation_batches(source, indices, share)
        return evaluation_batches(source, indices, model.model_input, share)

    return cluster.distribute(of_one_pipeline)


class Evaluator:
    """Evaluates one model on any split, as often as wanted, with one compilation."""

    def __init__(
        self,
        cluster: Cluster,
        model: Classifier,
        source: Source,
        global_batch: int,
        features: RunFeatures | None = None,
    ) -> None:
        """Binds the evaluation to a model.

        Args:
          cluster: where `model` was built.
          model: the model to judge; its weights are read at each call.
          source: where the examples come from.
          global_batch: examples a step over all replicas; the replicas divide it.
          features: of the examples that will be asked about, computed before; None has the model look at the images.
        """
        self._features = features
        self._cluster = cluster
        self._model = model
        self._source = source
        self._global_batch = global_batch
        self._evaluate_batch = compiled_batch(cluster.strategy, EvaluationStep(model))

    def __call__(
        self, indices: NDArray[np.int64], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Evaluation:
        """Judges each of the examples once.

        Args:
          indices: int64 `[n]`, n > 0, into the source.
          progress: is told how many of how many were judged, before the first batch, which compiles, and after each.

        Raises:
          RuntimeError: an example was left out or came twice, which would be a bug of the input pipeline.
        """
        dataset = evaluation_input(
            self._cluster, self._model, self._source, indices, self._global_batch, self._features
        )
        iterator = iter(dataset)
        batches = []
        for begin in range(0, len(indices), self._global_batch):
            progress(begin, len(indices))
            batches.append(self._evaluate_batch(iterator))
        progress(len(indices), len(indices))
        rows = self._of_all_workers(
            {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}
        )
        real = rows["index"] >= 0
        order = np.argsort(rows["index"][real], kind="stable")
        judged = rows["index"][real][order].astype(np.int64)
        if not np.array_equal(judged, np.sort(indices)):
            raise RuntimeError(f"evaluation judged {len(judged)} examples of {len(indices)}, or some of them twice")
        return Evaluation(
            indices=judged,
            losses=rows["loss"][real][order],
            predictions=rows["prediction"][real][order],
            confidences=rows["confidence"][real][order],
            labels=self._source.labels[judged],
        )

    def _of_all_workers(self, rows: dict[str, NDArray]) -> dict[str, NDArray]:
        """The rows that each worker judged, one worker's behind the other's: one message for all of them."""
        gathered = self._cluster.gather(np.stack(list(rows.values())))
        return {
            name: gathered[:, column].reshape(-1).astype(local.dtype)
            for column, (name, local) in enumerate(rows.items())
        }


def compiled_batch(strategy: tf.distribute.Strategy, step: EvaluationStep) -> tf.types.experimental.GenericFunction:
    """A function from an iterator to the next batch's rows, of all replicas of this process."""

    @tf.function(autograph=False)
    def evaluate_batch(iterator: tf.distribute.DistributedIterator) -> dict[str, tf.Tensor]:
        per_replica = strategy.run(step, args=(next(iterator),))
        return {name: tf.concat(strategy.experimental_local_results(value), 0) for name, value in per_replica.items()}

    return evaluate_batch
