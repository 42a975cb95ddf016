"""Checkpoints: every damaged byte is noticed, the one before is taken, and none is deleted too early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.storage import RunDirectory
from trainer.training.checkpoint import Best, Checkpoint, CheckpointStore, DamagedCheckpointError, Position
from trainer.training.checkpoint_file import DamagedFileError, decode, encode

TENSORS: dict[str, np.ndarray] = {
    "model/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "model/empty": np.zeros((0, 3), np.float32),
    "model/flag": np.array([True, False]),
    "model/half": tf.constant([1.5, -2.25], tf.bfloat16).numpy(),
    "optimizer/step": np.array(2**40 + 1),
}


def position(step: int, best: Best | None = None) -> Position:
    return Position(
        step=step,
        epoch=step // 10,
        sums={"loss": 0.1 + 0.2},
        counted=3,
        validation={"accuracy": 1 / 3},
        best=best,
        config_fingerprint="c",
        data_fingerprint="d",
    )


def checkpoint(step: int, best: Best | None = None) -> Checkpoint:
    return Checkpoint(position(step, best), {**TENSORS, "optimizer/step": np.array(step)})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path / "r"))


def damage(run: RunDirectory, step: int) -> None:
    path = Path(run.join("checkpoints", f"step-{step:08d}.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_file_gives_back_what_was_put_in_bit_for_bit() -> None:
    content = b"".join(encode(TENSORS, {"position": 'a "text" ü'}))
    tensors, metadata = decode(content)
    assert metadata == {"position": 'a "text" ü'}
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype and tensors[name].shape == value.shape
        assert tensors[name].tobytes() == value.tobytes()


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    content = b"".join(encode(TENSORS, {"position": "x"}))
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        with pytest.raises(DamagedFileError):
            decode(bytes(changed))
        with pytest.raises(DamagedFileError):
            decode(content[:place])
    with pytest.raises(DamagedFileError):
        decode(content + b"\0")


def signed(header: Any, data: bytes = bytes(16)) -> bytes:
    """A file whose digest is right, whatever its header claims."""
    from hashlib import sha256

    text = json.dumps(header).encode()
    digest = sha256(text + data).hexdigest().encode()
    return len(text).to_bytes(8, "little") + text.replace(b"0" * 64, digest) + data


@pytest.mark.parametrize(
    "place",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
        {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1], "data_offsets": [0, 4]},
        [],
        7,
    ],
)
def test_a_header_that_lies_is_refused_though_its_digest_is_right(place: object) -> None:
    good = {"__metadata__": {"sha256": "0" * 64}, "x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    assert decode(signed(good))[0]["x"].shape == (4,)
    with pytest.raises(DamagedFileError):
        decode(signed({**good, "x": place}))


@pytest.mark.parametrize("header", [[], {}, {"__metadata__": []}, {"__metadata__": {"sha256": 7}}, 1, "x"])
def test_a_header_of_another_kind_is_refused(header: object) -> None:
    with pytest.raises(DamagedFileError):
        decode(signed(header))


def test_a_position_comes_back_as_it_was(run: RunDirectory) -> None:
    store = CheckpointStore(run)
    saved = checkpoint(7, Best(7, 1, 1 / 3, 0.1))
    store.save(saved)
    assert store.load(7).position == saved.position


def test_the_newest_and_the_best_are_kept(run: RunDirectory) -> None:
    store = CheckpointStore(run, keep=2)
    best = Best(20, 2, 0.9, 0.1)
    for step in (10, 20, 30, 40, 50):
        store.save(checkpoint(step, best if step >= 20 else None))
    assert store.steps() == [20, 40, 50]


def test_nothing_is_deleted_before_the_new_one_was_read_back(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(run)
    store.save(checkpoint(10))
    write = RunDirectory.write_bytes

    def write_a_wrong_byte(self: RunDirectory, name: str, *parts: bytes, synced: bool) -> None:
        write(self, name, *parts[:-1], b"\xff" * len(parts[-1]))

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "write_bytes", write_a_wrong_byte)
        with pytest.raises(DamagedCheckpointError, match=r"step-00000020\.safetensors is not what was written there"):
            store.save(checkpoint(20))
    assert store.load(10).position.step == 10
    store.save(checkpoint(20))
    assert store.steps() == [20]


def test_a_damaged_newest_gives_way_to_the_one_before(run: RunDirectory) -> None:
    store = CheckpointStore(run, keep=3)
    for step in (10, 20, 30):
        store.save(checkpoint(step))
    said: list[str] = []
    newest = store.newest(said.append)
    assert newest and newest.position.step == 30 and not said
    damage(run, 30)
    newest = store.newest(said.append)
    assert newest and newest.position.step == 20
    assert len(said) == 1 and said[0].endswith(
        "step-00000030.safetensors is damaged (its bytes do not add up to their digest); going on from the one before."
    )
    store.save(checkpoint(25))
    assert store.steps() == [10, 20, 25], "the damaged one, and what a run does again, are gone"


def test_a_checkpoint_whose_best_is_lost_gives_way_too(run: RunDirectory) -> None:
    store = CheckpointStore(run, keep=3)
    best = Best(20, 2, 0.9, 0.1)
    store.save(checkpoint(10))
    store.save(checkpoint(20, best))
    store.save(checkpoint(30, best))
    damage(run, 20)
    said: list[str] = []
    newest = store.newest(said.append)
    assert newest and newest.position.step == 10 and len(said) == 2
    Path(run.join("checkpoints", "step-00000020.safetensors")).unlink()
    newest = store.newest(said.append)
    assert newest and newest.position.step == 10 and "names step 20 as the best, which is gone" in said[-1]


def test_where_all_are_damaged_nothing_is_begun_anew(run: RunDirectory) -> None:
    store = CheckpointStore(run, keep=2)
    assert store.newest(pytest.fail) is None
    for step in (10, 20):
        store.save(checkpoint(step))
        damage(run, step)
    with pytest.raises(DamagedCheckpointError, match=r"step-00000010.* and there is none before it: put back a copy"):
        store.newest(lambda _: None)


def test_checkpoints_that_come_fast_are_cleared_away_by_one_that_is_settled(run: RunDirectory) -> None:
    store = CheckpointStore(run)
    for step in (10, 20, 30):
        store.save(checkpoint(step), settled=step == 10)
    assert store.steps() == [10, 20, 30]
    newest = store.newest(pytest.fail)
    assert newest and newest.position.step == 30
    store.save(checkpoint(40))
    assert store.steps() == [40]
