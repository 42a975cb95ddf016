"""What a real run leaves for its page, and the page that it makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, serving, tensorflow_environment
from made_runs import made_run

from trainer.config import Config
from trainer.config_flags import command_line
from trainer.errors import EXIT_DONE, UserError
from trainer.records.examples import SHOWN, read_examples
from trainer.records.facts import Facts
from trainer.records.predictions import Predictions
from trainer.report.run_record import RunRecord
from trainer.report.write import write_report
from trainer.run import execute
from trainer.storage import RunDirectory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with all of it, made once."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    config = Config(epochs=2, batch_size=64, hidden_units=(24,), export=(), run_dir=str(folder))
    assert execute(config, quiet=True) == EXIT_DONE
    return RunDirectory(str(folder))


def test_predictions_facts_and_status_say_the_same(run: RunDirectory) -> None:
    status, facts = json.loads(run.read_text("status.json")), Facts.read(run)
    test, validation = Predictions.read(run, "test"), Predictions.read(run, "validation")
    assert facts and test and validation
    assert test.right.mean() == pytest.approx(status["test"]["accuracy"], abs=1e-12)
    assert test.losses.mean() == pytest.approx(status["test"]["loss"], rel=1e-6)
    assert validation.right.mean() == pytest.approx(status["validation"]["accuracy"], abs=1e-12)
    assert sum(facts.examples["test"]) == len(test) and sum(facts.examples["train"]) == 1344
    assert [test.labels.count(name) for name in facts.class_names] == facts.examples["test"]
    hidden = 1024 * 24 + 24 + 24 * 10 + 10
    backbone = 66_890 - (1024 * 10 + 10)
    assert facts.parameters == facts.trained_parameters == backbone + hidden


def test_the_pictures_are_those_of_the_predictions(run: RunDirectory) -> None:
    test, examples = Predictions.read(run, "test"), read_examples(run)
    assert test and len(examples) == SHOWN
    said = {key: (label, prediction) for key, label, prediction in zip(test.keys, test.labels, test.predictions)}
    assert all(said[each.key] == (each.label, each.prediction) for each in examples)
    wrong = [each.confidence for each in examples if not each.right]
    assert len(wrong) == min(24, int((~test.right).sum())) and wrong == sorted(wrong, reverse=True)
    assert all(each.content.startswith(b"\x89PNG") for each in examples)  # Eight pixels would be blurred by JPEG.


def test_a_split_that_is_not_there_is_replaced_by_validation(tmp_path: Path) -> None:
    config = Config(epochs=1, batch_size=64, splits=(80, 20, 0), export=(), run_dir=str(tmp_path / "run"))
    assert execute(config, quiet=True) == EXIT_DONE
    record = RunRecord.read(RunDirectory(str(tmp_path / "run")))
    assert record.test_predictions is None and record.validation_predictions and record.examples
    page = Path(write_report(RunDirectory(record.path), RunDirectory(record.path), "")).read_text()
    assert "Confusion matrix of the validation split" in page and "best accuracy on" in page


@pytest.mark.report
def test_the_end_of_a_run_makes_the_page_and_says_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(epochs=1, batch_size=448, export=(), run_dir=str(tmp_path / "run"))
    assert execute(config) == EXIT_DONE
    page = tmp_path / "run/report/index.html"
    assert f"report   {page}" in capsys.readouterr().out
    text = page.read_text()
    assert command_line(config).replace("'", "&#39;") in text and "Content-Security-Policy" in text
    again = Config(epochs=1, batch_size=448, export=(), report=False, run_dir=str(tmp_path / "other"))
    assert execute(again, quiet=True) == EXIT_DONE
    assert not (tmp_path / "other/report/index.html").exists()


def test_the_command_repeats_the_settings() -> None:
    config = Config(data="folder:my photos", train_backbone=True, export=(), splits=(80, 10, 10), run_dir="x")
    command = command_line(config)
    assert "'--data=folder:my photos'" in command and "--train_backbone" in command and "--splits=80,10,10" in command
    assert "run_dir" not in command and "epochs" not in command


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("status.json", "[]", "status.json is damaged"),
        ("status.json", "{", "status.json is damaged"),
        ("metrics.jsonl", '{"split": "train"}\n', "metrics.jsonl is damaged"),
        ("metrics.jsonl", "nonsense\n", "metrics.jsonl is damaged"),
    ],
)
def test_a_damaged_run_directory_is_named(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    run = RunDirectory(str(tmp_path))
    with pytest.raises(UserError, match="is no run directory"):
        RunRecord.read(run)
    run.write_text("config.json", Config().to_json())
    run.write_text("status.json", "{}")
    assert RunRecord.read(run).state == "running"
    run.write_text(name, text)
    with pytest.raises(UserError, match=sentence):
        RunRecord.read(run)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    run.write_text("config.json", Config().to_json())
    run.write_text("status.json", "{}")
    line = '{"split": "train", "step": 1, "epoch": 1, "loss": null, "accuracy": 0.5, "learning_rate": 0.1}\n'
    run.write_text("metrics.jsonl", line + line[:20])
    assert RunRecord.read(run).train.steps.tolist() == [1]


def _report(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.report", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60)


def test_the_program_makes_the_page_of_a_run_on_a_bucket(tmp_path: Path) -> None:
    made_run(tmp_path / "run", ["cat", "dog"], interrupted=True)
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as server:
        bucket = server.bucket("runs")
        for file in (path for path in (tmp_path / "run").rglob("*") if path.is_file()):
            bucket.put(f"made/{file.relative_to(tmp_path)}", file.read_bytes())
        done = _report("gs://runs/made/run", **tensorflow_environment(server, authority))
    assert (done.returncode, done.stdout) == (0, "gs://runs/made/run/report/index.html\n"), done.stderr
    page = bucket.contents["made/run/report/index.html"].decode()
    assert "stands at step 150 of 300: SIGTERM came" in page and "interrupted" in page
    assert {"loss-per-step.png", "time.png"} <= {name.rsplit("/", 1)[-1] for name in bucket.contents}


def test_the_program_writes_elsewhere_and_says_what_is_wrong(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", ["cat", "dog"])
    done = _report(run.path, f"--output={tmp_path}/elsewhere")
    assert done.stdout == f"{tmp_path}/elsewhere/report/index.html\n", done.stderr
    assert not run.exists("report", "index.html")
    for arguments, sentence in [
        ([], "0 run directories were given"),
        ([run.path, run.path], "2 run directories were given"),
        ([str(tmp_path)], "is no run directory"),
        ([run.path, "--outptu=x"], "Did you mean: output?"),
    ]:
        failed = _report(*arguments)
        assert failed.returncode == 2 and sentence in failed.stderr and "Traceback" not in failed.stderr
