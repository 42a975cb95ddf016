"""Tiny text modules for tests: strings `[batch]` to the mean of their words' vectors, float `[batch, 4]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modules
import numpy as np
import tensorflow as tf

FEATURE_SIZE = 4
_BUCKETS = 64

TEXTS = tf.TensorSpec([None], tf.string, name="sentences")


def _mean_of(vectors: tf.Variable, rows: tf.RaggedTensor) -> tf.Tensor:
    """The mean over the words of each text, float32 `[batch, 4]`; zero where it has none."""
    found = tf.RaggedTensor.from_row_splits(tf.gather(vectors, rows.values), rows.row_splits)
    return tf.math.divide_no_nan(tf.reduce_sum(found, axis=1), tf.cast(rows.row_lengths(), tf.float32)[:, tf.newaxis])


def _vectors(rows: int) -> tf.Variable:
    values = np.random.default_rng(0).normal(size=(rows, FEATURE_SIZE)).astype(np.float32)
    return tf.Variable(values, name="words/embeddings")


def hashing(folder: Path) -> Path:
    """Words are hashed into the rows of a trainable table of vectors."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors = _vectors(_BUCKETS)

        @tf.function(input_signature=[TEXTS])
        def __call__(self, sentences: tf.Tensor) -> tf.Tensor:
            return _mean_of(self.vectors, tf.strings.to_hash_bucket_fast(tf.strings.split(sentences), _BUCKETS))

    return modules.save(Module(), folder)


def with_vocabulary(
    folder: Path,
    words: tuple[str, ...],
    *,
    file_name: str = "vocabulary.txt",
    path: str = "",
    signatures_only: bool = False,
) -> Path:
    """Words are looked up in a table that is filled from a file, an asset; others have a vector in common.

    Args:
      folder: where to save it.
      words: in the order of the vectors.
      file_name: of the asset.
      path: fill the table from this file instead, which is no asset.
      signatures_only: it cannot be called, and serves as serving_default.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = folder.parent / file_name
    vocabulary.write_text("\n".join(words), encoding="utf-8")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            file = tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.table = tf.lookup.StaticHashTable(file, len(words))
            self.vectors = _vectors(len(words) + 1)

        @tf.function(input_signature=[TEXTS])
        def embed(self, sentences: tf.Tensor) -> tf.Tensor:
            if path:
                other = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
                tf.raw_ops.InitializeTableFromTextFileV2(
                    table_handle=other, filename=path, key_index=-2, value_index=-1
                )
            return _mean_of(self.vectors, self.table.lookup(tf.strings.split(tf.strings.lower(sentences))))

    class Callable(Module):
        @tf.function(input_signature=[TEXTS])
        def __call__(self, sentences: tf.Tensor) -> tf.Tensor:
            return self.embed(sentences)

    module: Any = Module() if signatures_only else Callable()
    signatures = {"serving_default": module.embed} if signatures_only else None
    modules.save(module, folder, signatures=signatures)
    vocabulary.unlink()  # What is in the module is all there is.
    return folder


def tf1_with_table(folder: Path, *, is_asset: bool) -> Path:
    """An image module in the old format, with a table from a file that is an asset, or is merely named."""
    v1 = tf.compat.v1
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / "words.txt"
    file.write_text("cat\ndog", encoding="utf-8")
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, modules.IMAGE_SIZE, modules.IMAGE_SIZE, 3])
        whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        initializer = tf.lookup.TextFileInitializer(str(file), tf.string, whole, tf.int64, number)
        table = tf.lookup.StaticHashTable(initializer, -1)
        found = tf.cast(table.lookup(tf.constant("dog")), tf.float32)
        weight = v1.get_variable("w", initializer=np.ones(3, np.float32), use_resource=True)
        features = tf.reduce_mean(images, [1, 2]) * weight + found
        session.run(v1.global_variables_initializer())
        if not is_asset:
            session.graph.clear_collection(v1.GraphKeys.ASSET_FILEPATHS)
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": features})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            [],
            {"default": signature},
            assets_collection=session.graph.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return folder
