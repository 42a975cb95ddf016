from __future__ import annotations

import numpy as np
import pytest

from trainer.data import names as names_module
from trainer.data.names import Names

WORDS = ["a/1.jpg", "", "ü b", "日本/語.png", "z"]


def test_names_are_a_sequence_of_the_strings_they_were_made_of() -> None:
    names = Names.of(WORDS)
    assert list(names) == WORDS and len(names) == 5
    assert [names[index] for index in range(-5, 5)] == WORDS + WORDS
    assert list(names[1:4]) == WORDS[1:4] and list(names[::-2]) == WORDS[::-2]
    assert names.index("z") == 4 and "nothing" not in names
    with pytest.raises(IndexError):
        names[5]
    assert Names.of(names) is names


def test_no_name_is_not_one_empty_name() -> None:
    assert list(Names.of([])) == [] and list(Names.of([""])) == [""]
    assert list(Names.of([""]).take(np.array([0, 0]))) == ["", ""]
    assert list(Names.of(["a"]).take(np.array([], np.int64))) == []


def test_lengths_are_in_bytes() -> None:
    assert Names.of(WORDS).lengths.tolist() == [len(word.encode()) for word in WORDS]
    assert Names.of([]).lengths.tolist() == []


def test_taken_in_any_order() -> None:
    assert list(Names.of(WORDS).take(np.array([3, 0, 3]))) == [WORDS[3], WORDS[0], WORDS[3]]


def test_blocks_cover_all_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "_BLOCK", 2)
    assert [block.decode() for block in Names.of(WORDS).blocks()] == ["a/1.jpg\0", "ü b\0日本/語.png", "z"]
    assert list(Names.of(WORDS)) == WORDS


def test_a_name_with_a_nul_or_a_wrong_count_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        Names.of(["a\0b", "c"])
    with pytest.raises(ValueError, match="NUL"):
        Names(b"a\0b", 3)
