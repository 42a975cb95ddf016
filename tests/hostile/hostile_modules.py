"""SavedModels whose graphs do what no module needs to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import modules
import numpy as np
import tensorflow as tf


def _zero(value: tf.Tensor) -> tf.Tensor:
    """A zero that depends on a string."""
    return tf.cast(tf.strings.length(value), tf.float32) * 0.0


def _writing(images: tf.Tensor) -> tf.Tensor:
    tf.io.write_file("/tmp/hostile", "x")
    return tf.reduce_mean(images, [1, 2])


def _writing_in_a_branch(images: tf.Tensor) -> tf.Tensor:
    def write() -> tf.Tensor:
        tf.io.write_file("/tmp/hostile", "x")
        return tf.constant(1.0)

    return tf.reduce_mean(images, [1, 2]) * tf.cond(tf.shape(images)[0] > 5, write, lambda: tf.constant(1.0))


def _writing_in_a_called_function(images: tf.Tensor) -> tf.Tensor:
    @tf.function
    def inner(values: tf.Tensor) -> tf.Tensor:
        return _writing(values)

    return inner(images)


def _printing_to_a_file(images: tf.Tensor) -> tf.Tensor:
    tf.print("x", output_stream="file:///tmp/hostile")
    return tf.reduce_mean(images, [1, 2])


def _reading_data(images: tf.Tensor) -> tf.Tensor:
    lines = tf.data.TextLineDataset("/etc/passwd").take(1).get_single_element()
    return tf.reduce_mean(images, [1, 2]) + _zero(lines)


def _calling_python(images: tf.Tensor) -> tf.Tensor:
    result = tf.reduce_mean(images, [1, 2]) + tf.numpy_function(lambda: np.float32(0), [], tf.float32)
    return tf.ensure_shape(result, [None, 3])


def _saving(images: tf.Tensor) -> tf.Tensor:
    tf.raw_ops.SaveV2(prefix="/tmp/hostile", tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1)])
    return tf.reduce_mean(images, [1, 2])


def _gradient_that_writes(images: tf.Tensor) -> tf.Tensor:
    @tf.custom_gradient
    def identity(values: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            tf.io.write_file("/tmp/hostile", "x")
            return upstream

        return tf.identity(values), gradient

    return tf.reduce_mean(identity(images), [1, 2])


def _reading(images: tf.Tensor, path: str = "/etc/passwd") -> tf.Tensor:
    return tf.reduce_mean(images, [1, 2]) + _zero(tf.io.read_file(path))


def _matching(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(images, [1, 2]) + _zero(tf.strings.reduce_join(tf.io.matching_files("/etc/*")))


def _restoring(images: tf.Tensor) -> tf.Tensor:
    value = tf.raw_ops.RestoreV2(prefix="/x", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    return tf.reduce_mean(images, [1, 2]) + tf.ensure_shape(value, [])


def _mapping_memory(images: tf.Tensor) -> tf.Tensor:
    mapped = tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[3], memory_region_name="/etc/passwd")
    return tf.reduce_mean(images, [1, 2]) + mapped


def _aborting(images: tf.Tensor) -> tf.Tensor:
    tf.raw_ops.Abort(error_msg="", exit_without_error=True)
    return tf.reduce_mean(images, [1, 2])


COMPUTING: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], str]] = {
    "writes": (_writing, "WriteFile"),
    "writes in a branch": (_writing_in_a_branch, "WriteFile"),
    "writes in a called function": (_writing_in_a_called_function, "WriteFile"),
    "writes in a gradient": (_gradient_that_writes, "WriteFile"),
    "prints to a file": (_printing_to_a_file, "PrintV2"),
    "reads": (_reading, "ReadFile"),
    "reads from a bucket": (lambda images: _reading(images, "gs://bucket/secret"), "ReadFile"),
    "looks for files": (_matching, "MatchingFiles"),
    "reads data": (_reading_data, "Dataset"),
    "restores": (_restoring, "RestoreV2"),
    "saves": (_saving, "SaveV2"),
    "maps memory": (_mapping_memory, "ImmutableConst"),
    "calls Python": (_calling_python, "PyFunc"),
    "aborts": (_aborting, "Abort"),
}
"""What a module computes, and the operation that the sentence names."""


def with_table(folder: Path, asset: Path, computed: bool) -> Path:
    """A module with a table from a text file: an asset, or a file whose name the graph computes."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.lookup.StaticVocabularyTable(
                tf.lookup.TextFileInitializer(str(asset), tf.string, 0, tf.int64, 1), 1
            )

        @tf.function(input_signature=[modules.images_spec()])
        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            found = tf.cast(self.table.lookup(tf.constant(["cat"])), tf.float32)
            if computed:
                other = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
                tf.raw_ops.InitializeTableFromTextFileV2(
                    table_handle=other,
                    filename=tf.strings.join(["gs://bucket/", tf.strings.as_string(found[0])]),
                    key_index=-2,
                    value_index=-1,
                )
            return tf.reduce_mean(images, [1, 2]) + found

    return modules.save(Module(), folder)


def tf1_that_writes(folder: Path, where: str) -> Path:
    """A module in the old format that writes when it is called, initialised or restored."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, modules.IMAGE_SIZE, modules.IMAGE_SIZE, 3])
        weight = v1.get_variable("w", initializer=np.ones(3, np.float32), use_resource=True)
        write = v1.raw_ops.WriteFile(filename="/tmp/hostile", contents="x")
        with tf.control_dependencies([write] if where == "signature" else []):
            features = tf.reduce_mean(images, [1, 2]) * weight
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": features})
        saver = v1.train.Saver()
        if where == "restoration":
            saver.saver_def.restore_op_name = v1.group(
                session.graph.get_operation_by_name("save/restore_all"), write
            ).name
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session, [], {"default": signature}, saver=saver, main_op=write if where == "initialisation" else None
        )
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return folder


TF1_PLACES = ("signature", "initialisation", "restoration")

FLIPS = 32
"""How many times one bit of a module's graph is another."""

COUNT = len(COMPUTING) + len(TF1_PLACES) + 1 + FLIPS
