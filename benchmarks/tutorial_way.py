"""The peer: the TensorFlow Hub tutorials' way, tf_keras with `hub.KerasLayer` and `fit`, on a given split.

    python benchmarks/tutorial_way.py SPLIT.json MODULE --epochs=6 --seed=0 --save=FOLDER

SPLIT.json has "train", "validation" and "test", each a list of [path, label], and "classes". Prints one JSON line
with the accuracies and the seconds of the process when the classifier is trained and tested; then saves it, if asked
to. It uses nothing of `trainer`.
"""

from __future__ import annotations

import argparse
import json
import os
import time

START = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf  # noqa: E402
import tensorflow_hub as hub  # noqa: E402
import tf_keras  # noqa: E402


def images(examples: list[list[str | int]], size: int, batch_size: int, shuffle: bool) -> tf.data.Dataset:
    """Batches of (float images in [0, 1], labels) as the tutorials make them: decode, resize, divide by 255."""
    dataset = tf.data.Dataset.from_tensor_slices(([path for path, _ in examples], [label for _, label in examples]))
    if shuffle:
        dataset = dataset.shuffle(len(examples))

    def load(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(pixels, (size, size)) / 255.0, label

    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Trains, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split")
    parser.add_argument("module")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="folder to save the classifier to as a SavedModel")
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    with open(options.split, encoding="utf-8") as file:
        split = json.load(file)
    size = options.image_size
    model = tf_keras.Sequential(
        [
            hub.KerasLayer(options.module, input_shape=(size, size, 3), trainable=False),
            tf_keras.layers.Dropout(options.dropout),
            tf_keras.layers.Dense(len(split["classes"])),
        ]
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    train = images(split["train"], size, options.batch_size, shuffle=True)
    validation = images(split["validation"], size, options.batch_size, shuffle=False)
    history = model.fit(train, epochs=options.epochs, validation_data=validation, verbose=2).history
    test = images(split["test"], size, options.batch_size, shuffle=False)
    result = {
        "validation": {"accuracy": history["val_accuracy"][-1], "examples": len(split["validation"])},
        "test": {"accuracy": model.evaluate(test, verbose=0)[1], "examples": len(split["test"])},
    }
    print(json.dumps(result | {"seed": options.seed, "seconds": time.perf_counter() - START}), flush=True)
    if options.save:
        model.save(options.save)


if __name__ == "__main__":
    main()
