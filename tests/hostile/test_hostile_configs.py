"""Configurations from anywhere: a sentence that names the file, or exactly what stands in it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import hostile_configs as corpus
import pytest
from absl import flags

from trainer.config import Config
from trainer.config_flags import config_from_flags, define_flags, read_local_text
from trainer.errors import UserError

_SECONDS = 5.0


def parsed(file: Path) -> Config:
    values = flags.FlagValues()
    define_flags(values)
    values(["", f"--config={file}"])
    return config_from_flags(values, read_local_text)


@pytest.mark.parametrize("name", corpus.REFUSED)
def test_it_is_refused_with_a_short_sentence(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(corpus.REFUSED[name])
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        parsed(file)
    assert time.monotonic() - began < _SECONDS
    assert str(refused.value).startswith(f"--config={file}")
    assert len(str(refused.value)) < 1000, str(refused.value)


@pytest.mark.parametrize("name", corpus.CHANGED)
def test_it_is_refused_or_means_what_it_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(corpus.CHANGED[name])
    try:
        config = parsed(file)
    except UserError as refused:
        assert str(file) in str(refused)
        return
    said = json.loads(corpus.CHANGED[name])
    meant = json.loads(config.to_json())
    assert {field: meant[field] for field in said} == said


def test_a_good_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(corpus.WHOLE)
    assert parsed(file).to_json().encode() == corpus.WHOLE
