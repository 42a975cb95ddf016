"""Where a run on Vertex AI leaves everything, and that it is found there again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.vertex_replicas import replicas_of
from runs import run_task, status_of

from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.vertex_output import output_directory, with_vertex_output
from trainer.worker_differences import config_differences

CHECKPOINTS, MODEL, CURVES = "AIP_CHECKPOINT_DIR", "AIP_MODEL_DIR", "AIP_TENSORBOARD_LOG_DIR"
VARIABLES = (CHECKPOINTS, MODEL, CURVES)

TINY = ("--data=synthetic:2", "--image_size=8", "--epochs=1", "--batch_size=448")


def vertex_environment(base: str) -> dict[str, str]:
    """As Vertex AI makes it of a job's baseOutputDirectory."""
    return {MODEL: f"{base}/model/", CHECKPOINTS: f"{base}/checkpoints/", CURVES: f"{base}/logs/"}


@pytest.fixture
def on_vertex(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives this process the variables of a job of one worker."""

    def enter(base: Path) -> None:
        pool = {"replicaCount": "1", "containerSpec": {"command": ["python"]}}
        spec = {"workerPoolSpecs": [pool], "baseOutputDirectory": {"outputUriPrefix": str(base)}}
        (replica,) = replicas_of("projects/p/locations/r/customJobs/1", spec, {})
        for name, value in replica.environment.items():
            monkeypatch.setenv(name, value)

    return enter


@pytest.mark.parametrize(
    ("environment", "base"),
    [
        (vertex_environment("gs://bucket/runs/1"), "gs://bucket/runs/1"),
        (vertex_environment("gs://bucket/tuning/7"), "gs://bucket/tuning/7"),
        (vertex_environment("gs://bucket"), "gs://bucket"),
        (vertex_environment("/mnt/run"), "/mnt/run"),
        ({CHECKPOINTS: "gs://bucket/1/checkpoints"}, "gs://bucket/1"),
        ({MODEL: "gs://bucket/1/model//"}, "gs://bucket/1"),
        ({CURVES: "gs://bucket/1/logs/", MODEL: ""}, "gs://bucket/1"),
        (dict.fromkeys(VARIABLES, ""), ""),
        ({}, ""),
    ],
)
def test_the_run_directory_is_what_all_lie_in(environment: dict[str, str], base: str) -> None:
    assert output_directory(environment) == base
    config = with_vertex_output(Config(epochs=3), environment)
    assert config == Config(epochs=3, run_dir=base, run_dir_layout="vertex" if base else "plain")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {MODEL: "gs://bucket/1/saved/"},
            "AIP_MODEL_DIR=gs://bucket/1/saved/: must be FOLDER/model/, as Vertex AI sets it, or give --run_dir.",
        ),
        ({CHECKPOINTS: "gs://checkpoints/"}, "AIP_CHECKPOINT_DIR=gs://checkpoints/: must be FOLDER/checkpoints/, as "),
        ({CURVES: "/logs"}, "AIP_TENSORBOARD_LOG_DIR=/logs: must be FOLDER/logs/"),
        ({MODEL: "s3://bucket/1/model"}, "AIP_MODEL_DIR=s3://bucket/1: must be a local folder or gs://BUCKET/FOLDER"),
        ({MODEL: "gs://bucket/[1]/model"}, r"has one of * ? [ ] \ in it"),
        ({MODEL: "https://me:secret@host/model"}, "AIP_MODEL_DIR holds an address with a user name or password"),
        (
            {**vertex_environment("gs://bucket/1"), MODEL: "gs://other/1/model/"},
            "AIP_CHECKPOINT_DIR=gs://bucket/1/checkpoints/ and AIP_MODEL_DIR=gs://other/1/model/ lie in different "
            "folders, and a run has one: give it as --run_dir.",
        ),
    ],
)
def test_what_vertex_does_not_set_is_one_sentence_unless_a_run_dir_is_given(
    environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError) as raised:
        with_vertex_output(Config(), environment)
    assert sentence in str(raised.value) and "secret" not in str(raised.value)
    given = Config(run_dir="gs://bucket/mine")
    assert with_vertex_output(given, environment) is given


def test_a_worker_that_vertex_tells_nothing_is_named() -> None:
    chief = with_vertex_output(Config(), vertex_environment("gs://bucket/1"))
    worker = Config(run_dir=chief.run_dir)
    assert config_differences(chief.model_dump(), worker.model_dump(), "worker 1") == [
        "--run_dir_layout is plain on worker 1 and vertex on the chief"
    ]


@pytest.mark.usefixtures("no_export")
def test_a_run_leaves_everything_where_vertex_looks_for_it_and_finds_it_there(
    tmp_path: Path,
    on_vertex: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = tmp_path / "base"
    on_vertex(base)
    assert run_task(*TINY, "--export=") == EXIT_DONE
    assert sorted(path.name for path in base.iterdir() if not path.name.startswith(".")) == [
        *("checkpoints", "config.json", "logs", "metrics.jsonl", "report", "status.json")
    ]
    assert list((base / "logs" / "train").glob("events.*")) and list((base / "checkpoints").glob("step-*.safetensors"))
    capsys.readouterr()
    for name in VARIABLES:  # Somebody goes on elsewhere.
        monkeypatch.delenv(name)
    assert run_task(*TINY, f"--run_dir={base}") == EXIT_DONE
    assert (base / "model").is_dir() and not (base / "export").exists() and not (base / "tensorboard").exists()
    assert status_of(base)["export"] == str(base / "model")
    assert json.loads((base / "config.json").read_text(encoding="utf-8"))["run_dir_layout"] == "vertex"
    assert run_task(*TINY, f"--run_dir={base}") == EXIT_DONE
    assert f"{base} is done" in capsys.readouterr().out


def test_a_dry_run_shows_it_and_writes_nothing(
    tmp_path: Path, on_vertex: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    on_vertex(tmp_path / "base")
    assert run_task(*TINY, "--dry_run") == EXIT_DONE
    shown = capsys.readouterr().out
    assert f'"run_dir": "{tmp_path}/base"' in shown and '"run_dir_layout": "vertex"' in shown
    assert not (tmp_path / "base").exists()


@pytest.mark.usefixtures("no_export")
def test_a_run_that_began_with_other_names_keeps_them_and_says_so(
    tmp_path: Path, on_vertex: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_task(*TINY, "--export=", f"--run_dir={tmp_path}") == EXIT_DONE
    assert capsys.readouterr().err == ""
    on_vertex(tmp_path)
    assert run_task(*TINY) == EXIT_DONE
    assert capsys.readouterr().err == (
        f"warning: The run in {tmp_path} keeps the --run_dir_layout=plain that it began with, not vertex: only in a "
        "new directory Vertex AI would find its model and its curves.\n"
    )
    assert status_of(tmp_path)["export"] == str(tmp_path / "export") and not (tmp_path / "model").exists()


def test_a_sweep_lies_there_too(
    tmp_path: Path, on_vertex: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []

    def run_sweep(points: object, sweep_dir: str, *_: object, **__: object) -> int:
        folders.append(sweep_dir)
        return EXIT_DONE

    monkeypatch.setattr("trainer.sweep_run.run_sweep", run_sweep)
    on_vertex(tmp_path)
    assert run_task("--sweep=seed=1,2") == EXIT_DONE
    assert run_task("--sweep=seed=1,2", f"--run_dir={tmp_path}/mine") == EXIT_DONE
    assert folders == [str(tmp_path), f"{tmp_path}/mine"]
