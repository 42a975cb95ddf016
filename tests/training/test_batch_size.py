"""Which batches are tried, which are not, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.training.batch_size import BatchSearch, HostMemory, largest_batch

MIB = 2**20


class Fits:
    """Says that batches up to a limit fit, and keeps what it was asked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[int] = []

    def __call__(self, batch: int) -> bool:
        self.asked.append(batch)
        return batch <= self.limit


@pytest.mark.parametrize(
    ("limit", "multiple_of", "most", "first", "found", "asked"),
    [
        (100, 1, 1000, 8, 64, [8, 16, 32, 64, 128]),
        (64, 1, 1000, 8, 64, [8, 16, 32, 64, 128]),
        (5, 1, 1000, 32, 4, [32, 16, 8, 4]),
        (0, 1, 1000, 4, 0, [4, 2, 1]),
        (1000, 1, 100, 8, 64, [8, 16, 32, 64]),
        (1000, 6, 100, 32, 96, [24, 48, 96]),
        (40, 6, 1000, 32, 24, [24, 48]),
        (1000, 6, 4, 32, 6, [6]),
        (5, 6, 1000, 32, 0, [24, 12, 6]),
        (1000, 1, 255, 255, 128, [128]),
        (100, 1, 255, 255, 64, [128, 64]),
        (1000, 1, 1000, 1, 512, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
    ],
)
def test_the_largest_of_the_doubled_ones_is_found(
    limit: int, multiple_of: int, most: int, first: int, found: int, asked: list[int]
) -> None:
    fits = Fits(limit)
    assert largest_batch(fits, multiple_of=multiple_of, most=most, first=first) == found
    assert fits.asked == asked


class Machine:
    """A process that takes so much for each image of a batch, and 300 MiB for itself; 1000 MiB are free."""

    def __init__(self, mib_an_image: float, peak: float = 300.0) -> None:
        self.mib_an_image = mib_an_image
        self.peak = peak

    def try_batch(self, batch: int) -> bool:
        self.peak = max(self.peak, 300.0 + self.mib_an_image * batch)
        return True

    def memory(self, share: float = 0.5) -> HostMemory:
        return HostMemory(share, free=lambda: 1000 * MIB, resident=lambda: 300 * MIB, peak=lambda: int(self.peak * MIB))


@pytest.mark.parametrize(("share", "found"), [(0.5, 32), (0.25, 16), (1.0, 64)])
def test_no_batch_is_tried_that_might_take_more_than_its_share_of_the_memory(share: float, found: int) -> None:
    machine = Machine(mib_an_image=10.0)
    search = BatchSearch(machine.try_batch, memory=machine.memory(share))
    assert largest_batch(search, multiple_of=1, most=256, first=8) == found
    assert machine.peak == 300 + 10 * found
    assert search.untried == (2 * found, "it might take more of this machine's memory than is safe")
    assert search.fitting == [size for size in (8, 16, 32, 64) if size <= found] and not search.too_large


def test_what_an_earlier_peak_may_hide_counts() -> None:
    """Up to 360 MiB were held before, so that nobody sees what batches of less take."""
    machine = Machine(mib_an_image=0.001, peak=360.0)
    search = BatchSearch(machine.try_batch, memory=machine.memory())
    assert largest_batch(search, multiple_of=1, most=256, first=8) == 256
    machine = Machine(mib_an_image=0.001, peak=800.0)
    search = BatchSearch(machine.try_batch, memory=machine.memory())
    assert largest_batch(search, multiple_of=1, most=256, first=8) == 8


def test_no_batch_is_begun_after_the_time_is_up() -> None:
    now = [0.0]
    tried: list[int] = []

    def trial(batch: int) -> bool:
        tried.append(batch)
        now[0] += 40.0
        return True

    search = BatchSearch(trial, seconds=100.0, clock=lambda: now[0])
    assert largest_batch(search, multiple_of=1, most=256, first=8) == 32
    assert tried == [8, 16, 32] and search.untried == (64, "the search has taken its 100 seconds")


def test_what_one_worker_cannot_do_none_does() -> None:
    """The other worker has no room for 32, and then no time for it."""
    asked: list[float] = []

    def gather(mine: NDArray) -> NDArray:
        asked.append(float(mine[0]))
        theirs = {2: 1.0, 4: 0.0}.get(len(asked), 1.0)
        return np.array([mine, [theirs]])

    search = BatchSearch(Fits(1000), gather=gather)
    assert largest_batch(search, multiple_of=1, most=256, first=16) == 16
    assert asked == [1.0] * 4, "whether to try 16, whether it fits, and the same of 32"
    assert search.fitting == [16] and search.too_large == [32] and search.untried is None
    asked.clear()

    def without_time(mine: NDArray) -> NDArray:
        asked.append(float(mine[0]))
        return np.array([mine, [0.0 if len(asked) == 3 else 1.0]])

    fits = Fits(1000)
    search = BatchSearch(fits, gather=without_time)
    assert largest_batch(search, multiple_of=1, most=256, first=16) == 16
    assert fits.asked == [16] and search.untried == (32, "another worker has no room or no time for it")
