"""Texts from a CSV file: what is read, what is refused, and which split a text goes to."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import csv_files
import numpy as np
import pytest
from csv_files import HEADER, reviews, write_csv

from trainer.cluster import connect
from trainer.config import Config
from trainer.data import csv_file
from trainer.data.order import Share
from trainer.data.pipeline import evaluation_batches, training_batches
from trainer.data.sources import open_source
from trainer.data.splits import Splits, split_examples
from trainer.data.text_source import TextSource
from trainer.data.texts import TextInput
from trainer.errors import UserError
from trainer.features.content_ids import content_ids
from trainer.preparation import prepare
from trainer.records.console import Console


def config(path: object, **fields: Any) -> Config:
    return Config.parse({"data": f"csv:{path}", "backbone": "/module"} | fields)


def open_file(path: object, reports: list[str] | None = None, **fields: Any) -> TextSource:
    source = open_source(config(path, **fields), (reports if reports is not None else []).append)
    assert isinstance(source, TextSource)
    return source


def examples(source: TextSource) -> list[tuple[str, str]]:
    """All texts and the names of their classes, in the source's order."""
    return [(text.decode(), source.class_names[label]) for text, label in zip(source.texts, source.labels)]


def split(source: TextSource) -> Splits:
    return split_examples(source.split_keys, source.labels, source.class_names, (60, 20, 20), source.kind)


def texts_of(source: TextSource, indices: np.ndarray) -> set[str]:
    return {source.texts[index].decode() for index in indices}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    """23 texts of two classes."""
    return open_file(write_csv(tmp_path_factory.mktemp("csv") / "t.csv", reviews(23)))


class TestReading:
    """What a file may hold."""

    def test_quotes_line_breaks_and_unicode_are_kept_to_the_byte(self, tmp_path: Path) -> None:
        rows = [
            ('say "hi", twice', "b"),
            ("two\nlines", "a"),
            ("carriage\r\nreturn", "a"),
            (" größe 😀 ", "größe"),
            ("e\u0301", "b"),
        ]
        found = open_file(write_csv(tmp_path / "t.csv", rows))
        assert sorted(examples(found)) == sorted(rows)
        assert found.class_names == ("a", "b", "größe") and found.kind == "text"

    @pytest.mark.parametrize(
        "content",
        [
            b"text,label\ngood,pos\nbad,neg\n",
            b"text,label\r\ngood,pos\r\nbad,neg\r\n",
            b"\xef\xbb\xbftext,label\ngood,pos\nbad,neg",
            b' text , label\n"good",pos \n\n"bad", neg\n\n\n',
            b'id,label,text\n1,pos,good\n"2,3",neg,bad\n',
        ],
    )
    def test_ways_to_write_the_same(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(content)
        assert sorted(examples(open_file(tmp_path / "t.csv"))) == [("bad", "neg"), ("good", "pos")]

    def test_labels_in_two_unicode_forms_are_one_class(self, tmp_path: Path) -> None:
        rows = [("x", "gro\u0308ße"), ("y", "gr\u00f6ße"), ("z", "b")]
        assert open_file(write_csv(tmp_path / "t.csv", rows)).class_names == ("b", "gr\u00f6ße")

    def test_the_columns_can_be_named(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "t.csv", [("pos", "good"), ("neg", "bad")], ("sentiment", "review"))
        found = open_file(file, text_column="review", label_column="sentiment")
        assert sorted(examples(found)) == [("bad", "neg"), ("good", "pos")]

    def test_chosen_classes_are_numbered_anew(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "t.csv", [("x", "c"), ("y", "a"), ("z", "b"), ("w", "c")])
        found = open_file(file, classes="c,b")
        assert found.class_names == ("b", "c")
        assert sorted(examples(found)) == [("w", "c"), ("x", "c"), ("z", "b")]
        with pytest.raises(UserError, match="--classes names d, which .*t.csv does not have; it has a, b, c"):
            open_file(file, classes="c,d")

    def test_a_character_that_two_blocks_share(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trainer.blocks._BLOCK", 7)
        rows = [("äöü\näöü", "ß"), ("€€€€", "a")]
        assert sorted(examples(open_file(write_csv(tmp_path / "t.csv", rows)))) == sorted(rows)

    def test_the_reader_for_buckets_reads_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write_csv(tmp_path / "t.csv", reviews(30))
        local = examples(open_file(file))
        monkeypatch.setattr("trainer.blocks.is_remote", lambda path: True)  # TensorFlow's reads local files too.
        monkeypatch.setattr("builtins.open", None)
        assert examples(open_file(file)) == local

    def test_a_text_is_found_again_in_the_file(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "t.csv", [("one\nand two", "a"), ("three", "b")])
        found = open_file(file)
        assert {found.place_of(index) for index in range(2)} == {f"{file}, line 2", f"{file}, line 4"}
        index = found.texts.index(b"three")
        assert found.place_of(index).endswith("line 4") and found.encoded(index) == b"three"


class TestRefusals:
    """Each in one sentence that names the file, and the line where there is one."""

    @pytest.mark.parametrize("name", csv_files.BAD)
    def test_bad_content(self, name: str, tmp_path: Path) -> None:
        content, sentence = csv_files.BAD[name]
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_file(tmp_path / "t.csv")
        message = str(caught.value)
        assert sentence in message and f"--data=csv:{tmp_path}/t.csv" in message
        assert message.endswith(".") and message.isprintable()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"none\.csv.*does not exist|There is no .*none\.csv"):
            open_file(tmp_path / "none.csv")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is no file: give the path of one CSV file"):
            open_file(tmp_path)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.csv")
        with pytest.raises(UserError, match="is no file"):
            open_file(tmp_path / "pipe.csv")

    def test_a_file_too_large_for_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_file, "LARGEST_FILE", 100)
        with pytest.raises(UserError, match="has more than 100 bytes, and texts are kept in memory"):
            open_file(write_csv(tmp_path / "t.csv", reviews(10)))

    def test_a_class_with_too_few_texts(self, tmp_path: Path) -> None:
        found = open_file(write_csv(tmp_path / "t.csv", [*reviews(20), ("so so", "mixed")]))
        with pytest.raises(UserError, match="Class mixed has 1 text, and .* needs at least 3, .*: add texts, or leave"):
            split(found)


class TestSplits:
    """Where a text goes depends on the text alone."""

    def test_lines_and_other_texts_move_nothing(self, tmp_path: Path) -> None:
        rows = reviews(200)
        before = open_file(write_csv(tmp_path / "t.csv", rows))
        shuffled = [*rows, *reviews(50, seed=1)]
        random.Random(0).shuffle(shuffled)
        after = open_file(write_csv(tmp_path / "more.csv", shuffled))
        old, new = split(before), split(after)
        known = texts_of(before, np.arange(len(before)))
        for one, other in zip((old.train, old.validation, old.test), (new.train, new.validation, new.test)):
            assert len(one) and texts_of(before, one) == texts_of(after, other) & known

    def test_the_order_of_the_lines_changes_nothing_at_all(self, tmp_path: Path) -> None:
        rows = [*reviews(40), *reviews(10), ("great the", "neg"), ("great the", "pos")]
        one = open_file(write_csv(tmp_path / "t.csv", rows))
        other = open_file(write_csv(tmp_path / "turned.csv", rows[::-1]))
        assert list(one.keys) == list(other.keys) == sorted(set(one.keys))
        assert examples(one) == examples(other)
        assert one.fingerprint() == other.fingerprint()
        assert config(tmp_path / "t.csv").fingerprint() == config(tmp_path / "turned.csv").fingerprint()

    def test_a_changed_text_or_label_is_other_data(self, tmp_path: Path) -> None:
        rows = reviews(10)
        first = open_file(write_csv(tmp_path / "t.csv", rows)).fingerprint()
        text = open_file(write_csv(tmp_path / "t.csv", [(rows[0][0] + ".", rows[0][1]), *rows[1:]])).fingerprint()
        label = open_file(write_csv(tmp_path / "t.csv", [(rows[0][0], "pos"), *rows[1:]])).fingerprint()
        assert len({first, text, label}) == 3

    def test_copies_stay_in_one_split_and_are_reported(self, tmp_path: Path) -> None:
        reports: list[str] = []
        source = open_file(write_csv(tmp_path / "t.csv", reviews(100) * 3), reports)
        splits = split(source)
        parts = [texts_of(source, part) for part in (splits.train, splits.validation, splits.test)]
        assert [len(part) for part in parts] == [len(x) // 3 for x in (splits.train, splits.validation, splits.test)]
        assert sum(map(len, parts)) == 100
        file = tmp_path / "t.csv"
        assert reports == [f"200 of 300 texts in {file} are copies of others; those that are alike share a split."]

    def test_a_run_is_not_tested_on_copies_of_what_it_is_trained_on(self, tmp_path: Path) -> None:
        settings = config(write_csv(tmp_path / "t.csv", reviews(60) * 3))
        prepared = prepare(settings, connect(settings), Console(quiet=True))
        assert isinstance(prepared.source, TextSource) and len(prepared.splits.test)
        trained = texts_of(prepared.source, prepared.train)
        assert trained.isdisjoint(texts_of(prepared.source, prepared.splits.test))
        assert trained.isdisjoint(texts_of(prepared.source, prepared.splits.validation))

    def test_two_labels_of_one_text_are_reported(self, tmp_path: Path) -> None:
        reports: list[str] = []
        open_file(write_csv(tmp_path / "t.csv", [("so", "pos"), ("x", "neg"), ("so", "neg")]), reports)
        assert "lines 4 and 2: neg and pos" in reports[1]


class TestBatches:
    """What a replica gets."""

    def test_evaluation_gives_every_text_once_and_pads(self, source: TextSource) -> None:
        indices = np.array([2, 3, 7, 11, 20])
        batches = list(evaluation_batches(source, indices, TextInput(), Share(4, 2, 0, 2)).as_numpy_iterator())
        rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        assert rows["text"].tolist() == [*(source.texts[index] for index in indices), b"", b"", b""]
        assert rows["index"].tolist() == [*indices, -1, -1, -1]
        assert rows["label"].tolist() == [*source.labels[indices], 0, 0, 0]

    def test_training_batches_hold_their_own_texts_and_labels(self, source: TextSource) -> None:
        indices = np.arange(1, 20)
        seen: list[int] = []
        dataset = training_batches(source, indices, config("x"), TextInput(), Share(6, 2, 0, 2), 0, 19)
        for batch in dataset.as_numpy_iterator():
            assert batch["text"].tolist() == [source.texts[index] for index in batch["index"]]
            assert batch["label"].tolist() == source.labels[batch["index"]].tolist()
            seen += batch["index"].tolist()
        assert sorted(seen) == sorted(list(indices) * 6)  # 19 steps of 6 are 6 epochs of 19.

    def test_the_id_of_a_text_is_its_content(self, source: TextSource, tmp_path: Path) -> None:
        other = open_file(write_csv(tmp_path / "t.csv", reviews(5)))
        known = {text: bytes(i) for text, i in zip(source.texts, content_ids(source, np.arange(23), None))}
        assert len(set(known.values())) == 23
        for text, identity in zip(other.texts, content_ids(other, np.arange(5), None)):
            assert known[text] == bytes(identity)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"backbone": "convnet"}, "--backbone=convnet takes images, and --data=csv:x.csv holds texts: give the handle"),
        ({"augment": "flip,crop"}, "--augment=flip,crop: is for images, and --data=csv:x.csv holds texts"),
        ({"randaugment": 2}, "--randaugment=2.0: is for images"),
        ({"mixup": 0.2}, "--mixup=0.2: is for images"),
        ({"cutmix": 1}, "--cutmix=1.0: is for images"),
        ({"resize": "squash"}, "--resize=squash: is for images"),
        ({"image_size": 96}, "--image_size=96: is for images"),
        ({"cache_decoded": True}, "--cache_decoded=True: is for images"),
        ({"on_bad_image": "skip"}, "--on_bad_image=skip: is for images"),
        ({"max_image_pixels": 5}, "--max_image_pixels=5: is for images"),
        ({"stage_to": "/x"}, "--stage_to=/x copies --data=folder:gs://…, and --data is csv:x.csv"),
        ({"text_column": "label"}, "--text_column=label and --label_column=label must name two different columns"),
        ({"text_column": ""}, "must name two different columns"),
        (
            {"strategy": "tpu", "train_backbone": True},
            "--strategy=tpu: no TPU can hold the strings of --data=csv:x.csv",
        ),
        ({"strategy": "tpu", "feature_cache": "off"}, "--strategy=tpu: no TPU can hold the strings"),
        ({"data": "csv:"}, "--data=csv:: must name the file, as in csv:FILE"),
        ({"data": "digits", "text_column": "x"}, "--text_column=x: is for --data=csv:FILE, and --data is digits"),
    ],
)
def test_what_does_not_go_with_texts_is_said_before_anything_is_loaded(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        config("x.csv", **fields)
    assert sentence in str(caught.value) and str(caught.value).count("--data=csv") <= 1


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(csv_files.BAD) >= 20
    assert len({content for content, _ in csv_files.BAD.values()}) == len(csv_files.BAD)
    assert HEADER not in {content[: len(HEADER)] for content, s in csv_files.BAD.values() if "has no column" in s}
