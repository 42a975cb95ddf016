from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from image_folders import gradient, write_classes
from numpy.typing import NDArray

from trainer.config import Config
from trainer.data.file_source import FileSource
from trainer.data.images import ImageInput, decode, to_size
from trainer.data.order import Share, first_step_of_epoch, training_steps
from trainer.data.pipeline import evaluation_batches, training_batches
from trainer.data.source import ArraySource, Source
from trainer.data.sources import open_source

Rows = dict[str, np.ndarray]

ONE_REPLICA = Share(global_batch=8, replicas=1, first_replica=0, local_replicas=1)
SHARDINGS = {
    "1x8": [ONE_REPLICA],
    "2x4": [Share(8, 2, 0, 2)],
    "4x2": [Share(8, 4, 0, 4)],
    "2 inputs of 2x2": [Share(8, 4, 0, 2), Share(8, 4, 2, 2)],
    "2 inputs of 1 and 3": [Share(8, 4, 0, 1), Share(8, 4, 1, 3)],
}
INDICES = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31])


def array_source(examples: int = 40, size: int = 6) -> ArraySource:
    pixels = np.stack([gradient(size, size, shift=7 * index) for index in range(examples)])
    return ArraySource(
        name="test",
        class_names=("a", "b", "c"),
        labels=np.arange(examples, dtype=np.int32) % 3,
        keys=[f"{index:04d}" for index in range(examples)],
        native_size=size,
        pixels=pixels,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class CountingSource(Source):
    """Images made of their index; remembers which were read."""

    read: list[int] = field(default_factory=list)

    def reader(self, indices: NDArray[np.int64]) -> Callable[[tf.Tensor], tf.Tensor]:
        def note(place: tf.Tensor) -> np.ndarray:
            index = int(indices[int(place)])
            self.read.append(index)
            return np.full((4, 4, 3), index, np.uint8)

        def reader(place: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.py_function(note, [place], tf.uint8), [4, 4, 3])

        return reader

    def encoded(self, index: int) -> bytes:
        raise NotImplementedError

    def _content(self) -> bytes:
        return b""


def counting_source(examples: int = 40) -> CountingSource:
    labels = np.arange(examples, dtype=np.int32) % 3
    return CountingSource(name="counting", class_names=("a", "b", "c"), labels=labels, keys=[str(k) for k in labels])


def squashed(size: int) -> ImageInput:
    return ImageInput(size, "squash")


def global_batches(shares: list[Share], dataset: Callable[[Share], tf.data.Dataset]) -> list[Rows]:
    """Puts the global batches together again from what the replicas of all input pipelines get."""
    pipelines = []
    for share in shares:
        batches = list(dataset(share).as_numpy_iterator())
        assert all(len(batch["index"]) == share.replica_batch for batch in batches)
        assert len(batches) % share.local_replicas == 0
        pipelines.append(
            [batches[at : at + share.local_replicas] for at in range(0, len(batches), share.local_replicas)]
        )
    return [
        {name: np.concatenate([batch[name] for replicas in step for batch in replicas]) for name in step[0][0]}
        for step in zip(*pipelines, strict=True)
    ]


def trained(
    source: Source,
    steps: tuple[int, int],
    shares: list[Share] | None = None,
    indices: NDArray[np.int64] = INDICES,
    size: int = 6,
    **fields: object,
) -> list[Rows]:
    config = Config(**fields)  # type: ignore[arg-type]
    shares = shares or [ONE_REPLICA]
    return global_batches(
        shares, lambda share: training_batches(source, indices, config, squashed(size), share, *steps)
    )


def assert_equal(some: list[Rows], others: list[Rows]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def stream(batches: list[Rows]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


def test_a_batch_is_what_it_says() -> None:
    source = array_source()
    (batch,) = trained(source, (3, 4), size=9)
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (8, 9, 9, 3)
    assert batch["label"].dtype == batch["index"].dtype == np.int32
    for image, label, index in zip(batch["image"], batch["label"], batch["index"]):
        assert label == source.labels[index]
        assert (image == to_size(tf.constant(source.pixels[index]), 9).numpy()).all()


@pytest.mark.parametrize("augmentation", ["", "flip,crop,color"])
def test_shapes_are_static(augmentation: str) -> None:
    config = Config(augment=augmentation)  # type: ignore[arg-type]
    dataset = training_batches(array_source(), INDICES, config, squashed(9), Share(8, 2, 0, 2), 0, 5)
    for spec in (
        dataset.element_spec,
        evaluation_batches(counting_source(), INDICES, squashed(9), Share(8, 2, 0, 2)).element_spec,
    ):
        assert spec["image"].shape.as_list() == [4, 9, 9, 3]
        assert spec["label"].shape.as_list() == spec["index"].shape.as_list() == [4]


@pytest.mark.parametrize("name", list(SHARDINGS)[1:])
@pytest.mark.parametrize("augmentation", ["", "flip,crop"])
def test_every_sharding_gives_the_same_global_batches(name: str, augmentation: str) -> None:
    source = array_source()
    expected = trained(source, (0, 6), augment=augmentation)
    assert_equal(trained(source, (0, 6), SHARDINGS[name], augment=augmentation), expected)


def test_each_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    epochs = np.reshape(stream(trained(array_source(), (0, 11 * 30))), [-1, 11])
    assert len(epochs) == 240
    assert (np.sort(epochs, axis=1) == INDICES).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    # Every example comes first about equally often: 240 / 11 is 22.
    assert min(np.sum(epochs[:, 0] == index) for index in INDICES) > 8


def test_order_repeats_neither_after_256_epochs_nor_after_256_seeds() -> None:
    # The shuffle of TensorFlow takes only the low 8 bits of a seed where there are few examples.
    first = stream(trained(array_source(), (0, 11)))
    assert stream(trained(array_source(), (256 * 11 // 8, 256 * 11 // 8 + 11))) != first
    seeds = {tuple(stream(trained(array_source(), (0, 11), seed=seed))) for seed in (0, 1, 256, 512, 65536, 2**31 - 1)}
    assert len(seeds) == 6 and tuple(first) in seeds


def test_order_stays_what_it_is() -> None:
    # A run that is resumed by a later version must see the batches that it would have seen.
    assert stream(trained(array_source(), (0, 2), seed=3)) == [29, 23, 7, 17, 2, 5, 3, 31, 11, 19, 13, 31, 3, 19, 5, 23]


@pytest.mark.parametrize("augmentation", ["", "crop"])
def test_seeking_equals_skipping(augmentation: str) -> None:
    source = array_source()
    everything = trained(source, (0, 12), augment=augmentation)
    for step in (1, 5, 11):
        assert_equal(trained(source, (step, 12), augment=augmentation), everything[step:])
    assert trained(source, (12, 12)) == []


def test_seeking_reads_nothing_that_is_skipped() -> None:
    source = counting_source()
    batches = trained(source, (1000, 1003))
    assert sorted(source.read) == sorted(stream(batches)) and len(source.read) == 24
    assert [int(image[0, 0, 0]) for batch in batches for image in batch["image"]] == stream(batches)


def test_an_input_pipeline_reads_only_its_share() -> None:
    source = counting_source()
    share = Share(8, 4, 2, 1)
    batches = list(training_batches(source, INDICES, Config(), squashed(6), share, 0, 5).as_numpy_iterator())
    assert sorted(source.read) == sorted(stream(batches)) and len(source.read) == 10


def test_augmentation_is_drawn_anew_each_epoch_and_for_each_seed() -> None:
    source = array_source()

    def images_of_one_example(seed: int) -> list[bytes]:
        batches = trained(source, (0, 22), augment="color", seed=seed)
        pairs = [(i, image) for batch in batches for i, image in zip(batch["index"], batch["image"])]
        return [image.tobytes() for index, image in pairs if index == 13]

    images = images_of_one_example(0)
    assert len(images) == len(set(images)) == 16
    assert images_of_one_example(1) != images


def test_few_examples_may_pass_several_times_in_one_batch() -> None:
    (batch,) = trained(array_source(), (2, 3), indices=INDICES[:3])
    assert np.bincount(batch["index"])[INDICES[:3]].tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert stream(trained(array_source(), (0, 1), indices=INDICES[:1])) == [2] * 8
    with pytest.raises(ValueError, match="no examples"):
        trained(array_source(), (0, 1), indices=INDICES[:0])


@pytest.mark.parametrize("name", list(SHARDINGS))
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("count", [0, 1, 8, 11])
def test_evaluation_gives_every_example_once_and_pads(name: str, in_memory: bool, count: int) -> None:
    source: Source = array_source() if in_memory else counting_source()
    shares = SHARDINGS[name]
    batches = global_batches(shares, lambda share: evaluation_batches(source, INDICES[:count], squashed(6), share))
    assert len(batches) == -(-count // 8)
    padded = len(batches) * 8 - count
    assert stream(batches) == INDICES[:count].tolist() + [-1] * padded
    for batch in batches:
        real = batch["index"] >= 0
        assert (batch["label"][real] == source.labels[batch["index"][real]]).all()
        assert (batch["label"][~real] == 0).all() and (batch["image"][~real] == 0).all()
        for index, image in zip(batch["index"][real], batch["image"][real]):
            pixels = source.pixels[index] if isinstance(source, ArraySource) else np.full((6, 6, 3), index)
            assert (image == pixels).all()
    if isinstance(source, CountingSource):
        assert sorted(source.read) == INDICES[:count].tolist()


def test_files_come_out_as_decoded_and_resized(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 5, "tulips": 4})
    source = open_source(Config(data=f"folder:{tmp_path}"))
    assert isinstance(source, FileSource)
    indices = np.array([1, 2, 4, 6, 8])
    batches = trained(source, (0, 4), SHARDINGS["2x4"], indices=indices, size=7)
    evaluated = global_batches([ONE_REPLICA], lambda share: evaluation_batches(source, indices, squashed(7), share))
    assert set(stream(batches)) == set(indices.tolist())
    for batch in (*batches, *evaluated):
        for index, label, image in zip(batch["index"], batch["label"], batch["image"]):
            if index >= 0:
                expected = to_size(decode(tf.io.read_file(source.paths[index])), 7)
                assert (image == expected.numpy()).all() and label == source.labels[index]


def test_a_bad_file_stops_the_stream(tmp_path: Path) -> None:
    write_classes(tmp_path, {"roses": 4, "tulips": 4})
    source = open_source(Config(data=f"folder:{tmp_path}"))
    (tmp_path / "roses/002.png").write_bytes(b"damaged")
    with pytest.raises(tf.errors.InvalidArgumentError):
        trained(source, (0, 2), indices=np.arange(8))
    (tmp_path / "roses/002.png").unlink()
    with pytest.raises(tf.errors.NotFoundError, match="002.png"):
        trained(source, (0, 2), indices=np.arange(8))


def test_batches_reach_the_replicas_of_a_strategy_in_order() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    source = array_source()
    distributed = strategy.distribute_datasets_from_function(
        lambda context: training_batches(source, INDICES, Config(), squashed(6), Share(8, 2, 0, 2), 0, 5)
    )
    rows = [
        np.concatenate([replica.numpy() for replica in strategy.experimental_local_results(batch["index"])])
        for batch in distributed
    ]
    assert np.concatenate(rows).tolist() == stream(trained(source, (0, 5)))


def test_steps_and_epochs() -> None:
    assert training_steps(2753, 32, 6) == -(-2753 * 6 // 32) == 517
    assert training_steps(64, 32, 3) == 6 and training_steps(3, 8, 1) == 1
    assert [first_step_of_epoch(epoch, 11, 8) for epoch in range(5)] == [0, 2, 3, 5, 6]
    for examples, batch in ((11, 8), (8, 8), (3, 8), (100, 7)):
        for epoch in range(20):
            step = first_step_of_epoch(epoch, examples, batch)
            assert step * batch // examples >= epoch  # Its first row lies in the epoch or later,
            assert step == 0 or (step - 1) * batch // examples < epoch  # and that of the step before does not.


@pytest.mark.parametrize("share", [(10, 4, 0, 4), (8, 4, 2, 3), (8, 4, -1, 2), (8, 4, 0, 0)])
def test_impossible_shares_are_refused(share: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        Share(*share)


def test_no_iterator_waits_for_the_model_of_the_pipeline() -> None:
    source, indices = array_source(), np.arange(40)
    for dataset in (
        training_batches(source, indices, Config(augment=("flip",)), squashed(6), ONE_REPLICA, 0, 3),
        evaluation_batches(source, indices, squashed(6), ONE_REPLICA),
    ):
        assert dataset.options().autotune.enabled is False
