"""Config: what is accepted, what is said of the rest, and what the fingerprint covers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer.config import Config
from trainer.config_values import parse_data
from trainer.errors import UserError


def test_json_round_trip_keeps_every_field() -> None:
    config = Config(data="synthetic:7", splits=(80, 10, 10), augment=("flip", "crop"), learning_rate=3e-4)
    assert Config.from_json(config.to_json()) == config


def test_patterns_may_hold_commas_and_colons() -> None:
    config = Config.parse({"lr_scale": "x{1,2}/(?:a|b):0.1, head:2e-1"})
    assert config.rate_scales == [("x{1,2}/(?:a|b)", 0.1), ("head", 0.2)]
    assert Config.from_json(config.to_json()) == config
    assert Config.parse({"class_weights": "a:b:2,c:0.5"}).named_class_weights == {"a:b": 2.0, "c": 0.5}


def test_lists_are_read_as_on_the_command_line() -> None:
    config = Config.parse({"splits": "80,15,5", "augment": "flip, crop", "classes": "daisy,wild rose"})
    assert config.splits == (80, 15, 5)
    assert config.augment == ("flip", "crop")
    assert config.classes == ("daisy", "wild rose")
    assert Config.parse({"export": "saved_model, tflite"}).export == ("saved_model", "tflite")
    assert Config.parse({"export": ""}).export == ()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": "automatic"}, "--batch_size=automatic: must be auto or a whole number from 1 to 1048576"),
        ({"batch_size": 0}, "--batch_size=0: must be auto or a whole number from 1"),
        (
            {"data": "foldr:x"},
            "--data=foldr:x: must be digits, folder:PATH, tfrecord:PATTERN, tfds:NAME, csv:FILE or synthetic[:CLASSES]"
            "; did you mean folder?",
        ),
        ({"data": "~/photos"}, "a folder of images is given as folder:~/photos"),
        ({"data": "folder:"}, "must name the folder"),
        ({"data": "synthetic:1"}, "a number of classes from 2 to 1000"),
        ({"data": "digits:3"}, "digits takes nothing after it"),
        ({"splits": "70,20"}, "--splits=70,20: must be three percentages"),
        ({"splits": "70,20,20"}, "--splits=70,20,20: must be three percentages that add up to 100"),
        ({"splits": "0,50,50"}, "the first above 0"),
        ({"augment": "flip,spin"}, "--augment=flip,spin: each must be 'flip', 'crop' or 'color'"),
        ({"epoch": 3}, "There is no field epoch. Did you mean epochs?"),
        ({"strategy": "mirored"}, "--strategy=mirored: must be 'default', 'mirrored', 'multi_worker' or 'tpu'"),
        ({"classes": "daisy"}, "at least two different classes"),
        ({"virtual_devices": 2}, "--virtual_devices=2 needs --strategy=mirrored"),
        (
            {"strategy": "mirrored", "virtual_devices": 3},
            "--batch_size=32 cannot be shared by 3 replicas; take 30 or 33",
        ),
        ({"strategy": "mirrored", "virtual_devices": 8, "batch_size": 5}, "take 8"),
        ({"learning_rate": "nan"}, "--learning_rate=nan"),
        ({"warmup": 11}, "--warmup=11 is longer than the 10 --epochs"),
        ({"hub_mirror": "hub.tensorflow.google.cn"}, "must be a host such as https://"),
        ({"backbone": ""}, "--backbone is empty"),
        ({"resume": ""}, "--resume is empty"),
        ({"seed": -1}, "--seed=-1"),
        ({"virtual_devices": 2, "strategy": "tpu"}, "needs --strategy=mirrored or multi_worker, not tpu"),
        ({"tpu": ""}, "--tpu is empty: give local, the name of a Cloud TPU, or grpc://HOST:PORT"),
        ({"freeze": "block_(1"}, "--freeze=block_(1: must be a regular expression"),
        ({"lr_scale": "backbone"}, "--lr_scale=backbone: must be PATTERN:FACTOR, separated by commas"),
        ({"lr_scale": "backbone:-1"}, "--lr_scale=backbone:-1: must be PATTERN:FACTOR"),
        ({"lr_scale": ["(:2"]}, "--lr_scale=(:2: each must be a regular expression"),
        ({"class_weights": "daisy"}, "must be balanced, or NAME:WEIGHT separated by commas"),
        ({"class_weights": "daisy:1,daisy:2"}, "names daisy twice"),
        ({"schedule": "step"}, "--schedule=step with --decay_epochs=empty: step needs the epochs"),
        ({"decay_epochs": "2"}, "--schedule=cosine with --decay_epochs=2.0"),
        ({"schedule": "step", "decay_epochs": "5,2"}, "--decay_epochs=5.0,2.0: must ascend"),
        ({"schedule": "step", "decay_epochs": "0"}, "--decay_epochs=0: each must be greater than 0"),
        ({"export": "tfjs"}, "--export=tfjs: each must be 'saved_model' or 'tflite'"),
        ({"export": "", "min_accuracy": 0.5}, "--min_accuracy=0.5 judges what is exported, and --export is empty"),
        ({"splits": "100,0,0", "min_accuracy": 0.5}, "--min_accuracy=0.5 needs images to test on: --splits=100,0,0"),
        ({"min_accuracy": 80}, "--min_accuracy=80: must be less than or equal to 1"),
        ({"mixup": 0.2, "batch_size": 7}, "--batch_size=7: --mixup and --cutmix pair images, so it must be even"),
        ({"ema_decay": 1}, "--ema_decay=1: must be less than 1"),
    ],
)
def test_a_bad_value_is_named_with_the_way_out(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Config.parse(values)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"epochs": 5, }'])
def test_json_that_is_no_object_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError, match=r"^run\.json "):
        Config.from_json(text, origin="run.json")


def test_fingerprint_covers_what_changes_the_result_and_nothing_else() -> None:
    base = Config()
    for elsewhere in (
        {"strategy": "mirrored"},
        {"run_dir": "x"},
        {"steps_per_loop": 7},
        {"resume": "never"},
        {"hub_mirror": "https://h"},
        {"repair_hub_cache": True},
        {"export": ("tflite",), "min_accuracy": 0.5},
    ):
        assert base.model_copy(update=elsewhere).fingerprint() == base.fingerprint()
    for name, value in {"seed": 1, "learning_rate": 0.1, "dropout": 0.1, "epochs": 3, "batch_size": 64}.items():
        assert base.model_copy(update={name: value}).fingerprint() != base.fingerprint()


def test_a_folder_that_moved_is_the_same_data_to_the_fingerprint() -> None:
    assert Config(data="folder:/a").fingerprint() == Config(data="folder:/b").fingerprint()
    assert Config(data="folder:/a").fingerprint() != Config(data="digits").fingerprint()


def test_differences_name_both_values() -> None:
    assert Config(seed=1, dropout=0.5).differences(Config(seed=2, dropout=0.5)) == ["--seed is 1 here and 2 there"]


def test_data_spec() -> None:
    assert parse_data("folder:/a b:c").argument == "/a b:c"
    assert parse_data("tfrecord:gs://b/x-*.tfrecord") == ("tfrecord", "gs://b/x-*.tfrecord")
    assert parse_data("tfds:food101/a.b:2.0.0") == ("tfds", "food101/a.b:2.0.0")
    assert parse_data("synthetic").synthetic_classes == 4
    assert parse_data("synthetic:12").synthetic_classes == 12


def test_config_needs_no_tensorflow() -> None:
    code = "import sys, trainer.config; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
