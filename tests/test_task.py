"""Flags: generated from Config, overriding a file, and refused with a sentence and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from trainer import config_flags, program, task
from trainer.config import Config
from trainer.config_fields import field_topic
from trainer.errors import EXIT_USER, UserError
from trainer.startup import import_tensorflow_quietly

README = Path(__file__).resolve().parents[1] / "README.md"


def parsed(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.define_flags(values)
    config_flags.parse_arguments(values, arguments)
    return values


def read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def test_every_field_is_a_flag_with_its_default_and_description() -> None:
    values = parsed()
    assert config_flags.config_from_flags(values, read_text) == Config()
    for name, field in Config.model_fields.items():
        assert field.description in values[name].help
        assert field_topic(field) in values[name].help


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"epochs": 3, "seed": 5}), encoding="utf-8")
    config = config_flags.config_from_flags(parsed(f"--config={file}", "--seed=6", "--train_backbone"), read_text)
    assert (config.epochs, config.seed, config.train_backbone) == (3, 6, True)


def test_a_flag_that_repeats_its_default_still_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"epochs": 3}), encoding="utf-8")
    default = Config().epochs
    assert (
        config_flags.config_from_flags(parsed(f"--config={file}", f"--epochs={default}"), read_text).epochs == default
    )


def test_an_unknown_field_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"learning_rat": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="learning_rat. Did you mean learning_rate"):
        config_flags.config_from_flags(parsed(f"--config={file}"), read_text)


def test_switching_off_what_is_no_switch_says_how_to_empty_it() -> None:
    with pytest.raises(
        UserError, match="^--noexport is not a flag: --export takes a value, and --export= an empty one"
    ):
        parsed("--noexport")
    with pytest.raises(UserError, match="^Unknown command line flag 'nothing'"):
        parsed("--nothing")
    assert config_flags.config_from_flags(parsed("--export="), read_text).export == ()


def test_an_unknown_flag_ends_with_a_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        task.parse_flags(["task", "--epoch=3"])
    assert ended.value.code == EXIT_USER
    error = capsys.readouterr().err
    assert error.startswith("error: Unknown command line flag 'epoch'. Did you mean: epochs")
    assert "Traceback" not in error


def test_an_argument_that_is_no_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        task.parse_flags(["task", "--epochs=3", "mirrored"])
    assert ended.value.code == EXIT_USER
    assert "error: mirrored is not a flag" in capsys.readouterr().err


def test_a_config_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.json cannot be read"):
        program.read_text(str(tmp_path / "nothing.json"))


def test_readme_has_every_flag_under_its_topic() -> None:
    """The README's tables and Config cannot drift: same flags, same topics, same defaults."""
    rows: dict[str, tuple[str, str]] = {}
    topic = ""
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            topic = line.removeprefix("### ")
        elif line.startswith("| `--"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`").removeprefix("--")] = (topic, cells[1].strip("`"))
    shown = {
        name: (field_topic(field), config_flags.as_flag(field.default)) for name, field in Config.model_fields.items()
    }
    assert {name: row for name, row in rows.items() if name in shown} == shown


def test_flags_and_config_need_no_tensorflow() -> None:
    """`launch` checks a job with them in a fraction of a second."""
    program = "import sys, trainer.config_flags; print(*{'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=README.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("local_tpu", [False, True])
def test_tensorflow_looks_for_tpu_chips_only_where_they_are_asked_for(
    local_tpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TPU_LOAD_LIBRARY", raising=False)
    import_tensorflow_quietly(local_tpu=local_tpu)
    assert os.environ.pop("TPU_LOAD_LIBRARY", None) == (None if local_tpu else "0")
