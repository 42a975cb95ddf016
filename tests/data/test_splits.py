from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from trainer.config import Config
from trainer.data.sources import open_source
from trainer.data.splits import Splits, limit_per_class, split_examples, unit_hashes
from trainer.errors import UserError


def split_one_class(keys: Sequence[str], percentages: tuple[int, int, int] = (75, 15, 10)) -> Splits:
    return split_examples(keys, np.zeros(len(keys), np.int32), ["roses"], percentages)


def membership(keys: Sequence[str], splits: Splits) -> dict[str, str]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {keys[index]: name for name, indices in parts.items() for index in indices}


KEYS = [f"roses/{number}.jpg" for number in range(4000)]


def test_every_example_is_in_exactly_one_split_in_about_the_right_share() -> None:
    splits = split_one_class(KEYS)
    together = np.concatenate([splits.train, splits.validation, splits.test])
    assert together.dtype == np.int64 and (np.sort(together) == np.arange(len(KEYS))).all()
    for part, share in ((splits.train, 0.75), (splits.validation, 0.15), (splits.test, 0.10)):
        assert (np.diff(part) > 0).all()
        assert abs(len(part) / len(KEYS) - share) < 0.02


def test_hashes_stay_what_they_are() -> None:
    # Other values would move the images of every run there is between its splits.
    assert unit_hashes(["roses/1.jpg", "Blüte/ü.png"]).tolist() == pytest.approx(
        [0.6500642274466778, 0.27652919543423804], abs=1e-15
    )


def test_an_image_never_moves_when_files_are_added_or_removed() -> None:
    before = membership(KEYS[:2000], split_one_class(KEYS[:2000]))
    after = membership(KEYS, split_one_class(KEYS))
    fewer = membership(KEYS[1::2], split_one_class(KEYS[1::2]))
    assert all(after[key] == split for key, split in before.items())
    assert all(after[key] == split for key, split in fewer.items())


def test_unicode_forms_of_a_key_are_one_key() -> None:
    composed = [f"Blüte/é{number}.jpg" for number in range(50)]
    decomposed = [unicodedata.normalize("NFD", key) for key in composed]
    assert composed != decomposed
    assert (unit_hashes(composed) == unit_hashes(decomposed)).all()


def test_larger_test_split_keeps_what_it_had() -> None:
    small, large = split_one_class(KEYS, (80, 10, 10)), split_one_class(KEYS, (60, 20, 20))
    assert set(small.test) < set(large.test) and set(large.train) < set(small.train)


@pytest.mark.parametrize("percentages", [(75, 15, 10), (90, 10, 0), (98, 1, 1), (50, 0, 50), (100, 0, 0), (1, 1, 98)])
def test_every_class_is_in_every_split_that_is_wanted(percentages: tuple[int, int, int]) -> None:
    wanted = sum(percent > 0 for percent in percentages)
    class_names = [f"class {number}" for number in range(60)]
    labels = np.concatenate([np.full(wanted + number % 4, number) for number in range(60)]).astype(np.int32)
    keys = [f"{class_names[label]}/{index}.png" for index, label in enumerate(labels)]
    splits = split_examples(keys, labels, class_names, percentages)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == len(labels)
    for part, percent in zip((splits.train, splits.validation, splits.test), percentages):
        assert np.unique(labels[part]).size == (60 if percent else 0)


def test_the_nearest_image_is_borrowed_from_a_split_that_can_spare_it() -> None:
    hashes = unit_hashes(KEYS)

    def first_between(begin: float, end: float) -> str:
        return KEYS[int(np.flatnonzero((begin <= hashes) & (hashes < end))[0])]

    # Test is [0, 0.1), validation [0.1, 0.25). The only image of validation is nearest to test, but must stay.
    keys = [first_between(0.1, 0.15), first_between(0.3, 0.35), first_between(0.8, 0.9)]
    assert list(membership(keys, split_one_class(keys)).items()) == [
        (keys[2], "train"),
        (keys[0], "validation"),
        (keys[1], "test"),
    ]


def test_no_more_is_borrowed_than_needed() -> None:
    borrowed_sometimes = 0
    for start in range(0, 2000, 5):
        keys = KEYS[start : start + 5]
        own = ["test" if u < 0.1 else "validation" if u < 0.25 else "train" for u in unit_hashes(keys)]
        given = membership(keys, split_one_class(keys))
        borrowed = sum(given[key] != split for key, split in zip(keys, own))
        assert borrowed == 3 - len(set(own))
        borrowed_sometimes += borrowed > 0
    assert borrowed_sometimes > 100


@pytest.mark.parametrize(
    ("percentages", "sentence"),
    [
        ((75, 15, 10), "Class tulips has 1 image, .*75,15,10 needs at least 3, one each for training, validation and"),
        ((90, 0, 10), "needs at least 2, one each for training and test"),
    ],
)
def test_a_class_that_is_too_small_is_named(percentages: tuple[int, int, int], sentence: str) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, 2], np.int32)
    with pytest.raises(UserError, match=sentence):
        split_examples([str(index) for index in range(7)], labels, ["roses", "tulips", "daisy"], percentages)


def test_flower_photos_split_has_the_sizes_of_the_tutorials(flower_photos: Path) -> None:
    source = open_source(Config(data=f"folder:{flower_photos}"))
    splits = split_examples(source.keys, source.labels, source.class_names, (75, 15, 10))
    assert np.bincount(source.labels).tolist() == [633, 898, 641, 699, 799]
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [2753, 550, 367]
    for part, share in ((splits.train, 0.75), (splits.validation, 0.15), (splits.test, 0.10)):
        assert np.abs(np.bincount(source.labels[part]) / np.bincount(source.labels) - share).max() < 0.04


def test_a_hundred_thousand_keys_take_well_under_a_second() -> None:
    keys = [f"class/{number}.jpg" for number in range(100_000)]
    begin = time.process_time()
    split_one_class(keys)
    assert time.process_time() - begin < 1


def test_few_shot_subset_is_drawn_from_each_class_and_nested() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [40, 30, 3])
    indices = np.arange(1, 73)
    five, ten = (limit_per_class(indices, labels, count, seed=7) for count in (5, 10))
    assert np.bincount(labels[five]).tolist() == [5, 5, 3] and np.bincount(labels[ten]).tolist() == [10, 10, 3]
    assert five.dtype == np.int64 and (np.diff(five) > 0).all() and set(five) < set(ten) <= set(indices)
    assert (five == limit_per_class(indices[::-1], labels, 5, seed=7)).all()
    assert set(five) != set(limit_per_class(indices, labels, 5, seed=8))
    assert (limit_per_class(indices, labels, 0, seed=7) == indices).all()


def test_few_shot_draws_are_even() -> None:
    labels = np.zeros(10, np.int32)
    draws = np.concatenate([limit_per_class(np.arange(10), labels, 3, seed) for seed in range(400)])
    assert np.bincount(draws, minlength=10).min() > 80 and np.bincount(draws).max() < 160
