"""Handles to folders, folders to modules: what is accepted, what is refused and in which words."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import modules
import numpy as np
import pytest
import tensorflow as tf
from hub_server import HubServer, archive_of

from trainer.errors import UserError
from trainer.model.endpoint import size_in_name
from trainer.model.handles import resolve
from trainer.model.hub import HubModule, load_module

pytestmark = pytest.mark.strategies

SHARD = "variables/variables.data-00000-of-00001"
MOBILENET = "tf2-preview_mobilenet_v2_feature_vector_4"
SMALL_MOBILENET = "mobilenet_v2_035_224_feature_vector"
TF1_MOBILENET = "tf1_hub_mobilenet_v2_035_224"


def load(folder: Path, image_size: int = 0, handle: str = "") -> HubModule:
    return load_module(str(folder), handle or str(folder), image_size)


def images(batch: int, size: int, seed: int = 0) -> tf.Tensor:
    return tf.random.stateless_uniform([batch, size, size, 3], [seed, 1])


def expected_features(pixels: tf.Tensor) -> np.ndarray:
    return np.mean(pixels, axis=(1, 2)) @ modules.kernel() - 0.5


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module as its publisher saved it; tests copy it before they break it."""
    return modules.with_training(tmp_path_factory.mktemp("published") / "module")


@pytest.fixture
def module_folder(published: Path, tmp_path: Path) -> Path:
    """A copy of the module that a test may break."""
    return Path(shutil.copytree(published, tmp_path / "my module"))


# Folders


def test_a_folder_is_taken_as_it_is(module_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(module_folder.parent))
    assert resolve(str(module_folder)) == str(module_folder)
    assert resolve(f"{module_folder}/") == str(module_folder)
    assert resolve("~/my module") == str(module_folder)


@pytest.mark.parametrize(
    "broken", ["saved_model.pb", "variables", "variables/variables.index", SHARD], ids=lambda name: name.split("/")[-1]
)
@pytest.mark.parametrize("repair", [False, True])
def test_what_a_folder_misses_is_named_and_nothing_is_deleted(module_folder: Path, broken: str, repair: bool) -> None:
    path = module_folder / broken
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    left = sorted(module_folder.rglob("*"))
    with pytest.raises(UserError, match=f"{broken.split('/')[-1]}.* missing"):
        resolve(str(module_folder), repair=repair)
    assert sorted(module_folder.rglob("*")) == left


@pytest.mark.parametrize("broken", ["saved_model.pb", "variables/variables.index", SHARD])
def test_an_empty_file_counts_as_missing(module_folder: Path, broken: str) -> None:
    (module_folder / broken).write_bytes(b"")
    with pytest.raises(UserError, match=f"{broken} is missing or empty"):
        resolve(str(module_folder))


def test_every_shard_that_the_names_promise_must_be_there(module_folder: Path) -> None:
    (module_folder / SHARD).rename(module_folder / "variables/variables.data-00000-of-00002")
    with pytest.raises(UserError, match=r"variables.data-00001-of-00002 is missing"):
        resolve(str(module_folder))


def test_a_truncated_saved_model_is_found(module_folder: Path) -> None:
    path = module_folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"saved_model.pb is damaged"):
        resolve(str(module_folder))


def test_a_missing_asset_is_found(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("daisy\n", encoding="utf-8")
    module = tf.train.Checkpoint(words=tf.saved_model.Asset(str(words)))
    folder = modules.save(module, tmp_path / "module")
    assert resolve(str(folder)) == str(folder)
    (folder / "assets/words.txt").unlink()
    with pytest.raises(UserError, match=r"assets/words.txt is missing"):
        resolve(str(folder))


def test_a_module_without_variables_is_complete(tmp_path: Path) -> None:
    folder = modules.rank_4(tmp_path / "module")
    assert resolve(str(folder)) == str(folder)


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "module.tar.gz").write_bytes(b"x")
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        resolve(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is an archive: unpack it"):
        resolve(str(tmp_path / "module.tar.gz"))
    with pytest.raises(UserError, match="is a file: give its folder"):
        resolve(str(tmp_path / "saved_model.pb"))


def test_the_folder_inside_is_suggested(module_folder: Path) -> None:
    with pytest.raises(UserError, match=f"Did you mean {module_folder}?"):
        resolve(str(module_folder.parent))


# The web


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that serves the module as /google/tiny/1, and an empty cache."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HubServer()
    server.archives["/google/tiny/1"] = archive_of(published)
    yield server
    server.close()


def cached_name(address: str) -> str:
    return hashlib.sha1(address.encode()).hexdigest()


def test_a_handle_is_fetched_once(hub: HubServer, tmp_path: Path) -> None:
    handle = f"{hub.address}/google/tiny/1"
    folder = resolve(handle)
    assert folder == str(tmp_path / "cache" / cached_name(handle))
    assert load(Path(folder)).feature_size == modules.FEATURE_SIZE
    assert resolve(handle) == folder
    assert resolve(handle, repair=True) == folder
    assert resolve(f"{handle}?tf-hub-format=compressed") == folder
    assert hub.requests == ["/google/tiny/1?tf-hub-format=compressed"]


def test_a_mirror_stands_in_for_tfhub_dev_only(hub: HubServer) -> None:
    folder = resolve("https://tfhub.dev/google/tiny/1", mirror=f"{hub.address}/")
    assert folder.endswith(cached_name(f"{hub.address}/google/tiny/1"))
    hub.archives["/other"] = hub.archives["/google/tiny/1"]
    resolve(f"{hub.address}/other", mirror="http://mirror.invalid")
    assert hub.requests == ["/google/tiny/1?tf-hub-format=compressed", "/other?tf-hub-format=compressed"]


def test_a_half_deleted_copy_is_named_and_mended_by_the_flag(hub: HubServer) -> None:
    handle = f"{hub.address}/google/tiny/1"
    hub.archives["/other"] = hub.archives["/google/tiny/1"]
    other = Path(resolve(f"{hub.address}/other"))
    folder = Path(resolve(handle))
    (folder / SHARD).unlink()
    (folder / "stale").touch()
    with pytest.raises(UserError, match=f"{folder} is incomplete: {SHARD} is missing.*--repair_hub_cache"):
        resolve(handle)
    assert (folder / "stale").exists()

    assert resolve(handle, repair=True) == str(folder)
    assert (folder / SHARD).exists() and not (folder / "stale").exists()
    assert (other / SHARD).exists()
    assert len(hub.requests) == 3


@pytest.mark.parametrize("damage", ["flipped bit", "cut off"])
def test_repair_finds_damage_inside_a_file(hub: HubServer, damage: str) -> None:
    handle = f"{hub.address}/google/tiny/1"
    shard = Path(resolve(handle)) / SHARD
    good = shard.read_bytes()
    shard.write_bytes(good[:10] if damage == "cut off" else bytes([good[0] ^ 1]) + good[1:])
    resolve(handle, repair=True)
    assert shard.read_bytes() == good


def test_repair_ends_when_the_server_has_no_complete_module(hub: HubServer, module_folder: Path) -> None:
    (module_folder / SHARD).unlink()
    hub.archives["/google/tiny/1"] = archive_of(module_folder)
    with pytest.raises(UserError, match="serves is no complete SavedModel"):
        resolve(f"{hub.address}/google/tiny/1", repair=True)
    assert len(hub.requests) == 2


@pytest.mark.parametrize(("status", "reason"), [(403, "HTTP 403 Forbidden"), (404, "HTTP 404 Not Found")])
def test_a_refusal_is_explained(hub: HubServer, tmp_path: Path, status: int, reason: str) -> None:
    hub.refusals["/google/tiny/1"] = status
    handle = f"{hub.address}/google/tiny/1"
    with pytest.raises(UserError, match=f"--backbone={handle}.*{reason}.*give its folder"):
        resolve(handle)
    assert not (tmp_path / "cache" / cached_name(handle)).exists()


@pytest.mark.parametrize("body", [b"<html>sign in</html>", None], ids=["page", "cut off"])
def test_what_is_no_archive_is_explained(hub: HubServer, tmp_path: Path, body: bytes | None) -> None:
    hub.archives["/google/tiny/1"] = body or hub.archives["/google/tiny/1"][:-500]
    handle = f"{hub.address}/google/tiny/1"
    with pytest.raises(UserError, match="cannot be fetched"):
        resolve(handle)
    assert not (tmp_path / "cache" / cached_name(handle)).exists()


def test_no_network_names_the_ways_out(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    monkeypatch.setenv("https_proxy", hub.address)
    with pytest.raises(UserError, match=r"Connection refused.*--hub_mirror=https.*give its folder"):
        resolve("https://tfhub.dev/google/tiny/1")


def test_a_cache_that_cannot_be_written_is_explained(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(stream: object, folder: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.model.handles.unpack", no_space)
    with pytest.raises(UserError, match=r"cannot be stored .*No space left.*TFHUB_CACHE_DIR"):
        resolve(f"{hub.address}/google/tiny/1")


def test_only_a_cached_copy_is_ever_deleted(hub: HubServer, module_folder: Path, tmp_path: Path) -> None:
    (module_folder / SHARD).unlink()
    handle = f"{hub.address}/google/tiny/1"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / cached_name(handle)).symlink_to(module_folder)
    with pytest.raises(UserError, match="it is not deleted"):
        resolve(handle, repair=True)
    assert (module_folder / "saved_model.pb").exists()


# Modules


RIGHT_MODULES: dict[str, tuple[Callable[[Path], Path], str, bool]] = {
    "training": (modules.with_training, "reusable", True),
    "tensor_training": (modules.with_tensor_training, "reusable", True),
    "momentum": (modules.with_momentum, "reusable", True),
    "required_momentum": (lambda folder: modules.with_momentum(folder, required=True), "reusable", True),
    "inference": (modules.inference_only, "reusable", False),
    "signature": (modules.signatures_only, "signature", False),
    "tf1": (modules.tf1_format, "tf1", False),
}


@pytest.mark.parametrize("name", RIGHT_MODULES)
def test_all_kinds_give_the_same_features(name: str, tmp_path: Path) -> None:
    build, kind, takes_training = RIGHT_MODULES[name]
    module = load(build(tmp_path / name))
    assert (module.kind, module.takes_training) == (kind, takes_training)
    assert (module.image_size, module.feature_size) == (modules.IMAGE_SIZE, modules.FEATURE_SIZE)
    pixels = images(3, 8)
    features = module.apply(pixels, False)
    assert features.dtype == tf.float32 and features.shape == (3, modules.FEATURE_SIZE)
    np.testing.assert_allclose(features, expected_features(pixels), atol=1e-6)
    names = sorted(variable.name for variable in module.variables)
    assert [name for name in names if "calls" not in name] == ["tiny/dense/kernel:0", "tiny/norm/moving_mean:0"]
    assert [variable.name for variable in module.trainable_variables] == ([] if kind == "tf1" else names[-2:-1])


def test_the_publishers_momentum_is_kept(tmp_path: Path) -> None:
    module = load(modules.with_momentum(tmp_path / "module"))
    (moving_mean,) = [variable for variable in module.variables if "moving_mean" in variable.name]
    pixels = images(2, 8)
    module.apply(pixels, True)
    batch_mean = np.mean(expected_features(pixels) + 0.5, axis=0)
    np.testing.assert_allclose(moving_mean, 0.25 * 0.5 + 0.75 * batch_mean, rtol=1e-6)


def all_rows(pixels: tf.Tensor) -> tf.Tensor:
    """All pixels as features, by way of an operation that hides both the batch and the number of features."""
    rows = tf.boolean_mask(pixels, tf.ones([tf.shape(pixels)[0]], tf.bool))
    return tf.reshape(rows, tf.stack([tf.shape(rows)[0], tf.size(rows) // tf.shape(rows)[0]]))


def test_what_the_module_leaves_open_is_found_by_asking(tmp_path: Path) -> None:
    module = load(modules.computing(tmp_path / "module", modules.images_spec(), all_rows))
    assert module.feature_size == 8 * 8 * 3
    traced = tf.function(lambda pixels: module.apply(pixels, False), autograph=False)
    assert traced.get_concrete_function(tf.TensorSpec([5, 8, 8, 3])).output_shapes == (5, 8 * 8 * 3)


def test_an_output_is_chosen_by_name_or_by_shape(tmp_path: Path) -> None:
    def named(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": -features, "feature_vector": features, "map": features[:, None, None]}

    def only(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"best": tf.argmax(features, -1), "map": features[:, None], "embedding": features}

    def two(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": -features, "embedding": features}

    pixels = images(2, 8)
    for outputs in (named, only):
        module = load(modules.signatures_only(tmp_path / outputs.__name__, outputs))
        np.testing.assert_allclose(module.apply(pixels, False), expected_features(pixels), atol=1e-6)
    with pytest.raises(UserError, match=r"logits: float32 \[batch, 4\].*which is the feature vector"):
        load(modules.signatures_only(tmp_path / "two", two))


def test_the_feature_vector_comes_before_the_default_signature(tmp_path: Path) -> None:
    @tf.function(input_signature=[modules.images_spec()])
    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": tf.reduce_mean(images, [1, 2]) @ tf.ones([3, 9])}

    @tf.function(input_signature=[modules.images_spec()])
    def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": tf.reduce_mean(images, [1, 2])}

    signatures = {"default": classify, "image_feature_vector": embed}
    assert load(modules.save(tf.Module(), tmp_path / "module", signatures=signatures)).feature_size == 3


def test_a_signature_is_chosen_by_name_or_is_the_only_one(tmp_path: Path) -> None:
    assert load(modules.signatures_only(tmp_path / "one", names=("embed",))).feature_size == modules.FEATURE_SIZE
    with pytest.raises(UserError, match="none of its signatures a, b is called"):
        load(modules.signatures_only(tmp_path / "two", names=("a", "b")))


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (modules.no_callable, "neither be called nor does it have signatures"),
        (modules.rank_4, r"takes float32 \[batch, 8, 8, 3\] and gives float32 \[batch, 4, 4, 3\]"),
        (modules.text_input, r"takes string \[batch\] and gives float32 \[batch, 4\]"),
        (modules.integer_input, r"takes uint8 \[batch, 8, 8, 3\]"),
    ],
)
def test_a_wrong_module_is_described(build: Callable[[Path], Path], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        load(build(tmp_path / "module"))


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((None, 8, 16, 3), "takes images of 8 x 16; only square"),
        ((None, 8, 8, 1), r"takes float32 \[batch, 8, 8, 1\]"),
        ((1, 8, 8, 3), r"takes float32 \[1, 8, 8, 3\]"),
        ((None, 8, 3), r"takes float32 \[batch, 8, 3\]"),
    ],
)
def test_wrong_images_are_described(shape: tuple[int | None, ...], complaint: str, tmp_path: Path) -> None:
    spec = modules.images_spec(*shape)
    folder = modules.computing(tmp_path / "module", spec, lambda images: tf.zeros([tf.shape(images)[0], 4]))
    with pytest.raises(UserError, match=complaint):
        load(folder)


def test_integer_features_are_refused(tmp_path: Path) -> None:
    folder = modules.computing(
        tmp_path / "module", modules.images_spec(), lambda images: tf.cast(images[:, 0, 0], tf.int32)
    )
    with pytest.raises(UserError, match=r"gives int32 \[batch, 3\]"):
        load(folder)


def test_the_size_is_the_modules_or_the_users_or_in_the_name(tmp_path: Path) -> None:
    fixed = modules.inference_only(tmp_path / "fixed")
    with pytest.raises(UserError, match=r"--image_size=16: .*takes images of 8 pixels only"):
        load(fixed, image_size=16)
    free = modules.inference_only(tmp_path / "free", modules.images_spec(None, None, None, 3))
    assert load(free, image_size=16).image_size == 16
    assert load(free, handle="https://hub/mobilenet_v2_100_96/feature_vector/5").image_size == 96
    with pytest.raises(UserError, match="any size; choose one with --image_size"):
        load(free, handle="https://hub/resnet_v2_152/feature_vector/5")


@pytest.mark.parametrize(
    ("handle", "size"),
    [
        ("https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5", 224),
        ("https://tfhub.dev/google/imagenet/mobilenet_v2_035_96/feature_vector/5", 96),
        ("https://tfhub.dev/google/imagenet/resnet_v2_50/feature_vector/5", 0),
        ("https://tfhub.dev/google/imagenet/resnet_v2_152/feature_vector/5", 0),
        ("https://tfhub.dev/sayakpaul/deit_tiny_patch16_224/1", 224),
        ("https://tfhub.dev/google/tf2-preview/inception_v3/feature_vector/4", 0),
        ("/models/vit_384/", 384),
    ],
)
def test_the_size_in_a_name(handle: str, size: int) -> None:
    assert size_in_name(handle) == size


def test_a_module_that_cannot_be_read_is_explained(module_folder: Path) -> None:
    shard = module_folder / SHARD
    shard.write_bytes(shard.read_bytes()[:10])
    with pytest.raises(UserError, match="TensorFlow cannot load"):
        load(module_folder)


def test_the_real_module(hub_module: Callable[[str], Path]) -> None:
    module = load(hub_module(MOBILENET))
    assert (module.kind, module.image_size, module.feature_size) == ("reusable", 224, 1280)
    assert module.takes_training
    assert (len(module.variables), len(module.trainable_variables)) == (260, 156)
    assert len(module.regularization_losses) == 1 and float(module.regularization_losses[0]()) > 0
    assert module.apply(images(2, 224), False).shape == (2, 1280)


@pytest.mark.slow
def test_three_formats_of_one_real_module_agree(
    hub_module: Callable[[str], Path], flower_photos: Path, tmp_path: Path
) -> None:
    names = sorted(flower_photos.glob("*/*.jpg"))[::1000]
    decoded = [tf.io.decode_jpeg(name.read_bytes(), channels=3) for name in names]
    pixels = tf.stack([tf.image.resize(photo, [224, 224]) / 255.0 for photo in decoded])
    reusable = load(hub_module(SMALL_MOBILENET))
    expected = reusable.apply(pixels, False)

    tf1 = load(hub_module(TF1_MOBILENET))
    assert (tf1.kind, len(tf1.variables), tf1.trainable) == ("tf1", 260, False)
    np.testing.assert_allclose(tf1.apply(pixels, False), expected, atol=1e-5)

    loaded = tf.saved_model.load(str(hub_module(SMALL_MOBILENET)))
    bare = tf.train.Checkpoint(held=tf.train.Checkpoint(**{f"v{i}": v for i, v in enumerate(loaded.variables)}))
    modules.save(bare, tmp_path / "signature", signatures=loaded.signatures["serving_default"])
    signature = load(tmp_path / "signature")
    assert (signature.kind, len(signature.variables), len(signature.trainable_variables)) == ("signature", 260, 156)
    np.testing.assert_allclose(signature.apply(pixels, False), expected, atol=1e-5)


def test_a_real_text_module_is_refused(hub_module: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"takes string \[batch\] and gives float32 \[batch, 16\]"):
        load(hub_module("text_imdb_embedding_16d"))
