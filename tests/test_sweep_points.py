"""What a line of --sweep stands for, and what is said of one that is not accepted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.sweep import MOST_POINTS, points

HUB = "https://tfhub.dev/google/imagenet"


def test_every_value_of_one_field_goes_with_every_value_of_the_other() -> None:
    found = points({"epochs": 3, "seed": 9}, "learning_rate=1e-4,1e-3 \n backbone=A,B ")
    assert [(point.config.learning_rate, point.config.backbone) for point in found] == [
        (0.0001, "A"),
        (0.0001, "B"),
        (0.001, "A"),
        (0.001, "B"),
    ]
    assert {(point.config.epochs, point.config.seed) for point in found} == {(3, 9)}
    assert [point.name for point in found] == [
        "learning_rate=0.0001,backbone=A",
        "learning_rate=0.0001,backbone=B",
        "learning_rate=0.001,backbone=A",
        "learning_rate=0.001,backbone=B",
    ]
    assert found[1].overrides == {"learning_rate": "1e-4", "backbone": "B"}


def test_a_swept_field_goes_before_what_all_have_in_common() -> None:
    assert [point.config.seed for point in points({"seed": 9}, "seed=1,2")] == [1, 2]


def test_a_field_may_need_a_swept_one() -> None:
    assert [point.config.decay_epochs for point in points({"schedule": "step"}, 'decay_epochs=3,"3,5"')] == [
        (3.0,),
        (3.0, 5.0),
    ]


def test_quotes_hold_values_with_commas_and_blanks_together() -> None:
    found = points({}, """splits="75,15,10",'50,25,25' data_dir="a b",c' 'd,"e'f" """)
    assert {point.config.splits for point in found} == {(75, 15, 10), (50, 25, 25)}
    assert [point.config.data_dir for point in found[:3]] == ["a b", "c d", "e'f"]


def test_an_empty_value_is_written_as_quotes() -> None:
    assert [point.config.freeze for point in points({}, "freeze='',bias")] == ["", "bias"]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "--sweep is empty"),
        ("mirrored", "mirrored must be FIELD=VALUE,VALUE"),
        ("=3", "=3 must be FIELD=VALUE"),
        ("learning_rat=1,2", "learning_rat=1: There is no field learning_rat. Did you mean learning_rate?"),
        ("seed=1 epochs=2 seed=3", "has seed twice"),
        ("seed=", "seed lacks a value"),
        ("seed=1,,2", "seed lacks a value"),
        ("seed=1,", "seed lacks a value"),
        ("freeze='a", "a quotation mark ' is not closed"),
        ("learning_rate=1e-3,2e-3,0.001", "learning_rate=1e-3 and learning_rate=0.001 are the same run"),
        ("seed=1,two", "--sweep, seed=two: --seed=two: must be a whole number"),
        ("batch_size=30 virtual_devices=0,3,4 strategy=mirrored", "virtual_devices=4 .*cannot be shared by 4 replicas"),
        ("run_dir=a,b", "leave run_dir out"),
    ],
)
def test_what_is_no_grid_of_runs_is_refused_in_a_sentence(text: str, complaint: str) -> None:
    pattern = complaint if ".*" in complaint else re.escape(complaint)
    with pytest.raises(UserError, match=pattern):
        points({}, text)


def test_a_thousand_points_are_accepted_and_more_are_refused_before_they_are_made() -> None:
    seeds = ",".join(map(str, range(MOST_POINTS)))
    assert len(points({}, f"seed={seeds}")) == MOST_POINTS
    with pytest.raises(UserError, match="asks for 1,001 runs"):
        points({}, f"seed={seeds},{MOST_POINTS}")
    epochs = ",".join(map(str, range(1, 1000)))
    with pytest.raises(UserError, match=r"asks for 999,000,000 runs"):
        points({}, f"seed={seeds} epochs={epochs} batch_size={seeds}")


def test_a_secret_in_the_text_is_not_repeated() -> None:
    with pytest.raises(UserError) as refused:
        points({}, "backbone='https://me:hunter2@host/module")
    assert "user name or password" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_name_says_the_same_of_a_point_whatever_the_other_points_are() -> None:
    text = f"backbone={HUB}/mobilenet_v2_100_224/feature_vector/5"
    alone = points({}, text)[0].name
    assert alone == "backbone=mobilenet_v2_100_224-feature_vector-5"
    assert points({}, f"{text},{HUB}/inception_v3/feature_vector/5")[0].name == alone
    assert points({}, "learning_rate=1e-3")[0].name == points({}, "learning_rate=0.0010")[0].name


def test_names_are_safe_folder_names_whatever_the_values() -> None:
    values = ["../../etc", "..", "a/é", "a/è", "A/ü", "*?[x]\\", "<b>&", "\x1b[31m", "x" * 300, "-rf"]
    names = [point.name for point in points({}, "backbone=" + ",".join(f'"{value}"' for value in values))]
    assert all(re.fullmatch(r"backbone=[A-Za-z0-9._=,+-]+", name) for name in names), names
    assert not any(name.endswith("=..") for name in names)
    assert len({name.casefold() for name in names}) == len(values)
    assert names[2:5] == ["backbone=a", "backbone=a-2", "backbone=A-3"]


def test_a_long_name_is_cut_and_stays_unique() -> None:
    long = dict.fromkeys(("data_dir", "feature_cache", "init_from", "freeze"), "y" * 60)
    text = " ".join(f"{name}={value}" for name, value in long.items())
    names = [point.name for point in points({}, f"{text} seed=1,2")]
    assert max(map(len, names)) <= 150
    assert len(set(names)) == 2
    assert not any(name.endswith("-2") for name in names)


def test_launch_can_use_it_without_tensorflow() -> None:
    program = (
        "import sys; from trainer.sweep import points; points({}, 'seed=1,2'); "
        "print(*{'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
