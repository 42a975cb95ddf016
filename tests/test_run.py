"""Whole runs: what they leave behind, where they start again, and how they end."""

from __future__ import annotations

import contextlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import image_folders
import numpy as np
import pytest
from kill_workers import variables_of
from runs import status_of

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, UserError
from trainer.preparation import prepare
from trainer.records.console import Console
from trainer.storage import RunDirectory
from trainer.training.actions import SaveCheckpoint
from trainer.training.checkpoint import CheckpointStore
from trainer.training.loop import Boundary

pytestmark = pytest.mark.strategies

TINY: dict[str, Any] = {
    "data": "synthetic:3",
    "classes": ("class_000", "class_001"),
    "image_size": 8,
    "epochs": 2,
    "batch_size": 64,
}


def interrupt_after_first_save(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Ends the next run right after its first checkpoint, as a kill would."""
    save = SaveCheckpoint.__call__

    def save_and_stop(self: SaveCheckpoint, boundary: Boundary) -> None:
        save(self, boundary)
        if boundary.epoch_ended:
            raise error

    monkeypatch.setattr(SaveCheckpoint, "__call__", save_and_stop)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs tell the console that they wait for, in order: titles, and of work how far it is."""
    told: list[str] = []

    def waiting(self: Console, title: str, what: str) -> AbstractContextManager[None]:
        told.append(title)
        return contextlib.nullcontext()

    monkeypatch.setattr(Console, "waiting", waiting)
    monkeypatch.setattr(Console, "work", lambda self, title, done, total: told.append(f"{title} {done}/{total}"))
    return told


def test_a_run_leaves_the_files_and_numbers_that_it_promises(tmp_path: Path, no_export: None, waits: list[str]) -> None:
    assert run.execute(Config(**TINY, run_dir=str(tmp_path / "r")), quiet=True) == EXIT_DONE
    status = status_of(tmp_path / "r")
    assert status["state"] == "done"
    assert status["step"] == status["steps_total"] == status["best"]["step"]
    assert status["epoch"] == 2
    assert set(status["seconds"]) == {
        "startup",
        "features",
        "compile",
        "input_wait",
        "train",
        "evaluate",
        "checkpoint",
        "export",
        "total",
    }
    source = prepare(Config(**TINY), connect(Config(**TINY)), Console(quiet=True))
    assert status["test"]["examples"] == len(source.splits.test)
    validated, tested = len(source.splits.validation), len(source.splits.test)
    begins = [waits.index(f"validation 0/{validated}"), waits.index(f"test 0/{tested}")]
    assert (waits[:2], waits[-1]) == (["model", "compile"], "export")
    assert waits.count(f"validation {validated}/{validated}") == 2 and begins == sorted(begins)
    assert status["test"]["accuracy"] > 0.9
    assert Config.from_json((tmp_path / "r" / "config.json").read_text(encoding="utf-8")).batch_size == 64
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, status["step"] + 1))
    assert [line["epoch"] for line in lines if line["split"] == "validation"] == [1, 2]
    for split in ("train", "validation"):
        assert list((tmp_path / "r" / "tensorboard" / split).glob("events.*"))


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), RuntimeError("[ORIGINAL UnavailableError REPLACED BY KeyboardInterrupt]")],
    ids=["alone", "while TensorFlow raised another error"],
)
def test_ctrl_c_leaves_a_run_that_can_be_started_again(
    tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    interrupt_after_first_save(monkeypatch, error)
    assert run.execute(Config(**TINY, run_dir=str(tmp_path / "r")), quiet=True) == EXIT_PREEMPTED
    assert status_of(tmp_path / "r")["state"] == "preempted"


def test_resumed_run_ends_like_an_undisturbed_one_bit_for_bit(
    tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(**(TINY | {"dropout": 0.3, "schedule": "cosine", "augment": ("flip",)}))
    with monkeypatch.context() as patched:
        interrupt_after_first_save(patched, KeyboardInterrupt())
        cut = config.model_copy(update={"run_dir": str(tmp_path / "cut")})
        assert run.execute(cut, quiet=True) == EXIT_PREEMPTED
    assert status_of(tmp_path / "cut")["state"] == "preempted"
    assert run.execute(cut, quiet=True) == EXIT_DONE
    run.execute(config.model_copy(update={"run_dir": str(tmp_path / "whole")}), quiet=True)
    cut_weights, whole_weights = variables_of(tmp_path / "cut"), variables_of(tmp_path / "whole")
    assert cut_weights.keys() == whole_weights.keys()
    for name, value in whole_weights.items():
        np.testing.assert_array_equal(cut_weights[name], value, err_msg=name)
    read = (Path.read_text(tmp_path / name / "metrics.jsonl", encoding="utf-8") for name in ("cut", "whole"))
    assert next(read) == next(read)


def test_a_finished_run_is_left_alone(tmp_path: Path, no_export: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(**TINY, run_dir=str(tmp_path / "r"))
    run.execute(config, quiet=True)
    before = (tmp_path / "r" / "status.json").read_text(encoding="utf-8")
    assert run.execute(config) == EXIT_DONE
    assert "is done" in capsys.readouterr().out
    assert (tmp_path / "r" / "status.json").read_text(encoding="utf-8") == before
    with pytest.raises(UserError, match="holds another run: --seed is 1 here and 0 there"):
        run.execute(config.model_copy(update={"seed": 1}), quiet=True)
    with pytest.raises(UserError, match="holds a run; give another"):
        run.execute(config.model_copy(update={"resume": "never"}), quiet=True)


def test_another_run_can_be_continued_for_more_epochs(tmp_path: Path, no_export: None) -> None:
    first = Config(**TINY, schedule="constant", run_dir=str(tmp_path / "first"))
    run.execute(first, quiet=True)
    more = first.model_copy(update={"run_dir": str(tmp_path / "more"), "resume": first.run_dir})
    with pytest.raises(UserError, match="give more --epochs"):
        run.execute(more, quiet=True)
    longer = more.model_copy(update={"epochs": 3, "run_dir": str(tmp_path / "longer")})
    assert run.execute(longer, quiet=True) == EXIT_DONE
    run.execute(first.model_copy(update={"epochs": 3, "run_dir": str(tmp_path / "whole")}), quiet=True)
    for name, value in variables_of(tmp_path / "whole").items():
        np.testing.assert_array_equal(variables_of(tmp_path / "longer")[name], value, err_msg=name)
    with pytest.raises(UserError, match="has no checkpoint"):
        run.execute(longer.model_copy(update={"run_dir": str(tmp_path / "x"), "resume": str(tmp_path)}), quiet=True)


def test_another_run_can_be_continued_with_longer_epochs(tmp_path: Path, no_export: None) -> None:
    first = Config(**(TINY | {"batch_size": 256, "epochs": 6}), run_dir=str(tmp_path / "first"))
    run.execute(first, quiet=True)
    longer = Config(**(TINY | {"batch_size": 32, "epochs": 2}), run_dir=str(tmp_path / "r"), resume=first.run_dir)
    assert run.execute(longer, quiet=True) == EXIT_DONE
    steps_before, status = status_of(tmp_path / "first")["step"], status_of(tmp_path / "r")
    assert (status["attempts"][0]["from_step"], status["epoch"]) == (steps_before, 2)
    assert status["step"] == status["steps_total"] > steps_before


def test_images_that_changed_since_are_noticed(
    tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = image_folders.write_classes(tmp_path / "photos", {"cat": 8, "dog": 8})
    config = Config(data=f"folder:{photos}", epochs=2, batch_size=8, image_size=8, run_dir=str(tmp_path / "r"))
    with monkeypatch.context() as patched:
        interrupt_after_first_save(patched, KeyboardInterrupt())
        run.execute(config, quiet=True)
    image_folders.write_classes(tmp_path / "photos", {"cat": 9, "dog": 8})
    with pytest.raises(UserError, match="not those that the run"):
        run.execute(config, quiet=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, no_export: None
) -> None:
    config = Config(
        **(TINY | {"optimizer": "sgd", "learning_rate": 900.0, "weight_decay": 0.9, "epochs": 3}),
        run_dir=str(tmp_path / "r"),
    )
    with pytest.raises(UserError, match=r"The loss became (nan|inf) at step \d+; .*--learning_rate"):
        run.execute(config, quiet=True)
    status = status_of(tmp_path / "r")
    assert status["state"] == "failed"
    assert "The loss became" in status["error"]
    store = CheckpointStore(RunDirectory(config.run_dir))
    for step in store.steps():
        assert all(np.isfinite(tensor).all() for tensor in store.load(step).tensors.values())


def test_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(**TINY, strategy="mirrored", virtual_devices=2, run_dir=str(tmp_path / "r"))
    assert run.execute(config, dry_run=True) == EXIT_DONE
    out = capsys.readouterr().out
    assert '"batch_size": 64' in out
    assert "2 virtual CPU replicas" in out
    assert "32 a replica" in out
    assert "parameters" in out
    assert not (tmp_path / "r").exists()


def test_a_folder_that_is_no_run_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"not a run directory \(it holds thesis.tex\)"):
        run.execute(Config(**TINY, run_dir=str(tmp_path)), quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_batch_larger_than_the_training_images_still_runs_every_epoch_once(tmp_path: Path, no_export: None) -> None:
    few = TINY | {"examples_per_class": 5, "batch_size": 64, "epochs": 20}
    assert run.execute(Config(**few, run_dir=str(tmp_path / "r")), quiet=True) == EXIT_DONE
    status = status_of(tmp_path / "r")
    assert (status["step"], status["epoch"]) == (4, 20)  # 20 epochs of 10 images in batches of 64


def test_no_validation_and_no_test_images(tmp_path: Path, no_export: None) -> None:
    config = Config(**(TINY | {"splits": (100, 0, 0), "epochs": 1}), run_dir=str(tmp_path / "r"))
    assert run.execute(config, quiet=True) == EXIT_DONE
    status = status_of(tmp_path / "r")
    assert (status["best"], status["test"], status["validation"]) == (None, None, {})


def test_a_truncated_photo_is_named_or_skipped(tmp_path: Path, no_export: None) -> None:
    photos = image_folders.write_classes(tmp_path / "photos", {"cat": 8, "wild dög": 8})
    victim = sorted((photos / "wild dög").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-40])
    config = Config(data=f"folder:{photos}", epochs=1, batch_size=8, image_size=8, run_dir=str(tmp_path / "r"))
    with pytest.raises(UserError, match=f"{victim.name} cannot be used"):
        run.execute(config, quiet=True)
    assert status_of(tmp_path / "r")["state"] == "failed"
    skipping = config.model_copy(update={"on_bad_image": "skip", "run_dir": str(tmp_path / "s")})
    assert run.execute(skipping, quiet=True) == EXIT_DONE
    skipped = status_of(tmp_path / "s")["skipped_images"]
    assert [image["key"] for image in skipped] == [f"wild dög/{victim.name}"]


def test_the_export_can_be_left_out_and_added_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "r"
    config = Config(**TINY, run_dir=str(run_dir))
    without = Config(**TINY, run_dir=str(run_dir), export=())
    assert run.execute(without) == EXIT_DONE
    assert "export   left out, as --export= says" in capsys.readouterr().out
    status = status_of(run_dir)
    assert status["state"] == "done" and status["export"] is None and status["test"]["examples"] > 0
    assert status["seconds"]["export"] == 0 and not (run_dir / "export").exists()
    assert run.execute(without) == EXIT_DONE
    assert capsys.readouterr().out.startswith(f"{run_dir} is done")
    checkpoints = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert run.execute(config, quiet=True) == EXIT_DONE
    assert status_of(run_dir)["export"] == str(run_dir / "export")
    assert (run_dir / "export" / "saved_model.pb").is_file()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == checkpoints
    assert status_of(run_dir)["test"] == status["test"]
