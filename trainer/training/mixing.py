"""Mixup and cutmix: training images mixed with their neighbours in the batch, on the device.

Row 2i of the global batch is mixed with row 2i + 1. A replica holds an even number of consecutive rows, so it holds
whole pairs and needs nothing from the others. All shares, rectangles and choices are a pure function of (seed, step)
and of the row's place in the global batch: however the batch is shared, the mixed images are the same to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.model.classifier import BatchRows

# Beside those of the head and of dropout in trainer.model.classifier, which are 1 and 2 of every 4.
_MIXING_SEED = 3

# Quantiles are tabled from this many standard deviations below the median of a normal distribution to as many above
# it. What a float32 draw from [0, 1) can give lies within 5.3, but for its zero, which is taken to the table's end.
_TABLE_DEVIATIONS = 6.0

# An odd number, so that the median is one of them. With this many, what is interpolated is off by less than 1e-5 for
# alpha from 0.1 to 100, and by less than 1e-3 for alpha = 0.01 (measured against scipy.stats.beta, 2026-11-21).
_TABLE_ENTRIES = 4097


class Mixed(NamedTuple):
    """Images of which each may hold a part of its neighbour, and what the loss must know about it.

    Attributes:
      pixels: float `[b, S, S, 3]`, of the type and in the range of the unmixed ones.
      partner_labels: int32 `[b]`, the label of the neighbour that was mixed in.
      own_share: float32 `[b]`, in [0, 1]: what the row's own label counts; the partner's counts the rest.
    """

    pixels: tf.Tensor
    partner_labels: tf.Tensor
    own_share: tf.Tensor


class _Plan(NamedTuple):
    """What happens to each of n rows.

    Attributes:
      own_share: float32 `[n]`.
      is_cut: bool `[n]`, whether a rectangle of the partner is pasted; otherwise the two are blended.
      rectangle: int32 `[n, 4]`, its top, bottom, left and right in pixels, bottom and right exclusive.
    """

    own_share: tf.Tensor
    is_cut: tf.Tensor
    rectangle: tf.Tensor


class BetaQuantiles:
    """Quantiles of Beta(alpha, alpha), fit to draw from it where only a uniform draw can be compiled.

    The table is spaced evenly on the scale of the normal distribution, not of probability: there the quantile function
    is smooth up to the tails, where for large alpha it would leap within the first cell of a uniform table.
    """

    def __init__(self, alpha: float) -> None:
        """Computes the table.

        Args:
          alpha: both parameters of the distribution, above 0. Up to 1 most shares lie near 0 and 1; 1 is the uniform
            distribution; above it they gather around one half.
        """
        from scipy.special import betaincinv, ndtr  # Comes with scikit-learn, and only mixing needs it.

        lower_half = np.linspace(-_TABLE_DEVIATIONS, 0.0, _TABLE_ENTRIES // 2 + 1)
        lower = betaincinv(alpha, alpha, ndtr(lower_half[:-1]))
        # The distribution is symmetric; its upper tail, whose probabilities are close to 1, is not computed apart.
        self._table: NDArray[np.float32] = np.concatenate([lower, [0.5], 1.0 - lower[::-1]]).astype(np.float32)

    def __call__(self, uniform: tf.Tensor) -> tf.Tensor:
        """Probabilities in [0, 1) to quantiles in [0, 1]; float32 of any shape."""
        deviations = tf.clip_by_value(tf.math.ndtri(uniform), -_TABLE_DEVIATIONS, _TABLE_DEVIATIONS)
        place = (deviations + _TABLE_DEVIATIONS) * ((_TABLE_ENTRIES - 1) / (2 * _TABLE_DEVIATIONS))
        left = tf.minimum(tf.cast(place, tf.int32), _TABLE_ENTRIES - 2)
        right_share = place - tf.cast(left, tf.float32)
        table = tf.constant(self._table)
        quantile = (1.0 - right_share) * tf.gather(table, left) + right_share * tf.gather(table, left + 1)
        return tf.clip_by_value(quantile, 0.0, 1.0)


class Mixer:
    """Mixes a replica's images and labels in the training step; static shapes, no host operation.

    Mixup (Zhang et al., 2018, arXiv:1710.09412) blends: share * own + (1 - share) * partner. Cutmix (Yun et al., 2019,
    arXiv:1905.04899) pastes a rectangle of the partner over the image. Each row draws a share of its own, so that the
    two images of a pair differ in more than their order.
    """

    def __init__(self, mixup: float, cutmix: float, seed: int) -> None:
        """Prepares the draws.

        Args:
          mixup: alpha of the Beta(alpha, alpha) that shares are drawn from; 0: no mixup.
          cutmix: alpha of the Beta(alpha, alpha) that the parts of the area that stay uncovered are drawn from; 0: no
            cutmix. With both, each pair gets one or the other with probability one half.
          seed: of the run.
        """
        if not (mixup or cutmix):
            raise ValueError("there is neither mixup nor cutmix to do")
        self._mixup = BetaQuantiles(mixup) if mixup else None
        self._cutmix = BetaQuantiles(cutmix) if cutmix else None
        self._seed = seed

    def __call__(self, pixels: tf.Tensor, labels: tf.Tensor, rows: BatchRows) -> Mixed:
        """Mixes each image with its neighbour: the first with the second, the third with the fourth, and so on.

        Args:
          pixels: float `[b, S, S, 3]`, b even.
          labels: int32 `[b]`.
          rows: where they stand in the global batch; their first row is an even one.

        Returns:
          The mixed images; the rows' own labels stay with the caller.

        Raises:
          ValueError: b is odd.
        """
        batch, height, width, _ = pixels.shape
        if batch % 2:
            raise ValueError(f"{batch} rows are not pairs")
        own_share, is_cut, rectangle = _part(self._plan(height, width, rows), rows.first_row, batch)
        own_weight = own_share[:, tf.newaxis, tf.newaxis, tf.newaxis]
        if self._cutmix:
            uncovered = 1.0 - _coverage(rectangle, height, width)
            own_weight = tf.where(is_cut[:, tf.newaxis, tf.newaxis, tf.newaxis], uncovered, own_weight)
        return Mixed(_blend(pixels, own_weight), _swap_neighbours(labels), own_share)

    def _plan(self, height: int, width: int, rows: BatchRows) -> _Plan:
        """What happens to every row of the global batch.

        A replica that computed this for its own rows alone would not do: vectorized operations may round the last few
        elements differently from the others, and shares would depend on the number of replicas.
        """
        size = rows.global_batch
        key = tf.stack([tf.constant(self._seed * 4 + _MIXING_SEED, tf.int64), tf.cast(rows.step, tf.int64)])
        share_draw, center_y, center_x, choice = tf.unstack(tf.random.stateless_uniform([4, size], key))
        if self._cutmix is None:
            assert self._mixup is not None
            return _Plan(self._mixup(share_draw), tf.zeros([size], tf.bool), tf.zeros([size, 4], tf.int32))
        covered = 1.0 - self._cutmix(share_draw)
        top, bottom = _clipped_span(center_y, covered, height)
        left, right = _clipped_span(center_x, covered, width)
        rectangle = tf.stack([top, bottom, left, right], axis=1)
        # Of what was drawn, the image's border has cut some off.
        area = tf.cast((bottom - top) * (right - left), tf.float32)
        own_share = 1.0 - area / (height * width)
        if self._mixup is None:
            return _Plan(own_share, tf.ones([size], tf.bool), rectangle)
        is_cut = tf.repeat(choice[::2] < 0.5, 2)
        return _Plan(tf.where(is_cut, own_share, self._mixup(share_draw)), is_cut, rectangle)


def _part(plan: _Plan, first_row: tf.Tensor, count: int) -> _Plan:
    """The plan for some consecutive rows."""
    start = tf.cast(first_row, tf.int32)
    return _Plan(
        tf.slice(plan.own_share, [start], [count]),
        tf.slice(plan.is_cut, [start], [count]),
        tf.slice(plan.rectangle, [start, 0], [count, 4]),
    )


def _clipped_span(center: tf.Tensor, area_share: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First pixel and the one after the last of a rectangle's side, as far as it lies within the image.

    Args:
      center: float32 `[n]`, its centre as a fraction of the image's side.
      area_share: float32 `[n]`, the share of the image's area that the whole rectangle has; its sides are to each other
        as the image's.
      length: the image's side, in pixels.

    Returns:
      Two int32 `[n]`, in [0, length].
    """
    half = tf.sqrt(area_share) / 2
    ends = [tf.clip_by_value(tf.round(length * (center + offset)), 0.0, float(length)) for offset in (-half, half)]
    return tf.cast(ends[0], tf.int32), tf.cast(ends[1], tf.int32)


def _coverage(rectangle: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """1 inside each of the rectangles, 0 outside: float32 `[n, height, width, 1]`."""
    top, bottom, left, right = tf.split(rectangle, 4, axis=1)
    y, x = tf.range(height), tf.range(width)
    rows = tf.logical_and(y >= top, y < bottom)[:, :, tf.newaxis, tf.newaxis]
    columns = tf.logical_and(x >= left, x < right)[:, tf.newaxis, :, tf.newaxis]
    return tf.cast(tf.logical_and(rows, columns), tf.float32)


def _swap_neighbours(values: tf.Tensor) -> tf.Tensor:
    """Rows 1, 0, 3, 2, 5, 4 and so on of a tensor."""
    pairs = tf.reshape(values, [-1, 2, *values.shape[1:]])
    return tf.reshape(tf.reverse(pairs, axis=[1]), values.shape)


def _blend(pixels: tf.Tensor, own_weight: tf.Tensor) -> tf.Tensor:
    """Each image by its weight, plus its neighbour by the rest; half-precision types are computed in float32."""
    exact = tf.cast(pixels, tf.float32) if pixels.dtype.size < 4 else pixels
    weight = tf.cast(own_weight, exact.dtype)
    return tf.cast(weight * exact + (1.0 - weight) * _swap_neighbours(exact), pixels.dtype)
