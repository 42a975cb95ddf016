"""status.json."""

import json
import math
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import trainer
from trainer.errors import UserError
from trainer.records import status as records_status
from trainer.records.goodput import Stopwatch
from trainer.records.status import BestResult, ExportResult, Status, earlier_exports
from trainer.storage import RunDirectory

FIELDS = [
    "state",
    "step",
    "epoch",
    "steps_total",
    "train",
    "validation",
    "test",
    "best",
    "export",
    "exports",
    "examples_per_second",
    "seconds",
    "attempts",
    "goodput",
    "config_fingerprint",
    "data_fingerprint",
    "versions",
    "error",
    "skipped_images",
    "warnings",
]


@dataclass(frozen=True)
class Skipped:
    key: str
    reason: str


def test_a_new_status_has_every_field() -> None:
    values = json.loads(Status(config_fingerprint="c", data_fingerprint="d").to_json())
    assert list(values) == FIELDS
    assert (values["state"], values["step"], values["config_fingerprint"]) == ("running", 0, "c")
    assert all(
        values[name] is None for name in ("steps_total", "test", "best", "export", "examples_per_second", "error")
    )
    assert values["skipped_images"] == values["warnings"] == []


def test_what_is_set_is_written_and_read_back(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    status = Status()
    status.update(
        state="done",
        step=np.int64(43),
        epoch=2,
        train={"loss": np.float32(0.5)},
        validation={"accuracy": 0.75},
        test=records_status.TestResult(accuracy=0.9, loss=0.25, examples=367),
        best=BestResult(step=43, epoch=2, accuracy=0.75, loss=0.5),
        export=str(tmp_path / "run" / "export"),
        examples_per_second=np.float64(12.5),
        seconds=Stopwatch(lambda: 0.0).seconds(),
        skipped_images=(Skipped("rosen/ä b.jpg", "empty file"),),
        error="two\n  lines",
    )
    status.warnings.append("w")
    status.write(run)
    values = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))
    assert values["test"] == {"accuracy": 0.9, "loss": 0.25, "examples": 367}
    assert values["best"] == {"step": 43, "epoch": 2, "accuracy": 0.75, "loss": 0.5}
    assert (values["step"], values["train"], values["examples_per_second"]) == (43, {"loss": 0.5}, 12.5)
    assert set(values["seconds"]) == {
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
    assert values["skipped_images"] == [{"key": "rosen/ä b.jpg", "reason": "empty file"}]
    assert values["error"] == "two lines"
    assert values["warnings"] == ["w"]


def test_exports_are_found_again(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    assert earlier_exports(run) == {}
    results = {
        "saved_model": ExportResult("/r/export", 12, 0.9, 367, "test"),
        "tflite_int8": ExportResult(None, None, None, 0, "", "no"),
    }
    status = Status()
    status.update(exports=results)
    status.write(run)
    assert earlier_exports(run) == results
    for damaged in ("{", "[]", '{"exports": {"tflite_int8": {"size": 3}}}'):
        (tmp_path / "status.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=r"status\.json is damaged: delete it"):
            earlier_exports(run)
    (tmp_path / "status.json").write_text("{}", encoding="utf-8")
    assert earlier_exports(run) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("-inf")])
def test_numbers_that_are_not_finite_become_null(value: float) -> None:
    status = Status(train={"loss": value}, examples_per_second=value, best=BestResult(1, 1, 0.5, value))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    values = json.loads(status.to_json(), parse_constant=refuse)
    assert values["train"]["loss"] is values["examples_per_second"] is values["best"]["loss"] is None


def test_a_file_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    key = b"roses/\xff.jpg".decode(errors="surrogateescape")
    Status(skipped_images=[Skipped(key, "no image")]).write(RunDirectory(str(tmp_path)))
    assert json.loads((tmp_path / "status.json").read_bytes())["skipped_images"][0]["key"] == key


def test_versions_are_those_that_are_installed() -> None:
    versions = json.loads(Status().to_json())["versions"]
    assert set(versions) == {"python", "tensorflow", "keras", "tensorflow_hub", "numpy", "trainer"}
    assert versions["python"] == platform.python_version()
    assert versions["trainer"] == trainer.__version__
    assert versions["numpy"] == np.__version__
    assert versions["keras"] == metadata.version("keras")
    assert versions["tensorflow"].startswith("2.")


def test_unknown_fields_and_states_are_refused() -> None:
    with pytest.raises(TypeError, match="no field accuracy"):
        Status().update(accuracy=1.0)
    with pytest.raises(ValueError, match="no state 'finished': one of running"):
        Status().update(state="finished")
