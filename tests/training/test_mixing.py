from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from trainer.model.classifier import BatchRows, dropout
from trainer.training.mixing import BetaQuantiles, Mixed, Mixer

GLOBAL_BATCH, SIZE = 8, 16
MIXERS = {"mixup": (0.4, 0.0), "cutmix": (0.0, 1.0), "both": (0.4, 1.0)}


def images(count: int, size: int = SIZE, dtype: str = "float32") -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, size, size, 3], [7, count]), dtype)


def mix(mixer: Mixer, pixels: tf.Tensor, step: int = 0, first_row: int = 0, global_batch: int | None = None) -> Mixed:
    """What a replica gets whose labels are the rows' places in the global batch; compiled, as in a training step."""
    count = pixels.shape[0]
    rows = first_row + tf.range(count)
    traced = tf.function(
        lambda pixels, labels, step, rows: mixer(pixels, labels, BatchRows(step, rows[0], global_batch or count))
    )
    return traced(pixels, rows, tf.constant(step, tf.int64), rows)


def swapped(values: NDArray) -> NDArray:
    return values.reshape([-1, 2, *values.shape[1:]])[:, ::-1].reshape(values.shape)


def shares(mixup: float, cutmix: float, count: int = 20_000, size: int = 2) -> NDArray[np.float64]:
    """The own shares of many rows."""
    return mix(Mixer(mixup, cutmix, 0), tf.zeros([count, size, size, 3])).own_share.numpy().astype(np.float64)


@pytest.mark.parametrize(
    ("alpha", "tolerance"),
    [(0.01, 1e-3), (0.1, 1e-5), (0.2, 1e-5), (0.4, 1e-5), (1.0, 1e-6), (8.0, 1e-6), (100.0, 1e-6)],
)
def test_quantiles_are_those_of_the_beta_distribution(alpha: float, tolerance: float) -> None:
    middle = (np.arange(1 << 16) + 0.5) / (1 << 16)
    tail = 10.0 ** np.arange(-7, -4.5, 0.1)
    probabilities = np.concatenate([tail, middle, 1 - tail]).astype(np.float32)
    quantiles = BetaQuantiles(alpha)(tf.constant(probabilities)).numpy()
    np.testing.assert_allclose(quantiles, beta.ppf(probabilities.astype(np.float64), alpha, alpha), atol=tolerance)


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 0.05, 1.0, 100.0])
def test_quantiles_never_leave_the_unit_interval_or_fall(alpha: float) -> None:
    probabilities = np.linspace(0, np.nextafter(np.float32(1), np.float32(0)), 100_001, dtype=np.float32)
    quantiles = BetaQuantiles(alpha)(tf.constant(probabilities)).numpy()
    assert np.isfinite(quantiles).all() and quantiles.min() >= 0 and quantiles.max() <= 1
    assert (np.diff(quantiles) >= -1e-6).all()
    assert quantiles[0] < 0.5 < quantiles[-1]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_of_mixup_are_drawn_from_the_beta_distribution(alpha: float) -> None:
    # Not by a test of the whole distribution: for 0.2, one share in thirty is closer to 1 than float32 can say.
    probabilities = np.linspace(0.1, 0.9, 17)
    below = shares(alpha, 0.0)[:, np.newaxis] < beta.ppf(probabilities, alpha, alpha)
    errors = np.sqrt(probabilities * (1 - probabilities) / len(below))
    assert (np.abs(below.mean(axis=0) - probabilities) / errors).max() < 3.5


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_mixup_blends_by_the_share_that_it_gives(dtype: str) -> None:
    pixels = images(GLOBAL_BATCH, dtype=dtype)
    mixed = mix(Mixer(1.0, 0.0, 3), pixels)
    assert mixed.pixels.dtype == pixels.dtype and mixed.pixels.shape == pixels.shape
    assert mixed.partner_labels.dtype == tf.int32 and mixed.own_share.dtype == tf.float32
    assert mixed.partner_labels.numpy().tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    own = tf.cast(pixels, tf.float64).numpy()
    share = mixed.own_share.numpy().astype(np.float64).reshape(-1, 1, 1, 1)
    assert share.min() < 0.4 and share.max() > 0.6 and len(np.unique(share)) == GLOBAL_BATCH
    tolerance = {"float32": 1e-6, "float64": 1e-7, "bfloat16": 2**-8, "float16": 2**-11}[dtype]
    expected = share * own + (1 - share) * swapped(own)
    np.testing.assert_allclose(tf.cast(mixed.pixels, tf.float64), expected, atol=tolerance, rtol=0)


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels() -> None:
    count = 400
    pixels = images(count)
    mixed = mix(Mixer(0.0, 1.0, 0), pixels)
    own, partner, result = pixels.numpy(), swapped(pixels.numpy()), mixed.pixels.numpy()
    pasted = (result != own).any(axis=-1)
    np.testing.assert_array_equal(result, np.where(pasted[..., np.newaxis], partner, own))
    np.testing.assert_allclose(mixed.own_share, 1 - pasted.mean(axis=(1, 2)), atol=1e-7)
    rows, columns = pasted.any(axis=2), pasted.any(axis=1)
    np.testing.assert_array_equal(pasted, rows[:, :, np.newaxis] & columns[:, np.newaxis, :])
    for side in (rows, columns):
        assert (np.abs(np.diff(np.pad(side.astype(int), [(0, 0), (1, 1)]))).sum(axis=1) <= 2).all()  # One piece.
    # Its centre may lie anywhere, so that it reaches every pixel, and the border often cuts some of it off.
    assert pasted.any(axis=0).all() and 0.4 < (rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]).mean() < 0.95


def test_areas_of_cutmix_are_as_drawn_where_no_border_cuts() -> None:
    size, count = 256, 400
    pixels = tf.broadcast_to(tf.reshape(tf.range(count, dtype=tf.float32), [-1, 1, 1, 1]), [count, size, size, 1])
    mixed = mix(Mixer(0.0, 1.0, 1), pixels)
    pasted = mixed.pixels.numpy()[..., 0] != pixels.numpy()[..., 0]
    inner = ~(pasted[:, [0, -1]].any(axis=(1, 2)) | pasted[:, :, [0, -1]].any(axis=(1, 2)))
    heights, widths = pasted.any(axis=2).sum(axis=1), pasted.any(axis=1).sum(axis=1)
    assert inner.sum() > 30 and np.abs(heights - widths)[inner].max() <= 1  # The image's proportions.
    # The whole rectangle lies inside if its centre is half a side from each border: with probability (1 - side)^2. With
    # area 1 - share uniform, the density of side is 2 side, and of side inside 2 side (1 - side)^2: 12 times that is 1.
    sides = heights[inner] / size
    assert kstest(sides, lambda side: 6 * side**2 - 8 * side**3 + 3 * side**4).pvalue > 0.01


def test_with_both_each_pair_gets_one_or_the_other() -> None:
    count = 1000
    pixels = images(count)
    mixed = mix(Mixer(1.0, 1.0, 0), pixels)
    own, result = pixels.numpy(), mixed.pixels.numpy()
    pasted = (result == own) | (result == swapped(own))
    is_cut = pasted.all(axis=(1, 2, 3)).reshape(-1, 2)
    assert (is_cut[:, 0] == is_cut[:, 1]).all()
    assert 0.44 < is_cut.mean() < 0.56
    blended = ~np.repeat(is_cut[:, 0], 2)
    share = mixed.own_share.numpy().reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(result[blended], (share * own + (1 - share) * swapped(own))[blended], atol=1e-6)
    uncovered = (result == own).all(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(share[~blended].ravel(), uncovered[~blended], atol=1e-6)


@pytest.mark.parametrize("name", list(MIXERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_sharding_mixes_the_same(name: str, dtype: str) -> None:
    mixer = Mixer(*MIXERS[name], seed=5)
    for step, global_batch in ((0, 8), (3, 24)):
        pixels = images(global_batch, dtype=dtype)
        whole = mix(mixer, pixels, step)
        for rows in (global_batch // 2, global_batch // 4):
            parts = [
                mix(mixer, pixels[first : first + rows], step, first, global_batch)
                for first in range(0, global_batch, rows)
            ]
            for expected, got in zip(whole, zip(*parts)):
                np.testing.assert_array_equal(np.concatenate([part.numpy() for part in got]), expected.numpy())


@pytest.mark.parametrize("name", list(MIXERS))
def test_seed_and_step_alone_decide(name: str) -> None:
    pixels = images(GLOBAL_BATCH)

    def result(seed: int, step: int) -> bytes:
        mixed = mix(Mixer(*MIXERS[name], seed=seed), pixels, step)
        return mixed.pixels.numpy().tobytes() + mixed.own_share.numpy().tobytes()

    assert result(0, 0) == result(0, 0)
    largest = 2**31 - 1
    different = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (largest, 0), (largest, 2**40)]
    assert len({result(seed, step) for seed, step in different}) == len(different)


def test_draws_are_not_those_of_dropout() -> None:
    # Beta(1, 1) is the uniform distribution: shares equal the numbers that they were drawn by. Dropout's noise would
    # begin with the same numbers if its key were the same.
    count = 64
    own_share = shares(1.0, 0.0, count)
    rows = BatchRows(tf.constant(0, tf.int64), tf.constant(0), count)
    for seed in range(3):
        is_dropped = dropout(tf.ones([count, 4]), 0.5, seed, rows).numpy().ravel()[:count] == 0
        assert 0.25 < np.mean(is_dropped == (own_share < 0.5)) < 0.75


def test_gradients_flow_through_pixels_alone() -> None:
    pixels = tf.Variable(images(GLOBAL_BATCH))
    mixer = Mixer(1.0, 1.0, 0)
    with tf.GradientTape(persistent=True) as tape:
        mixed = mixer(pixels, tf.range(GLOBAL_BATCH), BatchRows(tf.constant(0), tf.constant(0), GLOBAL_BATCH))
        total, share = tf.reduce_sum(mixed.pixels), tf.reduce_sum(mixed.own_share)
    assert tape.gradient(share, pixels) is None
    gradient = tape.gradient(total, pixels).numpy().reshape(-1, 2, SIZE, SIZE, 3)
    means = gradient.mean(axis=(2, 3, 4))
    own, partner = np.split(mixed.own_share.numpy().reshape(-1, 2), 2, axis=1)
    np.testing.assert_allclose(means, np.concatenate([own + 1 - partner, partner + 1 - own], axis=1), atol=1e-5)


@pytest.mark.parametrize("name", list(MIXERS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_lowers_by_xla(name: str, dtype: str) -> None:
    mixer = Mixer(*MIXERS[name], seed=0)
    traced = tf.function(
        lambda pixels, labels, step, rows: mixer(pixels, labels, BatchRows(step, rows[0], 32)), jit_compile=True
    )
    program = traced.experimental_get_compiler_ir(
        tf.TensorSpec([8, 12, 12, 3], dtype),
        tf.TensorSpec([8], tf.int32),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([8], tf.int32),
    )(stage="hlo")
    assert "dynamic-slice" in program  # The rows are known when it runs, not before.
    assert not re.search(r"custom-call|infeed|outfeed|while|f64|c128", program)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows are not pairs"):
        mix(Mixer(0.2, 0.0, 0), images(3), 0, 0, 12)
    with pytest.raises(ValueError, match="neither"):
        Mixer(0.0, 0.0, 0)
