"""SavedModels that do more than to turn images into features: refused before TensorFlow loads them."""

from __future__ import annotations

from pathlib import Path

import hostile_modules
import modules
import pytest
from google.protobuf import text_format
from mutations import flips
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from trainer.errors import UserError
from trainer.model.graph_ops import _REACHES_OUT
from trainer.model.handles import resolve
from trainer.model.hub import load_module


@pytest.mark.parametrize("name", hostile_modules.COMPUTING)
def test_the_operation_is_named(name: str, tmp_path: Path) -> None:
    compute, operation = hostile_modules.COMPUTING[name]
    folder = modules.computing(tmp_path / "m", modules.images_spec(), compute)
    with pytest.raises(UserError, match=rf"--backbone={folder} is refused: its graph has \w*{operation}.*no files"):
        resolve(str(folder))


@pytest.mark.parametrize("where", hostile_modules.TF1_PLACES)
def test_the_old_format_is_looked_at_too(where: str, tmp_path: Path) -> None:
    folder = hostile_modules.tf1_that_writes(tmp_path / "m", where)
    with pytest.raises(UserError, match=r"is refused: its graph has WriteFile"):
        resolve(str(folder))


def test_a_damaged_graph_is_explained_or_loaded(tmp_path: Path) -> None:
    """It has no checksum, so a number in it may have become another; but no error comes through as it is."""
    folder = modules.with_training(tmp_path / "m")
    file = folder / "saved_model.pb"
    refused = 0
    for content in flips(file.read_bytes(), hostile_modules.FLIPS).values():
        file.write_bytes(content)
        try:
            load_module(resolve(str(folder)), str(folder), 0)
        except UserError as error:
            assert f"--backbone={folder}" in str(error)
            refused += 1
    assert 0 < refused < hostile_modules.FLIPS


def test_a_graph_written_as_text_is_looked_at_too(tmp_path: Path) -> None:
    folder = modules.computing(tmp_path / "m", modules.images_spec(), hostile_modules.COMPUTING["reads"][0])
    file = folder / "saved_model.pb"
    parsed = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(parsed), encoding="utf-8")
    file.unlink()
    with pytest.raises(UserError, match=r"is refused: its graph has ReadFile"):
        resolve(str(folder))


def test_a_table_may_be_filled_from_an_asset_and_from_no_file_whose_name_is_computed(tmp_path: Path) -> None:
    asset = tmp_path / "labels.txt"
    asset.write_text("cat\t1\n", encoding="utf-8")
    good = hostile_modules.with_table(tmp_path / "good", asset, computed=False)
    asset.unlink()
    assert load_module(resolve(str(good)), str(good), 0).feature_size == 3
    bad = hostile_modules.with_table(tmp_path / "bad", good / "assets" / "labels.txt", computed=True)
    with pytest.raises(
        UserError, match=r"is refused: its graph has InitializeTableFromTextFile of a file that is no asset"
    ):
        resolve(str(bad))


def test_modules_as_publishers_save_them_are_taken(tmp_path: Path) -> None:
    """They all have functions that write checkpoints, which nothing calls."""
    for build in (modules.with_training, modules.with_momentum, modules.signatures_only, modules.tf1_format):
        folder = build(tmp_path / build.__name__)
        assert resolve(str(folder)) == str(folder)
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        assert "SaveV2" in str(saved.meta_graphs[0].graph_def)


@pytest.mark.parametrize(
    "operation",
    [
        "ReadVariableOp",
        "StatefulPartitionedCall",
        "TensorArrayReadV3",
        "HashTableV2",
        "LookupTableFindV2",
        "Log",
        "Copy_",
    ]
    + ["DebugNumericSummaryV2", "ScalarSummary", "DeepCopy", "LogSoftmax", "RngReadAndSkip", "XlaCallModule", "Assert"],
)
def test_what_modules_need_is_not_among_the_refused(operation: str) -> None:
    assert not _REACHES_OUT.fullmatch(operation)


def test_the_names_are_those_of_this_tensorflow() -> None:
    """So that a renamed operation is noticed."""
    for operation in ("ReadFile", "WriteFile", "MatchingFiles", "EagerPyFunc", "PyFuncStateless", "SaveV2", "Abort"):
        assert op_def_registry.get(operation) is not None and _REACHES_OUT.fullmatch(operation)
