"""Runs side by side: what is told of them, whatever they hold, in a table, as JSON and as a page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import make_certificate
from fakes.gcs import TLS_HOSTS, serving, tensorflow_environment
from made_runs import HOSTILE_NAMES
from written_runs import write_run

from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.report.compare import Comparison, compare, read_runs
from trainer.report.compare_page import comparison_page
from trainer.report.compare_text import comparison_text
from trainer.report.compare_words import as_json, cells, notes, verdicts
from trainer.run import execute

ROOT = Path(__file__).resolve().parents[2]


def compared(*paths: str) -> Comparison:
    return compare(read_runs(paths))


def answers(right: int, wrong: int, *, first: str = "") -> str:
    return first + "a" * right + "b" * wrong


def test_two_equal_runs_do_not_differ(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, answers(90, 10)) for name in "xy"]
    found = compared(*paths)
    assert verdicts(found) == ["x and y do not differ: they answer all 100 test examples alike (p = 1)."]
    assert found.pairs[0].p_value == 1
    assert found.settings == []
    assert "settings: all the same" in comparison_text(found, 80)


def test_a_better_run_is_better_by_so_many_points(tmp_path: Path) -> None:
    worse = write_run(tmp_path / "worse", "b" * 20 + "a" * 370 + "b" * 10, config={"learning_rate": 0.1})
    better = write_run(tmp_path / "better", "a" * 20 + "a" * 365 + "b" * 15)
    found = compared(worse, better)
    assert found.best == "better"
    pair = found.pairs[0]
    assert pair.counts is not None
    assert (pair.counts.both, pair.counts.first_only, pair.counts.second_only, pair.counts.neither) == (365, 20, 5, 10)
    assert pair.p_value == pytest.approx(0.00408, abs=1e-5)  # Twice the binomial tail of 5 of 25.
    assert verdicts(found) == [
        "better is better than worse by 3.8 points on 400 test examples (95 % 1.3 to 6.5, p = 0.0041)."
    ]
    assert cells(found, found.runs[0])["against best"] == "-3.8 points (-6.5 to -1.3), p = 0.0041"


def test_a_small_difference_is_not_called_one(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "x", "aaaa" + answers(90, 6)), write_run(tmp_path / "y", "aabb" + answers(90, 6))
    assert verdicts(compared(*paths)) == [
        "No difference between x and y can be told from 100 test examples: x is ahead by 2.0 points (95 % -2.2 to 6.9, "
        "p = 0.5)."
    ]


def test_as_many_right_but_not_the_same_ones(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "x", "ab" + "a" * 98), write_run(tmp_path / "y", "ba" + "a" * 98)
    assert "each is right 1 time where the other is wrong" in verdicts(compared(*paths))[0]


def test_accuracy_and_its_interval_are_those_of_wilson(tmp_path: Path) -> None:
    found = compared(*(write_run(tmp_path / name, answers(333, 34)) for name in "xy"))
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = 333/367, n = 367, z = 1.95996.
    assert cells(found, found.runs[0])["test accuracy"] == "90.7 % (87.3 to 93.3), 333 of 367"


def test_with_many_runs_a_difference_must_be_clearer(tmp_path: Path) -> None:
    good, bad = "a" * 100, "b" * 7 + "a" * 93
    alone = compared(*(write_run(tmp_path / name, text) for name, text in [("x", good), ("y", bad)]))
    assert alone.pairs[0].differs and alone.pairs[0].adjusted_p_value == pytest.approx(2 / 2**7)
    three = compared(str(tmp_path / "x"), str(tmp_path / "y"), write_run(tmp_path / "z", good))
    assert [pair.differs for pair in three.pairs] == [True, False]
    assert three.pairs[0].adjusted_p_value == pytest.approx(3 * 2 / 2**7)
    four = compared(*(str(tmp_path / name) for name in "xyz"), write_run(tmp_path / "w", good))
    assert four.pair_count == 6 and not four.pairs[0].differs
    assert any("all 6 pairs" in note for note in notes(four)) and not any("pairs" in note for note in notes(alone))
    assert alone.pairs[0].interval is not None and four.pairs[0].interval is not None
    assert four.pairs[0].interval.low < alone.pairs[0].interval.low


def test_only_the_examples_that_both_have_are_tested(tmp_path: Path) -> None:
    first = write_run(tmp_path / "x", "aaab", keys=["1", "2", "3", "4"])
    second = write_run(tmp_path / "y", "bbb", keys=["4", "9", "3"])
    found = compared(first, second)
    pair = found.pairs[0]
    assert pair.shared == 2 and pair.counts is not None
    assert (pair.counts.first_only, pair.counts.neither) == (1, 1)
    assert "on 2 that both have" in cells(found, found.runs[1])["against best"]


def test_the_best_run_may_be_behind_on_the_examples_that_both_have(tmp_path: Path) -> None:
    shared = [f"shared {number}" for number in range(10)]
    best = write_run(tmp_path / "best", "b" * 8 + "aa" + "a" * 90, keys=[*shared, *map(str, range(90))])
    found = compared(best, write_run(tmp_path / "other", "a" * 8 + "bb", keys=shared))
    assert found.best == "best"
    # Of ten that only one gets right, eight are the other's: twice the tail is 2 (1 + 10 + 45) / 1024.
    expected = (
        "No difference between other and best can be told from 10 test examples: other is ahead by 60.0 points (95 %"
    )
    assert verdicts(found)[0].startswith(expected) and verdicts(found)[0].endswith("p = 0.11).")
    assert cells(found, found.runs[1])["against best"].startswith("60.0 points (-")


@pytest.mark.parametrize(
    "other, complaint",
    [
        ({"answers": "aa", "keys": ["8", "9"]}, "they have no test example in common"),
        (
            {"answers": "aab", "keys": ["0000", "0001", "0002"], "labels": ["a", "c", "a"]},
            "of the 3 test examples in common 1 have other labels, such as 0001: a here, c there",
        ),
        ({"answers": "aa", "keys": ["0000", "0000"]}, "some of their test examples have the same name"),
        ({}, "the latter has no predictions on a test split"),
    ],
)
def test_what_cannot_be_tested_is_said(tmp_path: Path, other: dict[str, Any], complaint: str) -> None:
    found = compared(write_run(tmp_path / "x", "aaaaa"), write_run(tmp_path / "y", **other))
    assert verdicts(found) == [f"x and y cannot be tested against each other: {complaint}."]
    assert cells(found, found.runs[1])["against best"] == "–"


def test_runs_that_have_no_result_yet_are_shown_as_far_as_they_are(tmp_path: Path) -> None:
    unfinished = {"state": "preempted", "epoch": 2, "goodput": {}, "data_fingerprint": None, "test": None}
    paths = [write_run(tmp_path / name, config={"epochs": 5}, status=unfinished) for name in "xy"]
    for path in paths:
        os.remove(Path(path) / "report" / "facts.json")
    found = compared(*paths)
    assert found.best is None and found.same_images is None
    assert verdicts(found)[0].startswith("None of the runs has predictions")
    assert set(cells(found, found.runs[0]).values()) == {"interrupted, epoch 2 of 5", "–"}
    assert any("x, y have not come to an end" in note for note in notes(found))
    assert "interrupted, epoch 2 of 5" in comparison_text(found, 60)
    assert "interrupted" in comparison_page(found, "")


def test_a_run_of_an_earlier_version_has_its_accuracy_from_status_json(tmp_path: Path) -> None:
    told = {"test": {"accuracy": 0.9, "loss": 0.3, "examples": 10}, "goodput": None, "seconds": {"total": 33.0}}
    paths = write_run(tmp_path / "x", "aaab"), write_run(tmp_path / "y", status=told)
    found = compared(*paths, write_run(tmp_path / "z", status={"test": {"examples": 10}}))
    assert [cells(found, run)["time"] for run in found.runs[1:]] == ["33.0 s", "60.0 s, 67 % features"]
    assert cells(found, found.runs[2])["test accuracy"] == "–"
    assert cells(found, found.runs[1])["test accuracy"].startswith("90.0 % (59.6 to 98.2), 9 of 10")
    assert found.best == "x"


def test_what_a_run_cost(tmp_path: Path) -> None:
    exports = {"tflite_int8": {"bytes": 2**20, "accuracy": 0.9, "refused": "too bad"}}
    paths = (
        write_run(tmp_path / "x", "aab", export_bytes=3 * 2**20, status={"exports": exports}),
        write_run(tmp_path / "y", "aab"),
        write_run(tmp_path / "z", "aab", export_bytes=2**20, config={"run_dir_layout": "vertex"}),
    )
    found = compared(*paths)
    first, second, on_vertex = (cells(found, run) for run in found.runs)
    assert first["time"] == "60.0 s, 67 % features"
    assert (first["parameters"], first["trained"]) == ("2,000,000", "6,405")
    assert (first["export"], first["tflite_int8"]) == ("3.00 MiB", "1.00 MiB, 90.0 %, refused")
    assert (second["export"], second["tflite_int8"]) == ("–", "–")
    assert (tmp_path / "z" / "model" / "saved_model.pb").exists() and on_vertex["export"] == "1.00 MiB"
    assert found.settings == []


def test_settings_that_differ_are_told_by_whether_they_change_the_result(tmp_path: Path) -> None:
    found = compared(
        write_run(tmp_path / "x", "aab", config={"seed": 1, "data": "folder:/a"}),
        write_run(tmp_path / "y", "aab", config={"seed": 2, "data": "folder:/b", "augment": ["flip", "crop"]}),
        write_run(tmp_path / "z", "aab", config={"seed": 1, "data": "folder:/b"}, status={"data_fingerprint": "f"}),
    )
    assert [(each.field, each.changes_result) for each in found.settings] == [
        ("augment", True),
        ("seed", True),
        ("data", False),  # Its place does not, and of what lies there its fingerprint tells.
    ]
    text = comparison_text(found, 100)
    assert "  --seed=1: x; z\n  --seed=2: y\n" in text
    assert "--augment=flip,crop: y" in text and "--augment=empty: x; z" in text
    assert any("not made from the same images" in note for note in notes(found))


def test_names_are_as_much_of_the_paths_as_tells_them_apart(tmp_path: Path) -> None:
    found = compared(*(write_run(tmp_path / name, "ab") for name in ("a/run", "b/run", "b/other")))
    assert [run.name for run in found.runs] == ["a/run", "b/run", "b/other"]


def test_runs_with_long_names_are_numbered_in_sentences(tmp_path: Path) -> None:
    names = [f"learning_rate=0.001,backbone={name}" for name in "xyz"]
    texts = "a" * 10, "b" * 8 + "aa", None
    found = compared(*(write_run(tmp_path / name, text) for name, text in zip(names, texts)))
    for told in (comparison_text(found, 120), comparison_page(found, "")):
        assert f"run 1: {names[0]}" in told and f"run 3: {names[2]}" in told
        assert "run 1 is better than run 2 by 80.0 points" in told
        assert "run 1 and run 3 cannot be tested against each other: the latter has no predictions" in told
    assert verdicts(found)[0].startswith(f"{names[0]} is better than {names[1]}")


def test_no_line_is_wider_than_the_terminal(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"{'a-long-name ' * 9}{n}", answers(90, n), config={"seed": n}) for n in range(5)]
    for width in (60, 40, 250):
        text = comparison_text(compared(*paths), width)
        assert max(map(len, text.splitlines())) <= width
    assert "\n  test accuracy  100.0 % (95.9 to 100.0), 90 of 90\n" in comparison_text(compared(*paths), 60)


def test_a_wide_terminal_gets_a_line_for_each_run(tmp_path: Path) -> None:
    found = compared(*(write_run(tmp_path / name, "aab") for name in ("x", "longer")))
    heading, first, second, *_ = comparison_text(found, 200).splitlines()
    assert heading.startswith("run     state  test accuracy")
    assert first.startswith("x       done   66.7 %") and second.startswith("longer  done   66.7 %")
    assert first.index("best") == heading.index("against best")


@pytest.mark.parametrize("hostile", HOSTILE_NAMES)
def test_hostile_names_act_neither_on_the_terminal_nor_on_the_page(tmp_path: Path, hostile: str) -> None:
    folder = f"\x1b[31m{hostile[:50]}".translate(str.maketrans("", "", "/*?[]\\"))
    paths = [
        write_run(
            tmp_path / f"{name}{folder}",
            "ab",
            keys=[hostile, "k"],
            labels=["a", name],
            config={"data_dir": hostile + name},
        )
        for name in "xy"
    ]
    found = compared(*paths)
    text, page = comparison_text(found, 60), comparison_page(found, "")
    assert "other labels" in verdicts(found)[0]
    assert all(character.isprintable() or character == "\n" for character in text + page)
    elements = {tag.lower() for tag in re.findall(r"<\s*(\w+)", page)}
    assert not elements & {"script", "img"} and page.count("</style>") == 1


def test_the_page_asks_no_server_and_draws_every_interval(tmp_path: Path) -> None:
    found = compared(*(write_run(tmp_path / name, text) for name, text in [("x", "a" * 9 + "b"), ("y", "a" * 10)]))
    page = comparison_page(found, "today")
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")
    # Wilson's intervals are 59.6 to 98.2 and 72.2 to 100 %; the scale begins at 55 %, and 320 is its length.
    assert 'x1="32.6" x2="307.3"' in page and 'x1="122.6" x2="320.0"' in page
    assert 'cx="248.9"' in page and "from 55 % to 100 %" in page


@pytest.mark.long
@pytest.mark.usefixtures("no_export")
def test_two_published_modules_on_real_photos(
    tmp_path: Path, flower_photos: Path, hub_module: Callable[[str], Path]
) -> None:
    stems = ("mobilenet_v2_035_224_feature_vector", "tf2-preview_mobilenet_v2_feature_vector_4")
    for stem in stems:
        config = Config(
            data=f"folder:{flower_photos}",
            classes=("roses", "tulips"),
            splits=(90, 0, 10),
            examples_per_class=8,
            epochs=3,
            backbone=str(hub_module(stem)),
            run_dir=str(tmp_path / stem),
        )
        assert execute(config, quiet=True) == EXIT_DONE
    found = compared(*(str(tmp_path / stem) for stem in stems))
    pair = found.pairs[0]
    accuracies = [
        json.loads((tmp_path / stem / "status.json").read_text("utf-8"))["test"]["accuracy"] for stem in stems
    ]
    assert pair.counts is not None and pair.interval is not None
    assert [run.examples for run in found.runs] == [pair.shared] * 2 and pair.shared > 100
    assert pair.counts.difference == pytest.approx(max(accuracies) - min(accuracies))
    assert 0 < pair.counts.first_only + pair.counts.second_only < pair.shared
    assert pair.interval.low < pair.counts.difference < pair.interval.high
    assert [setting.field for setting in found.settings] == ["backbone"]
    small, large = sorted(found.runs, key=lambda run: run.parameters or 0)
    # Published sizes of MobileNetV2 without its classifier, and a head of two classes.
    assert (small.parameters, large.parameters) == (410_208 + 2 * 1281, 2_257_984 + 2 * 1281)
    assert small.trained_parameters == large.trained_parameters == 2 * 1281


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.compare", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60)


def test_the_program_prints_a_table_and_writes_a_page_once(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, answers(9, 1)) for name in "xy"]
    page = tmp_path / "pages" / "compare.html"
    done = run_program(*paths, f"--output={page.parent}", COLUMNS="60")
    assert done.returncode == 0, done.stderr
    assert "x and y do not differ" in done.stdout and max(map(len, done.stdout.splitlines())) <= 60
    written = page.read_text("utf-8")
    again = run_program(*paths, f"--output={page}")
    assert again.returncode == 2 and f"{page} is there already" in again.stderr
    assert page.read_text("utf-8") == written


def test_the_program_gives_one_json_object_without_tensorflow(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, answers(9, 1)) for name in "xy"]
    program = (
        "import sys; from trainer import compare; from absl import flags; "
        f"compare.define_flags(flags.FLAGS); flags.FLAGS(['', '--json']); code = compare.main({paths!r}); "
        "print({'tensorflow', 'keras'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    told = json.loads(done.stdout)
    assert told == json.loads(json.dumps(as_json(compared(*paths))))
    assert told["runs"][0]["accuracy"] == 0.9
    assert (told["pairs"][0]["p_value"], told["pairs"][0]["differs"]) == (1.0, False)
    assert told["verdicts"][0].startswith("x and y do not differ")


def test_runs_on_a_bucket(tmp_path: Path) -> None:
    authority, certificate = make_certificate(tmp_path, TLS_HOSTS)
    with serving(certificate) as server:
        bucket = server.bucket("runs")
        for name in "xy":
            folder = Path(write_run(tmp_path / name, answers(9, 1), export_bytes=2**20))
            for file in (path for path in folder.rglob("*") if path.is_file()):
                bucket.put(f"made/{file.relative_to(tmp_path)}", file.read_bytes())
        settings = tensorflow_environment(server, authority)
        done = run_program("gs://runs/made/x", "gs://runs/made/y", "--output=gs://runs/made", **settings)
    assert done.returncode == 0, done.stderr
    assert "x and y do not differ" in done.stdout and done.stdout.count("1.00 MiB") == 2
    assert b"Comparison of 2 runs" in bucket.contents["made/compare.html"]


def test_what_the_program_cannot_compare_ends_with_a_sentence(tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "x", "ab"), tmp_path / "folder"
    folder.mkdir()
    os.symlink(run, tmp_path / "link")
    damaged = write_run(tmp_path / "damaged", "ab")
    Path(damaged, "report", "test.csv").write_text("no table", encoding="utf-8")
    for paths, sentence in [
        ([run], "Two or more run directories are needed"),
        ([run, f"{run}/"], "is given twice"),
        ([run, str(tmp_path / "link")], "is given twice"),
        ([run, str(folder)], f"{folder} is no run directory"),
        ([run, str(tmp_path / "nothing")], "nothing is no run directory"),
        ([run, damaged], "test.csv is damaged"),
        ([run, "s3://bucket/run"], "must be a local folder or gs://"),
    ]:
        with pytest.raises(UserError, match=sentence):
            read_runs(paths)
    done = run_program(run)
    assert done.returncode == 2
    assert done.stderr == "error: Two or more run directories are needed to compare, as in runs/a runs/b.\n"
