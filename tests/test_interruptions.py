"""Runs that stop in the middle: what they save, what they say, and that they end as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from kill_workers import differences, variables_of
from runs import status_of

from trainer import run
from trainer.config import Config
from trainer.config_values import parse_fault
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.records.background import BackgroundWriter
from trainer.records.goodput import Stopwatch
from trainer.stop_request import StopRequest
from trainer.storage import RunDirectory
from trainer.training.actions import Due, Records, SaveCheckpoint, StopOnNonFinite
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.faults import InjectFaults
from trainer.training.loop import Boundary, Progress, TrainLoop
from trainer.training.state import weights

pytestmark = pytest.mark.strategies

TINY: dict[str, Any] = {
    "data": "synthetic:3",
    "image_size": 8,
    "examples_per_class": 256,
    "epochs": 3,
    "batch_size": 32,
    "dropout": 0.3,
    "ema_decay": 0.9,
    "optimizer": "momentum",
    "augment": ("flip",),
    "export": (),
}
"""24 steps an epoch. Resuming adam bit for bit has its test in test_run.py; momentum is traced faster."""


class StopAt:
    """Asks for a stop once so many steps are done."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.request = StopRequest(within_seconds=3600.0)
        step_of: dict[str, int] = {"done": 0}
        run_loop = TrainLoop.run

        def run_and_watch(loop: TrainLoop, progress: Any, stops: Any, steps: int, actions: Any, outlook: Any) -> bool:
            def look(boundary: Boundary) -> None:
                step_of["done"] = boundary.progress.step
                if boundary.progress.step >= step:
                    self.request.ask("told to")

            return run_loop(loop, progress, stops, steps, [look, *actions], outlook)

        monkeypatch.setattr(TrainLoop, "run", run_and_watch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "r"
    assert run.execute(Config(**TINY, run_dir=str(run_dir)), quiet=True) == EXIT_DONE
    return run_dir


def assert_same_end(run_dir: Path, expected: Path) -> None:
    assert differences(variables_of(expected), variables_of(run_dir)) == []
    assert (run_dir / "metrics.jsonl").read_text("utf-8") == (expected / "metrics.jsonl").read_text("utf-8")
    for field in ("state", "step", "epoch", "train", "validation", "test", "best"):
        assert status_of(run_dir)[field] == status_of(expected)[field], field


@pytest.mark.parametrize(("step", "steps_per_loop"), [(1, 1), (16, 7), (60, 3), (71, 1)])
def test_a_run_that_was_asked_to_stop_goes_on_in_the_middle_of_an_epoch(
    step: int, steps_per_loop: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"), steps_per_loop=steps_per_loop)
    with monkeypatch.context() as patched:
        stop = StopAt(step, patched)
        assert run.execute(config, quiet=True, stop=stop.request) == EXIT_PREEMPTED
    status = status_of(tmp_path / "r")
    saved = CheckpointStore(RunDirectory(config.run_dir)).steps()[-1]
    assert (status["state"], status["error"], status["step"]) == ("preempted", "told to", saved)
    assert saved == {1: 2, 16: 24, 60: 63, 71: 72}[step], "at the next boundary, wherever in the epoch it is"
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert_same_end(tmp_path / "r", undisturbed)


def crash_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the next run at a boundary after so many steps, which saves nothing there."""
    note = StopOnNonFinite.__call__

    def crash(self: StopOnNonFinite, boundary: Boundary) -> None:
        note(self, boundary)
        if boundary.progress.step >= step:
            raise MemoryError("crashed")

    monkeypatch.setattr(StopOnNonFinite, "__call__", crash)


def test_checkpoints_every_so_many_steps(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"), steps_per_loop=4, checkpoint_steps=10, keep_checkpoints=3)
    saved: list[int] = []
    save = CheckpointStore.save

    def note_and_save(store: CheckpointStore, checkpoint: Checkpoint, *, settled: bool = True) -> None:
        saved.append(checkpoint.position.step)
        save(store, checkpoint, settled=settled)

    with monkeypatch.context() as patched:
        crash_after(44, patched)
        patched.setattr(CheckpointStore, "save", note_and_save)
        with pytest.raises(MemoryError):
            run.execute(config, quiet=True)
    assert set(saved) <= {10, 20, 24, 30, 40} and {24, saved[-1]} <= set(saved), "one may wait for the one before"
    assert status_of(tmp_path / "r")["state"] == "failed"
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert_same_end(tmp_path / "r", undisturbed)
    first, second = status_of(tmp_path / "r")["attempts"]
    assert (first["from_step"], first["to_step"], second["from_step"], second["to_step"]) == (0, 40, saved[-1], 72)
    share = (40 - saved[-1]) / 40
    assert first["lost_seconds"] == pytest.approx(first["seconds"]["train"] * share)
    goodput = status_of(tmp_path / "r")["goodput"]
    assert goodput["starts"] == 2 and goodput["lost"] == first["lost_seconds"]
    assert goodput["total"] == pytest.approx(first["seconds"]["total"] + second["seconds"]["total"])
    assert 0 < goodput["share"] < 1


def test_a_checkpoint_once_so_many_minutes_have_passed(tmp_path: Path) -> None:
    """The loop's clock jumps by 40 seconds a step: the checkpoints come every second step."""
    saved = SaveTimes()
    for step in range(1, 8):
        saved.at(step, seconds=40.0 * step)
    assert saved.steps == [2, 4, 6]


class SaveTimes:
    """When `SaveCheckpoint` with a minute between checkpoints saves."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        state = SimpleNamespace(snapshot=dict, frozen_fingerprint="")
        store = SimpleNamespace(save=lambda new, settled: self.steps.append(new.position.step))
        self.background = BackgroundWriter()
        writer = SimpleNamespace(pending=lambda: lambda: None)
        records = Records(cast(Any, store), cast(Any, writer), self.background)
        self.save = SaveCheckpoint(records, cast(Any, state), Due(0, 1.0), ("", ""), None, Stopwatch())

    def at(self, step: int, seconds: float) -> None:
        values = {"loss": np.zeros(1), "accuracy": np.zeros(1)}
        progress = Progress(step, 0)
        self.save(Boundary(progress, 1, np.array([step]), values, 40.0, False, False, False, now=seconds))
        self.background.wait_for("checkpoint")


def test_minutes_that_are_over_stop_the_run(undisturbed: Path, tmp_path: Path) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"), steps_per_loop=4)
    ticks = iter(range(100_000))
    stop = StopRequest(max_minutes=0.1, clock=lambda: float(next(ticks)))  # Six looks at the clock.
    assert run.execute(config, quiet=True, stop=stop) == EXIT_PREEMPTED
    status = status_of(tmp_path / "r")
    assert status["error"] == "--max_minutes=0.1 are over" and 0 < status["step"] < 72
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert_same_end(tmp_path / "r", undisturbed)


def test_a_damaged_newest_checkpoint_costs_time_and_nothing_else(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"), steps_per_loop=4, checkpoint_steps=10, keep_checkpoints=5)
    with monkeypatch.context() as patched:
        crash_after(44, patched)
        with pytest.raises(MemoryError):
            run.execute(config, quiet=True)
    newest = sorted((tmp_path / "r" / "checkpoints").iterdir())[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert f"warning: The checkpoint {newest} is damaged" in capsys.readouterr().err
    assert_same_end(tmp_path / "r", undisturbed)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    """The loss of a step is that of the weights before its update: the last update shows in the weights alone."""
    config = Config(**(TINY | {"epochs": 1}), run_dir=str(tmp_path / "r"), inject=("nan@24",))
    with pytest.raises(UserError, match=r"no longer finite after step 24; there is no checkpoint yet\. Lower --learn"):
        run.execute(config, quiet=True)
    assert not (tmp_path / "r" / "checkpoints").exists()
    assert status_of(tmp_path / "r")["state"] == "failed"


def test_an_injected_nan_stops_the_run_at_the_next_step_and_the_next_start_goes_through(
    undisturbed: Path, tmp_path: Path
) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"), inject=("nan@30",))
    with pytest.raises(UserError, match=r"The loss became nan at step 31; the checkpoint of step 24 is kept"):
        run.execute(config, quiet=True)
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert_same_end(tmp_path / "r", undisturbed)


@pytest.mark.parametrize("kind", ["preempt", "kill", "slow_worker"])
def test_faults_happen_at_their_step_on_the_last_worker(kind: str) -> None:
    happened: list[object] = []

    def injected(worker: int) -> InjectFaults:
        cluster = SimpleNamespace(worker_index=worker, workers=2)
        fault = parse_fault(f"{kind}@7" + (":1.5" if kind == "slow_worker" else ""))
        return InjectFaults(
            [fault], cast(Any, cluster), cast(Any, None), signal_self=happened.append, sleep=happened.append
        )

    values = {"loss": np.zeros(1), "accuracy": np.zeros(1)}
    for step in (6, 7, 8):
        for worker in (0, 1):
            boundary = Boundary(Progress(step, 0), 1, np.array([step]), values, 1.0, False, False, False)
            injected(worker)(boundary)
    assert happened == [{"preempt": signal.SIGTERM, "kill": signal.SIGKILL, "slow_worker": 1.5}[kind]]
    assert injected(1).steps == [7]


def test_several_faults_at_one_step_all_happen_in_their_order() -> None:
    happened: list[object] = []
    cluster = cast(Any, SimpleNamespace(worker_index=0, workers=1))
    faults = [parse_fault(text) for text in ("slow_worker@7:1.5", "preempt@7", "slow_worker@9:2.5")]
    inject = InjectFaults(faults, cluster, cast(Any, None), signal_self=happened.append, sleep=happened.append)
    values = {"loss": np.zeros(1), "accuracy": np.zeros(1)}
    for step in (7, 8, 9):
        inject(Boundary(Progress(step, 0), 1, np.array([step]), values, 1.0, False, False, False))
    assert happened == [1.5, signal.SIGTERM, 2.5]
    assert inject.steps == [7, 9]


def test_init_from_takes_what_fits_and_says_what_does_not(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = TINY | {"data": "synthetic:2", "epochs": 1, "learning_rate": 1e-12, "ema_decay": 0.0}
    config = Config(**other, run_dir=str(tmp_path / "r"), init_from=str(undisturbed))
    assert run.execute(config) == EXIT_DONE
    said = " ".join(capsys.readouterr().out.split())
    assert "head/bias (3 there, 2 here)" in said
    best = CheckpointStore(RunDirectory(str(undisturbed))).load(status_of(undisturbed)["best"]["step"])
    found = variables_of(tmp_path / "r")
    matched = [name for name in weights(best) if "head" not in name]
    assert f"{len(matched)} variables of" in said and len(matched) > 5
    for name in matched:
        np.testing.assert_allclose(found[f"model/{name}"], weights(best)[name], rtol=0, atol=1e-8, err_msg=name)
    with pytest.raises(UserError, match=f"--init_from={tmp_path} has no checkpoint"):
        run.execute(config.model_copy(update={"init_from": str(tmp_path), "run_dir": str(tmp_path / "s")}), quiet=True)


def test_another_number_of_replicas_goes_on_to_the_same_end(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Config(**TINY, run_dir=str(tmp_path / "r"), steps_per_loop=7)
    with monkeypatch.context() as patched:
        stop = StopAt(10, patched)
        assert run.execute(one, quiet=True, stop=stop.request) == EXIT_PREEMPTED
    two = one.model_copy(update={"strategy": "mirrored", "virtual_devices": 2})
    assert run.execute(two, quiet=True) == EXIT_DONE
    found, expected = variables_of(tmp_path / "r"), variables_of(undisturbed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)
    assert differences(expected, found), "it is not the bits that are the same here"
