"""The search for the largest batch: right, with few trials."""

from __future__ import annotations

import pytest

from trainer.preflight.search import Largest, largest_fitting


class Device:
    """Holds so many batches; notes what was tried."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.tried: list[int] = []

    def __call__(self, batch: int) -> bool:
        self.tried.append(batch)
        return batch <= self.most


@pytest.mark.parametrize("most", [0, 7, 8, 9, 63, 64, 500, 511, 512, 1000, 1016, 1023])
@pytest.mark.parametrize("needed", [None, 1024, 2500, 10**9])
def test_the_largest_is_found_and_the_next_does_not_fit(most: int, needed: int | None) -> None:
    device = Device(most)
    found = largest_fitting(device, unit=8, refused=1024, needed=needed, allowed=1000)
    assert found == Largest(most // 8 * 8, most // 8 * 8 + 8, 8)
    assert found.exact
    assert len(device.tried) == len(set(device.tried)) <= 15
    assert all(batch % 8 == 0 and 0 < batch < 1024 for batch in device.tried)


def test_where_memory_grows_in_steps_few_trials_are_enough() -> None:
    device = Device(195_584)
    found = largest_fitting(device, unit=8, refused=262_144, needed=2113, allowed=1575)
    assert found == Largest(195_584, 195_592, 8)
    assert len(device.tried) <= 10


def test_powers_of_two_come_first_where_nothing_is_known() -> None:
    device = Device(100)
    largest_fitting(device, unit=1, refused=1000, needed=None, allowed=1)
    assert device.tried[0] == 512


def test_a_search_that_runs_out_of_time_says_what_it_knows() -> None:
    device = Device(100)
    found = largest_fitting(
        device, unit=1, refused=1024, needed=None, allowed=1, has_time=lambda: len(device.tried) < 4
    )
    assert not found.exact
    assert found.batch <= 100 < found.refused
    assert len(device.tried) == 4


def test_where_only_the_smallest_is_left_nothing_is_tried() -> None:
    device = Device(0)
    assert largest_fitting(device, unit=8, refused=8, needed=None, allowed=1) == Largest(0, 8, 8)
    assert not device.tried
