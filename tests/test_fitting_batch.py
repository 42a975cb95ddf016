"""Runs whose batch does not fit into memory, and runs that find the one that does."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import modules
import numpy as np
import pytest
import tensorflow as tf
from kill_workers import differences, train, variables_of
from runs import run_task, status_of

from trainer import fitting_batch, run, task
from trainer.cluster import Cluster, check_batch, connect
from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.fitting_batch import with_fitting_batch_size
from trainer.preflight.steps import trace_steps
from trainer.preparation import Built, Prepared, build, prepare
from trainer.records.console import Console
from trainer.topology import Topology
from trainer.training.evaluation import EvaluationStep
from trainer.training.step import TrainStep

TINY: dict[str, Any] = {
    "data": "synthetic:2",
    "image_size": 8,
    "examples_per_class": 64,
    "epochs": 1,
    "export": (),
    "ema_decay": 0.9,
    "optimizer": "sgd",
}
"""128 training images; of the optimizers, sgd is traced in the least time, and a new step is traced for each batch."""


def out_of_memory(_: np.ndarray) -> np.ndarray:
    """TensorFlow makes a ResourceExhaustedError of it. One of its allocators' own would come ten seconds later."""
    raise MemoryError("OOM when allocating tensor with shape[9,9]")


def hungry(step: Callable[..., Any], most: int, rows_seen: list[int]) -> Callable[..., Any]:
    """A step that has no memory for more than so many rows at once."""

    def limited(self: object, batch: Mapping[str, tf.Tensor], *arguments: object, **named: object) -> Any:
        rows = batch["label"].shape[0]
        rows_seen.append(rows)
        result = step(self, batch, *arguments, **named)
        if rows <= most:
            return result
        too_much = tf.ensure_shape(tf.numpy_function(out_of_memory, [batch["label"]], tf.float32), [])
        return tf.nest.map_structure(lambda value: value + tf.cast(too_much, value.dtype), result)

    return limited


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Gives training room for so many rows at once; what it gives is filled with the rows that steps were built for."""

    def limit(most: int) -> list[int]:
        rows_seen: list[int] = []
        monkeypatch.setattr(TrainStep, "_forward", hungry(TrainStep._forward, most, rows_seen))
        return rows_seen

    return limit


@pytest.fixture(autouse=True)
def tensorflow_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `main` from changing log levels for all tests."""
    monkeypatch.setattr(task, "import_tensorflow_quietly", lambda **_: None)


def config_there(run_dir: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    return loaded


def test_a_batch_that_does_not_fit_names_the_largest_that_does(
    room_for: Callable[[int], list[int]], tmp_path: Path
) -> None:
    room_for(24)
    config = Config(**TINY, batch_size=100, run_dir=str(tmp_path / "r"))
    with pytest.raises(UserError) as raised:
        run.execute(config, quiet=True)
    assert "There is not enough memory for --batch_size=100 (OOM when allocating tensor" in str(raised.value)
    assert str(raised.value).endswith(
        "): the largest to try is --batch_size=16 (8 and 16 fit, 32 does not), and --accumulation_steps=2 keeps the "
        "batch and needs less for a step."
    )
    assert status_of(tmp_path / "r")["error"] == str(raised.value)
    named = config.model_copy(update={"batch_size": 16, "run_dir": str(tmp_path / "named")})
    assert run.execute(named, quiet=True) == EXIT_DONE
    pieces = config.model_copy(update={"accumulation_steps": 5, "run_dir": str(tmp_path / "pieces")})
    assert run.execute(pieces, quiet=True) == EXIT_DONE, "100 images in pieces of 20"


def test_replicas_share_what_is_named(room_for: Callable[[int], list[int]], tmp_path: Path) -> None:
    room_for(6)
    config = Config(
        **TINY, batch_size=16, mixup=0.2, strategy="mirrored", virtual_devices=2, run_dir=str(tmp_path / "r")
    )
    with pytest.raises(
        UserError, match=r"--batch_size=16 \(OOM .*--batch_size=8 \(8 fits\), and --accumulation_steps=2 keeps"
    ):
        run.execute(config, quiet=True)


def test_where_nothing_fits_no_batch_is_named(
    room_for: Callable[[int], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(0)
    monkeypatch.setattr(fitting_batch, "_FIRST_ON_CPU", 2)
    for size, said in ((2, "): 1 does not fit, so a smaller"), (1, "): a smaller")):
        config = Config(**TINY, batch_size=size, run_dir=str(tmp_path / f"{size}"))
        with pytest.raises(UserError) as raised:
            run.execute(config, quiet=True)
        assert str(raised.value).endswith(f"{said} --image_size or another --backbone needs less.")
    config = Config.parse({**TINY, "batch_size": "auto", "run_dir": str(tmp_path / "auto")})
    with pytest.raises(UserError, match="--batch_size=auto: 1 and 2 do not fit: a smaller --image_size"):
        run.execute(config, quiet=True)
    assert not (tmp_path / "auto").exists(), "nothing is written before a batch is found"


def test_where_nobody_can_try_a_half_is_named(
    room_for: Callable[[int], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(24)
    config = Config(**TINY, batch_size=100, run_dir=str(tmp_path / "r"))
    monkeypatch.setattr("trainer.training.batch_size.HostMemory.allows", lambda self, batch: False)
    with pytest.raises(UserError, match=r"\): half of it, --batch_size=50, may fit, and --accumulation_steps=2 keeps"):
        run.execute(config, quiet=True)


def test_memory_that_other_things_lack_is_not_the_batchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")

    monkeypatch.setattr(run, "features_once", without_memory)
    config = Config(**TINY, run_dir=str(tmp_path / "r"))
    with pytest.raises(UserError, match=r"not enough memory \(OOM when .*shape\[9\]\): a smaller --image_size or"):
        run.execute(config, quiet=True)


def test_auto_trains_as_with_the_number_that_it_found(
    room_for: Callable[[int], list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room_for(24)
    flags = ["--data=synthetic:2", "--image_size=8", "--examples_per_class=64", "--epochs=1", "--export="]
    flags.append("--optimizer=sgd")
    assert run_task(*flags, "--batch_size=auto", f"--run_dir={tmp_path}/auto") == EXIT_DONE
    said = " ".join(capsys.readouterr().out.split())
    assert "batch auto: 16 images; 8 and 16 fit, 32 does not" in said and "8 steps of 16 images" in said
    assert config_there(tmp_path / "auto")["batch_size"] == 16
    assert run_task(*flags, "--batch_size=16", f"--run_dir={tmp_path}/given") == EXIT_DONE
    assert differences(variables_of(tmp_path / "given"), variables_of(tmp_path / "auto")) == []
    statuses = [status_of(tmp_path / name) for name in ("auto", "given")]
    assert statuses[0]["config_fingerprint"] == statuses[1]["config_fingerprint"]


def test_a_run_goes_on_with_the_batch_that_it_began_with(
    room_for: Callable[[int], list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**TINY, "checkpoint_steps": 2, "steps_per_loop": 1, "inject": ("nan@5",), "run_dir": str(tmp_path / "r")}
    config = Config.parse({**fields, "batch_size": "auto"})
    with pytest.MonkeyPatch.context() as small, pytest.raises(UserError, match="became nan at step 6"):
        small.setattr(fitting_batch, "MOST_ON_CPU", 8)
        run.execute(config, quiet=True)
    assert config_there(tmp_path / "r")["batch_size"] == 8
    rows_seen = room_for(1000)
    assert run.execute(config) == EXIT_DONE
    assert set(rows_seen) == {8}, "no other batch is tried"
    said = " ".join(capsys.readouterr().out.split())
    assert "batch auto: 8 images, as this run began" in said and re.search("resume from step [24],", said)
    whole = config.with_batch_size(8).model_copy(update={"inject": (), "run_dir": str(tmp_path / "whole")})
    assert run.execute(whole, quiet=True) == EXIT_DONE
    assert differences(variables_of(tmp_path / "whole"), variables_of(tmp_path / "r")) == []
    in_pieces = config.model_copy(update={"accumulation_steps": 3})
    with pytest.raises(UserError, match="--accumulation_steps=3 does not divide the 8 images"):
        run.execute(in_pieces, quiet=True)
    other = config.model_copy(update={"epochs": 2})
    with pytest.raises(UserError, match="holds another run: --epochs is 2 here and 1 there. Give"):
        run.execute(other, quiet=True)


def test_a_dry_run_shows_the_batch_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting_batch, "MOST_ON_CPU", 8)
    config = Config.parse({**TINY, "batch_size": "auto", "run_dir": str(tmp_path / "r")})
    assert run.execute(config, dry_run=True) == EXIT_DONE
    said = capsys.readouterr().out
    assert '"batch_size": 8,' in said and "16 steps of 8 images" in said
    assert not (tmp_path / "r").exists()


def found(config: Config) -> tuple[int, str]:
    """The batch that `--batch_size=auto` takes, and what is said of it."""
    out = io.StringIO()
    console = Console(out=out)
    prepared = with_fitting_batch_size(prepare(config, connect(config), console), console)
    return prepared.config.batch_size, " ".join(out.getvalue().split())


@pytest.mark.parametrize(
    ("fields", "tried"),
    [
        ({"strategy": "mirrored", "virtual_devices": 3}, [6, 12, 24, 48]),
        ({"accumulation_steps": 5}, [5, 10, 20, 40, 80]),
        ({"accumulation_steps": 3, "cutmix": 1.0}, [6, 12, 24, 48]),
        ({"strategy": "mirrored", "virtual_devices": 3, "accumulation_steps": 5, "mixup": 0.1}, [30, 60]),
        ({"strategy": "mirrored", "virtual_devices": 4, "accumulation_steps": 40}, [160]),
    ],
)
def test_whatever_shares_a_batch_divides_those_that_are_tried(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], tried: list[int]
) -> None:
    batches: list[int] = []

    def trial_of(prepared: Prepared, built: Built) -> Callable[[int], bool]:
        def trial(batch: int) -> bool:
            check_batch(prepared.config.with_batch_size(batch), prepared.cluster)
            batches.append(batch)
            return batch < 48 or len(batches) == 1

        return trial

    monkeypatch.setattr(fitting_batch, "StepTrial", trial_of)
    batch, _ = found(Config.parse({**TINY, **fields, "batch_size": "auto"}))
    assert batches == tried and batch == max(tried[0], *(size for size in tried if size < 48), 0)


def test_the_evaluation_must_fit_too(room_for: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(8)
    evaluated: list[int] = []
    monkeypatch.setattr(EvaluationStep, "__call__", hungry(EvaluationStep.__call__, 16, evaluated))
    batch, said = found(Config.parse({**TINY, "batch_size": "auto", "accumulation_steps": 4}))
    assert batch == 16 and "8 and 16 fit, 32 does not" in said and evaluated == [8, 16, 32]


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_what_is_tried_is_what_the_run_then_does(cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With features that are computed once, the step is that of the head alone."""
    shapes: list[tuple[str, dict[str, tuple[tf.TensorShape, tf.DType]]]] = []

    def noting(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: object, batch: Mapping[str, tf.Tensor]) -> Any:
            shapes.append((name, {key: (value.shape, value.dtype) for key, value in batch.items()}))
            return step(self, batch)

        return noted

    for each in (TrainStep, EvaluationStep):
        monkeypatch.setattr(each, "__call__", noting(each.__name__, each.__call__))
    module = modules.with_training(tmp_path / "module")
    fields = {**TINY, "backbone": str(module), "feature_cache": cache, "image_size": 0, "ema_decay": 0.0}
    config = Config.parse({**fields, "batch_size": "auto", "run_dir": str(tmp_path / "r")})
    monkeypatch.setattr(fitting_batch, "MOST_ON_CPU", 8)
    assert found(config)[0] == 8
    tried = shapes[-2:]
    shapes.clear()
    assert run.execute(config.with_batch_size(8), quiet=True) == EXIT_DONE
    assert [name for name, _ in tried] == ["TrainStep", "EvaluationStep"]
    for step in tried:
        assert step in shapes
    assert ("features" in tried[0][1]) == (cache == "auto") and ("image" in tried[0][1]) == (cache == "off")


def test_the_model_of_the_search_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[Any]] = []

    def build_and_note(prepared: Prepared) -> Built:
        built = build(prepared)
        models.append(weakref.ref(built.model))
        return built

    monkeypatch.setattr(fitting_batch, "build", build_and_note)
    monkeypatch.setattr(fitting_batch, "MOST_ON_CPU", 16)
    gc.disable()
    try:
        assert found(Config.parse({**TINY, "batch_size": "auto"}))[0] == 16
        assert len(models) == 1 and models[0]() is None
    finally:
        gc.enable()


def test_a_worker_tries_its_own_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three workers, each with two replicas; the others say what this one does."""
    config = Config.parse({**TINY, "batch_size": "auto"})
    real = connect(config)
    topology = Topology(("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), "worker", 1, has_chief_type=False)

    class SixReplicas(Cluster):
        replicas = 6

        def gather(self, values: Any) -> np.ndarray:
            return np.repeat(np.asarray(values, np.float64)[np.newaxis], 3, axis=0)

    tried: list[int] = []

    def trial_on(prepared: Prepared, built: Built) -> Callable[[int], bool]:
        assert isinstance(prepared.cluster.strategy, tf.distribute.OneDeviceStrategy)
        assert prepared.cluster.replicas == prepared.cluster.workers == 1

        def trial(batch: int) -> bool:
            tried.append(batch)
            return True

        return trial

    monkeypatch.setattr(fitting_batch, "StepTrial", trial_on)
    allowed: list[float] = []
    monkeypatch.setattr(fitting_batch, "HostMemory", lambda share: allowed.append(share))
    cluster = SixReplicas(real.strategy, "CPU", "three workers", topology=topology)
    prepared = with_fitting_batch_size(prepare(config, cluster, Console(quiet=True)), Console(quiet=True))
    assert prepared.config.batch_size == 96
    assert tried == [2, 4, 8, 16, 32]
    assert allowed == [0.5 / 3]


@pytest.mark.long
def test_two_workers_find_one_batch(tmp_path: Path) -> None:
    flags = [
        "--data=synthetic:2",
        "--image_size=8",
        "--examples_per_class=8",
        "--batch_size=auto",
        "--epochs=1",
        "--export=",
    ]
    done = train(tmp_path / "r", 2, flags)
    assert done.code == EXIT_DONE, done.log
    assert "auto: 16 images; 8 and 16 fit" in done.log
    assert config_there(tmp_path / "r")["batch_size"] == 16 and status_of(tmp_path / "r")["step"] == 1


def test_preflight_wants_a_number() -> None:
    with pytest.raises(UserError, match="--batch_size=auto is found by trying on the devices themselves: give"):
        trace_steps(Config.parse({**TINY, "batch_size": "auto"}), 2)


ALLOCATOR_BYTES = 100_000_000

TRAIN_UNDER_A_LIMIT = """
import json, sys
from trainer import run
from trainer.config import Config
from trainer.errors import UserError

fields = {"data": "synthetic:2", "image_size": 32, "examples_per_class": 64, "epochs": 1, "export": ()}
answers = []
for batch in (128, "auto"):
    config = Config.parse({**fields, "batch_size": batch, "run_dir": f"{sys.argv[1]}/{batch}"})
    try:
        answers.append(run.execute(config, quiet=True))
    except UserError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.mark.long
@pytest.mark.timeout(280)
def test_an_allocator_that_is_full_names_the_batch_that_auto_finds_and_trains(tmp_path: Path) -> None:
    """Nothing pretended: TensorFlow's CPU allocator, told to take no more (by oneDNN's variable, TensorFlow 2.21).

    It waits ten seconds before it says so.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_UNDER_A_LIMIT, str(tmp_path)],
        env=os.environ
        | {"TF_MKL_ALLOC_MAX_BYTES": f"{ALLOCATOR_BYTES}", "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        timeout=250,
    )
    if done.returncode == -signal.SIGSEGV:  # Seen in one of four: a kernel of oneDNN that does not look at what it got.
        pytest.skip("TensorFlow's CPU kernels crashed where its allocator refused")
    assert done.returncode == 0, done.stderr[-2000:]
    refused, trained = json.loads(done.stdout.splitlines()[-1])
    if refused == EXIT_DONE:
        pytest.skip("this TensorFlow's CPU allocator takes no limit: it is built without oneDNN")
    assert refused.startswith("There is not enough memory for --batch_size=128 (OOM when allocating tensor")
    named = re.search(r"the largest to try is --batch_size=(\d+) \(.* fit, (\d+) does not\)", refused)
    assert named and 8 <= int(named[1]) < 128 and int(named[2]) == 2 * int(named[1])
    assert trained == EXIT_DONE
    assert config_there(tmp_path / "auto")["batch_size"] == int(named[1])
