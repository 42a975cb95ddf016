"""Two jobs never write the same run directory: who takes it, who is refused, and what a run does that has lost it."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from absl.testing import flagsaver

from trainer import run, task
from trainer.config import Config
from trainer.errors import EXIT_DONE, EXIT_USER, UserError
from trainer.lease import Lease
from trainer.lease_local import FILE_NAME
from trainer.run_dir import begin_writing, take_run_dir
from trainer.storage import RunDirectory
from trainer.training.resume import choose_start

JOBS = 16
LOSERS_LEAVE_WITHIN_SECONDS = 5.0


def take(environment: dict[str, str] | None = None, **fields: Any) -> Lease | None:
    return take_run_dir(Config.parse(fields), environment or {}, pytest.fail)


@pytest.mark.parametrize(("task_type", "index"), [("worker", 0), ("worker", 1), ("evaluator", 0)])
def test_of_several_workers_the_chief_takes_the_directory(task_type: str, index: int, tmp_path: Path) -> None:
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"], "evaluator": ["127.0.0.1:3"]}
    environment = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": task_type, "index": index}})}
    lease = take(environment, strategy="multi_worker", run_dir=str(tmp_path / "r"))
    is_chief = (task_type, index) == ("worker", 0)
    assert (lease is not None) == is_chief == (tmp_path / "r" / FILE_NAME).exists()
    if lease:
        lease.release()


def test_jobs_of_the_same_second_get_different_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moment = datetime.datetime(2026, 11, 22, 9, 30)
    suggest, together, suggested = Config.new_run_dir, threading.Barrier(JOBS), threading.local()

    def suggest_to_all_at_once(self: Config, moment: datetime.datetime) -> str:
        run_dir = suggest(self, moment)
        if not hasattr(suggested, "before"):
            suggested.before = True
            together.wait(10.0)
        return run_dir

    monkeypatch.setattr(Config, "new_run_dir", suggest_to_all_at_once)

    def start(_: int) -> Lease | None:
        return take_run_dir(Config(), {}, pytest.fail, moment)

    with ThreadPoolExecutor(JOBS) as executor:
        leases = list(executor.map(start, range(JOBS)))
    chosen = {lease.run_dir for lease in leases if lease}
    assert len(chosen) == JOBS and "runs/20261122-093000-digits-convnet-16" in chosen
    for lease in leases:
        assert lease is not None
        lease.release()
    assert not any(os.path.exists(run_dir) for run_dir in chosen), "nothing is left of a run that did not begin"


def test_a_directory_among_the_images_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run_dir in (str(tmp_path / "r"), ""):
        with pytest.raises(UserError, match=f"would lie among the images of folder {tmp_path}: give another folder"):
            take(data="folder:.", run_dir=run_dir)
    assert os.listdir(tmp_path) == []


def test_a_lease_in_a_bucket_is_no_foreign_content(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["lease"]
    monkeypatch.setattr(RunDirectory, "exists", lambda *_: False)
    monkeypatch.setattr(RunDirectory, "list", lambda *_: found)
    directory = RunDirectory("gs://bucket/r")
    assert choose_start(Config(), directory, "0" * 16).checkpoint is None
    found.append("thesis.tex")
    with pytest.raises(UserError, match=r"is not empty and not a run directory \(it holds thesis.tex\)"):
        choose_start(Config(), directory, "0" * 16)


class FakeLease:
    """A lease that is lost when the test says so."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.lost: str | None = None

    def confirm(self) -> None:
        self.check()

    def check(self) -> None:
        if self.lost:
            raise UserError(self.lost)


def test_leftovers_of_killed_runs_go_when_the_run_begins_and_not_if_it_is_anothers(tmp_path: Path) -> None:
    kept = [tmp_path / FILE_NAME, tmp_path / "config.json", tmp_path / "checkpoints" / "step-00000001"]
    leftovers = [tmp_path / ".status.json.tmp-0123abcd", tmp_path / ".export.old-0123abcd"]
    leftovers.append(tmp_path / "checkpoints" / ".step-00000002.tmp-0123abcd")
    (tmp_path / "checkpoints").mkdir()
    for path in kept + leftovers:
        path.touch()
    lease = FakeLease(str(tmp_path))
    lease.lost = "lost"
    with pytest.raises(UserError, match="lost"):
        begin_writing(cast(Lease, lease), RunDirectory(str(tmp_path)))
    assert all(path.exists() for path in kept + leftovers)
    lease.lost = None
    begin_writing(cast(Lease, lease), RunDirectory(str(tmp_path)))
    assert all(path.exists() for path in kept) and not any(path.exists() for path in leftovers)


TINY: dict[str, Any] = {"data": "synthetic:2", "image_size": 8, "epochs": 1, "batch_size": 448}


@pytest.mark.parametrize("lost_at", ["start", "test", "export"])
def test_a_run_that_has_lost_its_directory_writes_no_more(
    lost_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, leftover = FakeLease(str(tmp_path)), tmp_path / ".export.tmp-0123abcd"
    leftover.mkdir()
    published: list[str] = []

    def lose(*_: object) -> str:
        published.append("export")
        lease.lost = "taken over by another"
        return "export"

    def test_and_lose(self: run.Evaluator, *arguments: Any) -> Any:
        if lost_at == "test":
            lease.lost = "taken over by another"
        return evaluate(self, *arguments)

    evaluate = run.Evaluator.__call__
    monkeypatch.setattr(run.Evaluator, "__call__", test_and_lose)
    monkeypatch.setattr("trainer.export.publish.export_model", lose)
    if lost_at == "start":
        lease.lost = "taken over by another"
    with pytest.raises(UserError, match="taken over by another"):
        run.execute(Config(**TINY, run_dir="not this one"), quiet=True, lease=cast(Lease, lease))
    assert published == (["export"] if lost_at == "export" else [])
    assert leftover.exists() == (lost_at == "start")
    if lost_at == "start":
        assert os.listdir(tmp_path) == [leftover.name]
    else:
        assert json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["state"] == "running"


def test_a_job_holds_its_directory_while_it_runs_and_a_dry_run_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Lease | None] = []

    def execute(config: Config, *, lease: Lease | None, **_: object) -> int:
        seen.append(lease)
        assert (tmp_path / "r" / FILE_NAME).exists() == (lease is not None)
        return EXIT_DONE

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(task, "import_tensorflow_quietly", lambda **_: None)
    for flag in ("--nodry_run", "--dry_run"):
        with flagsaver.flagsaver():
            assert task.main(task.parse_flags(["task", flag, f"--run_dir={tmp_path}/r"])) == EXIT_DONE
    assert [lease and lease.run_dir for lease in seen] == [f"{tmp_path}/r", None]
    assert not (tmp_path / "r").exists()


@dataclass(frozen=True)
class Job:
    """How a job ended.

    Attributes:
      code: its exit code.
      seconds: from its start.
      processor_seconds: that it has used itself, whoever else used the machine meanwhile.
      errors: what it printed to standard error.
    """

    code: int
    seconds: float
    processor_seconds: float
    errors: str


def run_job(run_dir: Path) -> Job:
    arguments = ("--quiet", "--epochs=1", "--export=", "--noreport", f"--run_dir={run_dir}")
    with tempfile.TemporaryFile("w+") as errors:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "trainer.task", *arguments], stderr=errors)
        overdue = threading.Timer(100.0, process.kill)
        overdue.start()
        _, status, usage = os.wait4(process.pid, 0)
        overdue.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        errors.seek(0)
        return Job(process.returncode, seconds, usage.ru_utime + usage.ru_stime, errors.read())


def test_of_16_jobs_on_one_directory_one_trains_and_15_leave_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(JOBS) as executor:
        jobs = list(executor.map(run_job, [tmp_path / "r"] * JOBS))
    assert sorted(job.code for job in jobs) == [EXIT_DONE] + [EXIT_USER] * (JOBS - 1)
    winner = next(job for job in jobs if job.code == EXIT_DONE)
    losers = [job for job in jobs if job.code == EXIT_USER]
    assert winner.errors == ""
    for job in losers:
        assert job.errors.startswith(f"error: --run_dir={tmp_path}/r is held by process ")
        assert "Traceback" not in job.errors
        assert job.seconds < winner.seconds
    # On a machine that has nothing else to do they are gone by then; others that use it must not fail the test.
    assert sum(job.processor_seconds for job in losers) / (os.cpu_count() or 1) < LOSERS_LEAVE_WITHIN_SECONDS
    assert json.loads((tmp_path / "r" / "status.json").read_text(encoding="utf-8"))["state"] == "done"
    assert not (tmp_path / "r" / FILE_NAME).exists()
