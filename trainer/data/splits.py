"""Which examples train, validate and test: a pure function of each example's key.

An example's key is hashed to a number u in [0, 1). With percentages 75,15,10 the test split takes u below 0.10,
validation what follows up to 0.25, training the rest. So an image never moves when other images come or go, and the
same files give the same split on every machine.

There is one exception. Every class must be in every split, and in a small class the hash may leave a split empty;
then the image whose u is nearest to that split's interval is borrowed from another split of its class, one that
keeps an image. Only borrowed images may move later, when the class grows: back to where their hash puts them, or out
of it because they have become the ones to borrow.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.names import Names
from trainer.errors import UserError
from trainer.wording import counted

# Any salt gives an equally random split. This one is the first of "split-0", "split-1", … whose 75,15,10 split of
# TensorFlow's flower_photos has exactly the sizes of the Hub tutorials' split (550 validation, 367 test, 2753 left
# to train), so that accuracies stand on as many images. Only the sizes were looked at, no accuracy; the images in
# each split are not the tutorials'. Changing it moves images between the splits of every run there is.
_SALT = "split-3217:"

_TRAIN, _VALIDATION, _TEST = range(3)


@dataclass(frozen=True)
class Splits:
    """Indices into a source, int64 and sorted; every example is in exactly one of them."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_examples(
    keys: Sequence[str],
    labels: NDArray[np.int32],
    class_names: Sequence[str],
    percentages: tuple[int, int, int],
    noun: str = "image",
) -> Splits:
    """Assigns every example to a split, by its key alone.

    Args:
      keys: [n]; examples with the same key go to the same split, unless one of them is borrowed.
      labels: int32 [n], positions in `class_names`.
      class_names: what to call the classes in an error.
      percentages: training, validation, test; they add up to 100. A split of 0 percent stays empty; of every other
        one each class has at least one example.
      noun: what to call an example in an error.

    Raises:
      UserError: a class has fewer examples than there are splits to fill.
    """
    train, validation, test = percentages
    if train + validation + test != 100 or min(percentages) < 0:
        raise ValueError(f"percentages must be three that add up to 100, not {percentages}")
    _check_class_sizes(labels, class_names, percentages, noun)
    position = unit_hashes(keys)
    test_end, validation_end = test / 100, (test + validation) / 100
    split = np.where(position < test_end, _TEST, np.where(position < validation_end, _VALIDATION, _TRAIN))
    intervals = {_TEST: (0.0, test_end), _VALIDATION: (test_end, validation_end), _TRAIN: (validation_end, 1.0)}
    wanted = {number: interval for number, interval in intervals.items() if percentages[number]}
    _fill_empty_splits(split, position, labels, len(class_names), wanted)
    return Splits(*(np.flatnonzero(split == number) for number in (_TRAIN, _VALIDATION, _TEST)))


def unit_hashes(keys: Sequence[str]) -> NDArray[np.float64]:
    """A number in [0, 1) for each key, evenly spread; float64 [n]. Unicode forms of one key get the same."""
    salted = hashlib.sha256(_SALT.encode())

    def first_bytes(key: bytes) -> bytes:
        digest = salted.copy()
        digest.update(key)
        return digest.digest()[:8]

    hashed = b"".join(b"".join(map(first_bytes, block)) for block in _normalised_blocks(keys))
    words = np.frombuffer(hashed, ">u8")
    # 53 bits are what a float64 holds: with more, the largest would round up to 1.
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normalised_blocks(keys: Sequence[str]) -> Iterator[list[bytes]]:
    """The keys' NFC forms in UTF-8, some ten thousand at a time."""
    # A NUL combines with nothing, so the keys of a block do not mix.
    for block in Names.of(keys).blocks():
        yield (block if block.isascii() else unicodedata.normalize("NFC", block.decode()).encode()).split(b"\0")


def limit_per_class(
    indices: NDArray[np.int64], labels: NDArray[np.int32], per_class: int, seed: int
) -> NDArray[np.int64]:
    """Draws at most `per_class` examples of each class: a few-shot subset.

    With one seed a smaller subset is part of every larger one.

    Args:
      indices: int64 [m], the examples to draw from.
      labels: int32 [n], of all examples of the source.
      per_class: how many; 0 keeps all.
      seed: another seed draws others.

    Returns:
      int64, sorted.
    """
    if not per_class:
        return np.sort(indices)
    shuffled = np.random.default_rng(seed).permutation(np.sort(indices))
    by_class = np.argsort(labels[shuffled], kind="stable")
    classes = labels[shuffled][by_class]
    rank_in_class = np.arange(len(classes)) - np.searchsorted(classes, classes)
    return np.sort(shuffled[by_class[rank_in_class < per_class]])


def _check_class_sizes(
    labels: NDArray[np.int32], class_names: Sequence[str], percentages: tuple[int, int, int], noun: str
) -> None:
    names = [name for name, percent in zip(("training", "validation", "test"), percentages) if percent]
    counts = np.bincount(labels, minlength=len(class_names))
    if (counts >= len(names)).all():
        return
    smallest = int(np.argmin(counts))
    raise UserError(
        f"Class {class_names[smallest]} has {counted(int(counts[smallest]), noun)}, and "
        f"--splits={','.join(map(str, percentages))} needs at least {len(names)}, one each for "
        f"{' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}: add {noun}s, or leave the class out with "
        "--classes."
    )


def _fill_empty_splits(
    split: NDArray[np.int64],
    position: NDArray[np.float64],
    labels: NDArray[np.int32],
    classes: int,
    intervals: dict[int, tuple[float, float]],
) -> None:
    """Moves one example of its class into each split that has none, in place."""
    counts = np.bincount(labels * np.int64(3) + split, minlength=3 * classes).reshape(classes, 3)
    for number, (begin, end) in intervals.items():
        for label in np.flatnonzero(counts[:, number] == 0):
            of_class = np.flatnonzero(labels == label)
            lenders = of_class[counts[label, split[of_class]] > 1]
            distance = np.maximum(begin - position[lenders], position[lenders] - end)
            borrowed = lenders[np.argmin(distance)]
            counts[label, split[borrowed]] -= 1
            counts[label, number] += 1
            split[borrowed] = number
