"""Text modules: loaded, trained on every strategy, exported with their vocabulary, and told apart from others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import modules
import numpy as np
import pytest
import tensorflow as tf
import text_modules
from csv_files import NEGATIVE, POSITIVE, reviews, write_csv
from tensorflow.core.protobuf import saved_model_pb2

from trainer import run
from trainer.cluster import connect
from trainer.config import Config
from trainer.errors import EXIT_DONE, UserError
from trainer.features.engine import Engine
from trainer.model.endpoint import FEATURE_VECTORS
from trainer.model.handles import resolve
from trainer.model.hub import HubModule, load_module
from trainer.preflight.readiness import check_program
from trainer.preflight.steps import trace_steps
from trainer.preparation import build, build_step, prepare, training_input
from trainer.records.console import Console
from trainer.training.evaluation import Evaluator

WORDS = (*POSITIVE, *NEGATIVE)

STEPS = 6

CLOSE = 1e-5
"""Largest difference of a weight or loss between one replica and two."""


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_modules.hashing(tmp_path_factory.mktemp("hashing") / "module")


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its vocabulary is called as the class names are in an export."""
    return text_modules.with_vocabulary(tmp_path_factory.mktemp("vocabulary") / "module", WORDS, file_name="labels.txt")


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("csv") / "reviews.csv", reviews(120))


def load(folder: Path) -> HubModule:
    return load_module(str(folder), str(folder), 0, FEATURE_VECTORS["text"])


def config(csv: Path, module: Path, **fields: Any) -> Config:
    return Config.parse({"data": f"csv:{csv}", "backbone": str(module), "epochs": 2, "batch_size": 12} | fields)


class Trained(NamedTuple):
    """The loss of each step, the trained weights, and the loss of every validation example."""

    losses: list[float]
    weights: list[np.ndarray]
    validation: np.ndarray


def train(settings: Config, steps: int = STEPS) -> Trained:
    cluster = connect(settings)
    prepared = prepare(settings, cluster, Console(quiet=True))
    built = build(prepared)
    step, strategy = build_step(prepared, built), cluster.strategy

    @tf.function
    def train_step(batch: Any) -> tf.Tensor:
        losses = strategy.run(step, args=(batch,))["loss"]
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    dataset = training_input(prepared, built.model, first_step=0, last_step=steps)
    losses = [float(train_step(batch)) for batch in iter(dataset)]
    evaluator = Evaluator(cluster, built.model, prepared.source, settings.batch_size)
    weights = [variable.numpy() for variable in built.optimizer.variables]
    return Trained(losses, weights, evaluator(prepared.splits.validation).losses)


def copy_of(folder: Path, place: Path) -> tuple[Path, saved_model_pb2.SavedModel]:
    """A copy of a module, and its graph, to be changed."""
    copy = Path(shutil.copytree(folder, place / "copy"))
    return copy, saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())


class TestLoading:
    """What a module that takes texts is, and what it is not."""

    @pytest.mark.parametrize("signatures_only", [False, True])
    def test_words_of_the_vocabulary_are_found(self, signatures_only: bool, tmp_path: Path) -> None:
        folder = text_modules.with_vocabulary(tmp_path / "m", WORDS, signatures_only=signatures_only)
        module = load(folder)
        assert (module.image_size, module.feature_size) == (None, text_modules.FEATURE_SIZE)
        assert [variable.shape for variable in module.trainable_variables] == [(len(WORDS) + 1, 4)]
        (vectors,) = module.variables
        features = module.apply(tf.constant(["Great awful", "unknown", "", "größe hate"]), False).numpy()
        first, last = vectors[WORDS.index("great")], vectors[WORDS.index("awful")]
        np.testing.assert_allclose(features[0], (first + last) / 2, atol=1e-6)
        np.testing.assert_array_equal(features[2], np.zeros(4))
        assert np.abs(features[3] - features[1]).max() > 0.01

    @pytest.mark.parametrize(
        ("build", "complaint"),
        [
            (
                modules.with_training,
                r"takes float32 \[batch, 8, 8, 3\] and gives .*, where string \[batch\] is to give",
            ),
            (modules.with_training, "Image modules go with --data=folder:PATH"),
            (modules.tf1_format, r"is no feature vector module for texts: it takes float32 \[batch, 8, 8, 3\]"),
            (
                lambda folder: modules.computing(folder, tf.TensorSpec([2], tf.string), lambda x: tf.zeros([2, 3])),
                r"it takes string \[2\]",
            ),
            (
                lambda folder: modules.computing(folder, tf.TensorSpec([None]), lambda x: tf.stack([x, x], axis=1)),
                r"it takes float32 \[batch\]",
            ),
            (
                lambda folder: modules.computing(folder, text_modules.TEXTS, tf.strings.length),
                r"gives int32 \[batch\], where float \[batch, features\] is expected",
            ),
            (
                lambda folder: modules.computing(
                    folder,
                    text_modules.TEXTS,
                    lambda x: {
                        "probabilities": tf.zeros([tf.size(x), 2]),
                        "label": x,
                        "class_id": tf.strings.length(x),
                    },
                ),
                "is no feature vector module for texts: it takes string",
            ),
        ],
    )
    def test_another_module_is_described(self, build: Callable[[Path], Path], complaint: str, tmp_path: Path) -> None:
        folder = build(tmp_path / "m")
        with pytest.raises(UserError, match=complaint):
            load(folder)

    def test_with_images_a_text_module_is_refused_before_training(self, hashing: Path, tmp_path: Path) -> None:
        settings = Config(data="digits", backbone=str(hashing), run_dir=str(tmp_path / "run"))
        with pytest.raises(
            UserError, match=r"for images: it takes string \[batch\].* Text modules go with --data=csv:"
        ):
            run.execute(settings, quiet=True)
        assert not (tmp_path / "run").exists()

    def test_the_old_format_is_refused(self, tmp_path: Path) -> None:
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            texts = v1.placeholder(tf.string, [None])
            features = tf.cast(tf.strings.length(texts), tf.float32)[:, tf.newaxis]
            signature = v1.saved_model.predict_signature_def({"text": texts}, {"default": features})
            builder = v1.saved_model.Builder(str(tmp_path / "m"))
            builder.add_meta_graph_and_variables(session, [], {"default": signature})
            builder.save()
        (tmp_path / "m" / "tfhub_module.pb").write_bytes(b"\x08\x03")
        with pytest.raises(UserError, match="in the old TF1 format, of which only image modules can be used"):
            load(tmp_path / "m")


class TestFiles:
    """A vocabulary may come from a file of the module's own, and from nowhere else."""

    def test_its_own_file(self, looked_up: Path) -> None:
        assert resolve(str(looked_up)) == str(looked_up)

    def test_the_real_module(self, hub_module: Callable[[str], Path]) -> None:
        folder = str(hub_module("text_imdb_embedding_16d"))
        assert resolve(folder) == folder

    def test_a_file_that_the_graph_names(self, tmp_path: Path) -> None:
        folder = text_modules.with_vocabulary(tmp_path / "m", WORDS, path="/etc/passwd")
        with pytest.raises(
            UserError, match="is refused: its graph has InitializeTableFromTextFile of a file that is no"
        ):
            resolve(str(folder))

    @pytest.mark.parametrize("change", ["constant", "argument"])
    def test_a_file_that_is_bound_to_something_else(self, change: str, looked_up: Path, tmp_path: Path) -> None:
        folder, saved = copy_of(looked_up, tmp_path)
        objects = saved.meta_graphs[0].object_graph_def
        asset = next(node for node in objects.nodes if node.WhichOneof("kind") == "asset")
        if change == "constant":
            asset.constant.operation = "Const"
        else:
            for function in objects.concrete_functions.values():
                del function.bound_inputs[:]
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        with pytest.raises(UserError, match="is refused: .* of a file that is no asset of the module"):
            resolve(str(folder))

    @pytest.mark.parametrize("name", ["../../secret.txt", "/labels.txt"])
    def test_an_asset_elsewhere(self, name: str, looked_up: Path, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text("great", encoding="utf-8")
        folder, saved = copy_of(looked_up, tmp_path)
        saved.meta_graphs[0].asset_file_def[0].filename = name
        (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
        with pytest.raises(UserError, match=f"is refused: its graph has an asset that lies elsewhere, {name},"):
            resolve(str(folder))

    @pytest.mark.parametrize("is_asset", [True, False])
    def test_the_old_format(self, is_asset: bool, tmp_path: Path) -> None:
        folder = text_modules.tf1_with_table(tmp_path / "m", is_asset=is_asset)
        if is_asset:
            assert load_module(resolve(str(folder)), str(folder), 0).feature_size == 3
        else:
            with pytest.raises(UserError, match="of a file that is no asset of the module"):
                resolve(str(folder))


class TestTraining:
    """One replica and two train the same."""

    @pytest.mark.parametrize("fields", [{"feature_cache": "off"}, {"train_backbone": True}], ids=["frozen", "tuned"])
    def test_two_replicas_are_one(self, fields: dict[str, Any], csv: Path, looked_up: Path) -> None:
        fields = fields | {"optimizer": "adam", "learning_rate": 0.01, "dropout": 0.3}
        one = train(config(csv, looked_up, **fields))
        two = train(config(csv, looked_up, **fields, strategy="mirrored", virtual_devices=2))
        np.testing.assert_allclose(two.losses, one.losses, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(two.validation, one.validation, rtol=0, atol=CLOSE)
        for weight, other in zip(one.weights, two.weights, strict=True):
            np.testing.assert_allclose(other, weight, rtol=0, atol=CLOSE)
        assert len(one.losses) == STEPS and len(one.weights) == (3 if "train_backbone" in fields else 2)

    def test_pieces_of_a_batch_train_as_the_whole(self, csv: Path, hashing: Path) -> None:
        fields = {"train_backbone": True, "optimizer": "adam", "learning_rate": 0.01}
        whole, pieces = (train(config(csv, hashing, **fields, accumulation_steps=count)) for count in (1, 3))
        np.testing.assert_allclose(pieces.losses, whole.losses, rtol=0, atol=CLOSE)
        for weight, other in zip(whole.weights, pieces.weights, strict=True):
            np.testing.assert_allclose(other, weight, rtol=0, atol=CLOSE)

    def test_a_word_that_comes_twice_counts_once_with_both(self, tmp_path: Path) -> None:
        """Adam squares the gradient of a word: that of the sum of its rows, not each row's."""
        folder = text_modules.with_vocabulary(tmp_path / "m", WORDS)
        file = write_csv(tmp_path / "t.csv", [(f"great {i}", "pos") for i in range(20)] + [("x", "neg")] * 20)
        settings = config(file, folder, train_backbone=True, optimizer="adam", learning_rate=0.125, schedule="constant")
        before = load(folder).variables[0].numpy()
        trained = train(settings, steps=1)
        moved = np.abs(next(weight for weight in trained.weights if weight.shape == before.shape) - before)
        # Adam's first step is the learning rate in every direction that has any gradient.
        np.testing.assert_allclose(moved[WORDS.index("great")], 0.125, atol=1e-3)


class TestWholeRuns:
    """From a CSV file to an export that serves texts."""

    @pytest.fixture(scope="class")
    @staticmethod
    def finished(csv: Path, looked_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("text_run") / "run"
        settings = config(csv, looked_up, epochs=8, run_dir=str(folder))
        assert run.execute(settings, quiet=True) == EXIT_DONE
        return folder

    def test_it_learns_and_serves_texts(self, finished: Path) -> None:
        status = json.loads((finished / "status.json").read_text(encoding="utf-8"))
        assert status["state"] == "done" and status["test"]["accuracy"] > 0.8
        served = tf.saved_model.load(str(finished / "export")).signatures
        assert list(served) == ["serving_default"]
        answers = served["serving_default"](text=tf.constant(["great superb love", "hate boring", ""]))
        assert set(answers) == {"probabilities", "label", "class_id"}
        assert answers["label"].numpy().tolist()[:2] == [b"pos", b"neg"]
        assert answers["class_id"].numpy().tolist()[:2] == [1, 0]
        np.testing.assert_allclose(answers["probabilities"].numpy().sum(axis=1), 1, atol=1e-6)

    def test_too_low_an_accuracy_is_that_of_texts(self, csv: Path, looked_up: Path, tmp_path: Path) -> None:
        fields = {"epochs": 1, "learning_rate": 1e-6, "min_accuracy": 0.99, "run_dir": str(tmp_path / "run")}
        with pytest.raises(UserError, match=r"on the \d+ test texts is 0\.\d+, below --min_accuracy=0\.99"):
            run.execute(config(csv, looked_up, **fields), quiet=True)

    def test_the_vocabulary_is_in_both_exports_and_the_labels_keep_their_name(self, finished: Path) -> None:
        def files(folder: Path) -> dict[str, list[str]]:
            return {file.name: file.read_text(encoding="utf-8").split() for file in (folder / "assets").iterdir()}

        assert files(finished / "export") == {"labels.txt": ["neg", "pos"], "labels.txt_1": list(WORDS)}
        assert files(finished / "export" / "feature_vector") == {"labels.txt": list(WORDS)}

    def test_the_exported_module_is_a_text_module_again(self, finished: Path, csv: Path, looked_up: Path) -> None:
        module, original = load(finished / "export" / "feature_vector"), load(looked_up)
        texts = tf.constant(["great the film", "", "worst"])
        np.testing.assert_array_equal(module.apply(texts, False), original.apply(texts, False))
        again = config(csv, finished / "export" / "feature_vector", train_backbone=True)
        assert len(train(again, steps=2).weights) == 3

    def test_the_whole_classifier_is_no_text_module(self, finished: Path) -> None:
        with pytest.raises(UserError, match=r"no feature vector module for texts: .* Did you mean .*feature_vector\?"):
            load(finished / "export")

    def test_features_are_found_again_whatever_their_lines(
        self, finished: Path, csv: Path, looked_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise AssertionError("features were computed again")

        monkeypatch.setattr(Engine, "extractor", fail)
        turned = write_csv(tmp_path / "t.csv", reviews(120)[::-1])
        settings = config(turned, looked_up, epochs=1, run_dir=str(tmp_path / "run"), export=())
        assert run.execute(settings, quiet=True) == EXIT_DONE

    def test_a_finished_run_is_recognised_and_other_texts_are_refused(
        self, finished: Path, csv: Path, looked_up: Path, tmp_path: Path
    ) -> None:
        settings = config(csv, looked_up, epochs=8, run_dir=str(finished))
        turned = write_csv(tmp_path / "t.csv", reviews(120)[::-1])
        assert run.execute(settings.model_copy(update={"data": f"csv:{turned}"}), quiet=True) == EXIT_DONE
        other = write_csv(tmp_path / "other.csv", reviews(119))
        with pytest.raises(UserError, match="The examples are not those that the run in .* was started with"):
            run.execute(settings.model_copy(update={"data": f"csv:{other}"}), quiet=True)

    @pytest.mark.slow
    def test_the_real_module(self, hub_module: Callable[[str], Path], csv: Path, tmp_path: Path) -> None:
        module = hub_module("text_imdb_embedding_16d")
        fields = {
            "strategy": "mirrored",
            "virtual_devices": 2,
            "train_backbone": True,
            "run_dir": str(tmp_path / "run"),
        }
        assert run.execute(config(csv, module, **fields), quiet=True) == EXIT_DONE
        status = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))
        assert status["test"]["accuracy"] > 0.9
        assert load(tmp_path / "run" / "export" / "feature_vector").feature_size == 16


def test_on_a_tpu_the_head_of_a_frozen_module_is_trained_on_features(csv: Path, looked_up: Path) -> None:
    programs = trace_steps(config(csv, looked_up, strategy="tpu"), replicas=2)
    assert {spec.name: spec.dtype for _, spec in programs.train.inputs} == {
        "features": tf.float32,
        "index": tf.int32,
        "label": tf.int32,
        "row": tf.int32,
    }
    assert check_program(programs.train) == check_program(programs.evaluate) == []
