"""metrics.jsonl and TensorBoard's event files, new and resumed."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.records.writers import JsonLinesWriter, TensorBoardWriter, open_writers
from trainer.storage import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path / "run ü"))


def lines(run: RunDirectory) -> list[dict[str, object]]:
    return [json.loads(line) for line in run.read_text("metrics.jsonl").splitlines()]


def steps(first: int, last: int) -> np.ndarray:
    return np.arange(first, last + 1, dtype=np.int64)


def losses(first: int, last: int, offset: float = 0.0) -> dict[str, np.ndarray]:
    return {"loss": (steps(first, last) + offset).astype(np.float32)}


def curve(run: RunDirectory, split: str, tag: str) -> list[tuple[int, float]]:
    """The points as TensorBoard itself loads and purges them."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    loaded = EventAccumulator(run.join("tensorboard", split)).Reload()
    return [(event.step, tf.make_ndarray(event.tensor_proto).item()) for event in loaded.Tensors(tag)]


class TestJsonLines:
    def test_one_object_a_line(self, run: RunDirectory) -> None:
        writer = JsonLinesWriter(run, resumed_step=0)
        values = {"loss": np.array([0.1, 0.25], np.float32), '50% "ü"': np.array([1, 2], np.float32)}
        writer.write_steps("train", steps(1, 2), epoch=0, values=values)
        writer.write("validation", 2, epoch=1, values={"accuracy": 0.75})
        writer.pending()()
        found = lines(run)
        assert [list(line) for line in found[:2]] == [["split", "step", "epoch", "loss", '50% "ü"']] * 2
        assert np.float32(found[0]["loss"]) == np.float32(0.1)  # type: ignore[arg-type]
        assert found[1] == {"split": "train", "step": 2, "epoch": 0, "loss": 0.25, '50% "ü"': 2}
        assert found[2] == {"split": "validation", "step": 2, "epoch": 1, "accuracy": 0.75}

    def test_every_float32_comes_back_exactly(self, run: RunDirectory) -> None:
        bits = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
        floats = bits.view(np.float32)
        writer = JsonLinesWriter(run, resumed_step=0)
        writer.write_steps("train", steps(1, 2000), epoch=0, values={"loss": floats})
        writer.pending()()
        found = np.array([np.nan if line["loss"] is None else line["loss"] for line in lines(run)], np.float32)
        finite = np.isfinite(floats)
        assert np.array_equal(found[finite], floats[finite])
        assert np.isnan(found[~finite]).all() and (~finite).any()

    def test_nothing_is_written_before_flush_and_all_of_it_once(self, run: RunDirectory) -> None:
        writer = JsonLinesWriter(run, resumed_step=0)
        writer.write("train", 1, epoch=0, values={"loss": 1.0})
        assert not run.exists("metrics.jsonl")
        for _ in range(2):
            writer.pending()()
        assert len(lines(run)) == 1

    def test_resume_drops_later_lines_and_a_line_that_was_cut_off(self, run: RunDirectory) -> None:
        writer = JsonLinesWriter(run, resumed_step=0)
        writer.write_steps("train", steps(1, 5), epoch=0, values=losses(1, 5))
        writer.write("validation", 3, epoch=1, values={"accuracy": 0.5})
        writer.pending()()
        run.append_text("metrics.jsonl", '{"split": "train", "step": 2, "lo')
        resumed = JsonLinesWriter(run, resumed_step=3)
        resumed.write_steps("train", steps(4, 5), epoch=1, values=losses(4, 5, offset=0.5))
        resumed.pending()()
        assert [(line["split"], line["step"]) for line in lines(run)] == [
            ("train", 1),
            ("train", 2),
            ("train", 3),
            ("validation", 3),
            ("train", 4),
            ("train", 5),
        ]
        assert lines(run)[-1]["loss"] == 5.5

    def test_lines_that_could_not_be_written_are_written_once_by_the_next_flush(
        self, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = JsonLinesWriter(run, resumed_step=0)
        writer.write("train", 1, epoch=0, values={"loss": 1.0})
        with monkeypatch.context() as patch, pytest.raises(OSError, match="fault"):
            patch.setattr(RunDirectory, "append_text", lambda *_: (_ for _ in ()).throw(OSError("fault")))
            writer.pending()()
        writer.pending()()
        assert len(lines(run)) == 1

    def test_a_thousand_steps_take_less_than_a_hundredth_of_a_second(self, run: RunDirectory) -> None:
        values = {name: np.linspace(0, 1, 1000, dtype=np.float32) for name in ("loss", "accuracy", "learning_rate")}

        def seconds() -> float:
            with open_writers(run, resumed_step=0) as writer:
                writer.write_steps("train", steps(1, 1000), epoch=0, values=values)
                start = time.process_time()
                writer.write_steps("train", steps(1001, 2000), epoch=0, values=values)
                writer.pending()()
                return time.process_time() - start

        assert min(seconds() for _ in range(5)) < 0.01


class TestTensorBoard:
    def test_a_curve_has_the_mean_of_the_steps_at_the_last_one(self, run: RunDirectory) -> None:
        writer = TensorBoardWriter(run, resumed_step=0)
        writer.write_steps("train", steps(1, 4), epoch=0, values=losses(1, 4))
        writer.write_steps("train", steps(5, 6), epoch=0, values=losses(5, 6))
        writer.write("validation", 6, epoch=1, values={"loss": 0.5, "accuracy": 0.25})
        writer.close()
        assert run.list("tensorboard") == ["train", "validation"]
        assert curve(run, "train", "loss") == [(4, 2.5), (6, 5.5)]
        assert curve(run, "validation", "accuracy") == [(6, 0.25)]

    def test_flush_makes_points_visible_while_the_run_goes_on(self, run: RunDirectory) -> None:
        writer = TensorBoardWriter(run, resumed_step=0)
        writer.write("train", 1, epoch=0, values={"loss": 1.0})
        writer.pending()()
        assert curve(run, "train", "loss") == [(1, 1.0)]
        writer.close()

    def test_resumed_curves_do_not_double(self, run: RunDirectory) -> None:
        for resumed_step, offset in ((0, 0.0), (6, 0.25), (4, 0.5)):
            writer = TensorBoardWriter(run, resumed_step)
            for step in range(resumed_step + 1, 9):
                writer.write("train", step, epoch=0, values={"loss": step + offset})
            writer.close()
        expected = [(step, step + (0.0 if step <= 4 else 0.5)) for step in range(1, 9)]
        assert curve(run, "train", "loss") == expected

    def test_points_of_the_killed_run_go_before_there_are_new_ones(self, run: RunDirectory) -> None:
        with open_writers(run, resumed_step=0) as writer:
            for step in range(1, 4):
                writer.write("validation", step, epoch=0, values={"accuracy": 0.5})
        with open_writers(run, resumed_step=2):
            pass
        assert [step for step, _ in curve(run, "validation", "accuracy")] == [1, 2]


def test_what_was_written_is_there_whatever_ends_the_run(run: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt), open_writers(run, resumed_step=0) as writer:
        writer.write("train", 1, epoch=0, values={"loss": 1.5})
        raise KeyboardInterrupt
    assert lines(run)[0]["loss"] == 1.5
    assert curve(run, "train", "loss") == [(1, 1.5)]
