"""What the tutorials need, for a machine without the internet: data and stand-ins for modules, in one folder.

    python tutorials/prepare.py DATA FOLDER [--photos_per_class=N]

DATA holds the archives that `tests` use too (its README lists them). FOLDER gets

    flower_photos/     the photos, in class folders
    tensorflow_datasets/    the same as the prepared TFDS data set tf_flowers
    mobilenet_v2_100/  mobilenet_v2_035/    two real feature vector modules
    classifier/        the first with its ImageNet head: 1001 classes
    inception/         in place of Inception-v3: takes 299 pixels as that does, and computes what mobilenet_v2_035 does
    style/             in place of a style transfer network: gives one picture the colors of another
    ImageNetLabels.txt grace_hopper.jpg

Where the internet can be reached none of it is needed: the pages name the real handles.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from variables import environment

MODULES = {
    "mobilenet_v2_100": "tf2-preview_mobilenet_v2_feature_vector_4.tar.gz",
    "mobilenet_v2_035": "mobilenet_v2_035_224_feature_vector.tar.gz",
}
IMAGENET_HEAD = "mobilenet_v2_100_224_logits_uint8.npz"
INCEPTION_SIZE, MOBILENET_SIZE = 299, 224


def prepare(data: Path, folder: Path, photos_per_class: int = 0) -> None:
    """Fills the folder.

    Args:
      data: where the archives lie.
      folder: made if it is not there; what it has already is kept.
      photos_per_class: keep so many photos of each class; 0: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, archive in MODULES.items():
        if not (folder / name).exists():
            _unpack(data / archive, folder / name)
    for name in ("ImageNetLabels.txt", "grace_hopper.jpg"):
        shutil.copyfile(data / name, folder / name)
    if not (folder / "flower_photos").exists():
        _unpack(data / "flower_photos_224.tar", folder)
        if photos_per_class:
            _thin_out(folder / "flower_photos", photos_per_class)
    if not (folder / "classifier").exists():
        _save_classifier(folder / "mobilenet_v2_100", data / IMAGENET_HEAD, folder / "classifier")
    if not (folder / "inception").exists():
        _save_inception(folder / "mobilenet_v2_035", folder / "inception")
    if not (folder / "style").exists():
        tf.saved_model.save(_ColorTransfer(), str(folder / "style"))
    if not (folder / "tensorflow_datasets/tf_flowers").exists():
        _prepare_data_set(folder / "flower_photos", folder / "tensorflow_datasets")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _thin_out(photos: Path, per_class: int) -> None:
    for kind in sorted(path for path in photos.iterdir() if path.is_dir()):
        for photo in sorted(kind.iterdir())[per_class:]:
            photo.unlink()


def _save_classifier(module: Path, head: Path, target: Path) -> None:
    """Photos to 1001 logits."""
    with np.load(head) as arrays:
        levels = arrays["kernel_uint8"].astype(np.float32) - arrays["zero_point"].astype(np.float32)
        kernel = arrays["scale"] * levels
        bias = arrays["bias"]
    classifier = tf.Module()
    classifier.module = tf.saved_model.load(str(module))
    classifier.kernel, classifier.bias = tf.Variable(kernel), tf.Variable(bias)

    @tf.function(input_signature=[tf.TensorSpec([None, MOBILENET_SIZE, MOBILENET_SIZE, 3], tf.float32)])
    def call(images: tf.Tensor) -> tf.Tensor:
        return classifier.module(images, training=False) @ classifier.kernel + classifier.bias

    classifier.__call__ = call
    tf.saved_model.save(classifier, str(target))


class _ColorTransfer(tf.Module):
    """Two batches of pictures to the first one with the mean and spread of the second one's colors.

    After Reinhard, Ashikhmin, Gooch and Shirley, "Color Transfer between Images", 2001, in RGB.
    """

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32, "content"),
            tf.TensorSpec([None, None, None, 3], tf.float32, "style"),
        ]
    )
    def __call__(self, content: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(content, [1, 2], keepdims=True)
        wanted_mean, wanted_variance = tf.nn.moments(style, [1, 2], keepdims=True)
        scaled = (content - mean) * tf.sqrt(wanted_variance / (variance + 1e-6)) + wanted_mean
        return tf.clip_by_value(scaled, 0.0, 1.0)


def _save_inception(module: Path, target: Path) -> None:
    wrapped = tf.Module()
    wrapped.module = tf.saved_model.load(str(module))
    size = [MOBILENET_SIZE, MOBILENET_SIZE]

    @tf.function
    def call(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return wrapped.module(tf.image.resize(images, size), training=training)

    spec = tf.TensorSpec([None, INCEPTION_SIZE, INCEPTION_SIZE, 3], tf.float32)
    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    wrapped.__call__ = call
    wrapped.regularization_losses = []
    tf.saved_model.save(wrapped, str(target))


def _prepare_data_set(photos: Path, data_dir: Path) -> None:
    import tensorflow_datasets as tfds

    class TfFlowers(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        """The photos, under the name and with the features of the catalog's data set."""

        VERSION = tfds.core.Version("3.0.1")

        def _info(self) -> Any:
            names = sorted(path.name for path in photos.iterdir() if path.is_dir())
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, str]]]:
            for photo in sorted(photos.glob("*/*.jpg")):
                yield f"{photo.parent.name}/{photo.name}", {"image": str(photo), "label": photo.parent.name}

    TfFlowers(data_dir=str(data_dir)).download_and_prepare()


def main() -> None:
    """Reads the command line, and prints the variables for a shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos_per_class", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    prepare(options.data, folder, options.photos_per_class)
    for name, path in environment(folder).items():
        print(f"export {name}={path}")


if __name__ == "__main__":
    main()
