"""`python -m trainer.apply`: any module with image inputs, and one sentence where something does not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import image_folders
import modules
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from trainer import apply
from trainer.apply import Request
from trainer.data.images import ImageInput, unit_range
from trainer.errors import EXIT_DONE, UserError

ANY_SIZE = (None, None, None, 3)
CONTENT, STYLE = image_folders.gradient(24, 36), image_folders.gradient(30, 20, shift=99)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    """A content image and a style image."""
    for name, pixels in (("content.png", CONTENT), ("style.png", STYLE)):
        (tmp_path / name).write_bytes(image_folders.encoded(pixels))
    return str(tmp_path / "content.png"), str(tmp_path / "style.png")


def stylized(content: Any, style: Any) -> Any:
    """Content in the mean colour of the style."""
    colour = tf.reduce_mean(style, [1, 2], keepdims=True)
    return 0.5 * tf.reduce_mean(content, 3, keepdims=True) + 0.5 * colour


def style_transfer(folder: Path) -> Path:
    """Two images of any size to a list of one, as the best known module for it."""

    class Module(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec(ANY_SIZE, name="content"), tf.TensorSpec(ANY_SIZE, name="painting")]
        )
        def __call__(self, content: tf.Tensor, painting: tf.Tensor) -> list[tf.Tensor]:
            return [stylized(content, painting)]

    return modules.save(Module(), folder)


def style_signature(folder: Path) -> Path:
    """The same as a signature alone, whose inputs are sorted by name: the style comes first."""

    @tf.function(input_signature=[tf.TensorSpec(ANY_SIZE, name="z_content"), tf.TensorSpec(ANY_SIZE, name="a_style")])
    def serve(z_content: tf.Tensor, a_style: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": stylized(z_content, a_style)}

    return modules.save(tf.Module(), folder, signatures={"serving_default": serve})


def run(module: Path, output: Path, *inputs: str, image_size: int = 0) -> str:
    out = io.StringIO()
    assert apply.apply(Request(str(module), inputs, str(output), image_size), out, io.StringIO()) == EXIT_DONE
    return out.getvalue()


def expected_style() -> np.ndarray:
    content, style = (tf.constant(pixels[np.newaxis], tf.float32) / 255 for pixels in (CONTENT, STYLE))
    return np.round(stylized(content, style)[0].numpy() * 255)


def test_style_transfer_takes_two_images_and_gives_one(pictures: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "new folder" / "stylized.png"
    printed = run(style_transfer(tmp_path / "module"), output, *pictures)
    np.testing.assert_allclose(np.asarray(Image.open(output)).astype(float), expected_style(), atol=1)
    assert printed.splitlines() == [
        "takes    content: float32 [batch, any, any, 3]",
        "takes    painting: float32 [batch, any, any, 3]",
        "gives    output: float32 [1, 24, 36, 3]",
        f"output   {output}",
    ]


def test_inputs_of_a_signature_go_by_the_order_that_is_printed(pictures: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "stylized.png"
    printed = run(style_signature(tmp_path / "module"), output, pictures[1], pictures[0])
    np.testing.assert_allclose(np.asarray(Image.open(output)).astype(float), expected_style(), atol=1)
    assert printed.index("a_style") < printed.index("z_content")


def test_pictures_are_reduced_where_the_size_is_open(pictures: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "stylized.png"
    run(style_transfer(tmp_path / "module"), output, *pictures, image_size=18)
    assert Image.open(output).size == (18, 12)
    run(style_transfer(tmp_path / "module"), output, *pictures, image_size=500)
    assert Image.open(output).size == (36, 24)


@pytest.mark.parametrize(
    "build", [modules.with_training, modules.with_momentum, modules.signatures_only, modules.tf1_format]
)
def test_a_feature_vector_is_numbers(build: Any, pictures: tuple[str, str], tmp_path: Path) -> None:
    run(build(tmp_path / "module"), tmp_path / "features.json", pictures[0])
    (found,) = json.loads((tmp_path / "features.json").read_text(encoding="utf-8")).values()
    pixels = unit_range(ImageInput(modules.IMAGE_SIZE, "squash")(tf.constant(CONTENT)))
    expected = tf.reduce_mean(pixels, [0, 1])[tf.newaxis] @ modules.kernel() - 0.5
    assert (found["dtype"], found["shape"]) == ("float32", [1, modules.FEATURE_SIZE])
    np.testing.assert_allclose(found["values"], expected, atol=1e-6)


def test_a_module_that_demands_a_momentum_gets_one(pictures: tuple[str, str], tmp_path: Path) -> None:
    run(modules.with_momentum(tmp_path / "module", required=True), tmp_path / "features.json", pictures[0])
    assert "values" in (tmp_path / "features.json").read_text(encoding="utf-8")


def test_several_outputs_are_named_in_json_and_one_image_among_them_is_a_png(
    pictures: tuple[str, str], tmp_path: Path
) -> None:
    def compute(images: tf.Tensor) -> dict[str, Any]:
        not_finite = tf.constant([np.nan, -np.inf, 0.5])
        return {"z": [tf.constant("größe"), not_finite], "image": 255 - images, "a": tf.constant(3)}

    module = modules.computing(tmp_path / "module", modules.images_spec(*ANY_SIZE, dtype=tf.uint8), compute)
    run(module, tmp_path / "negative.png", pictures[0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "negative.png")), 255 - CONTENT)
    run(module, tmp_path / "all.json", pictures[0])
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert list(found) == ["a", "image", "z/0", "z/1"]
    assert found["z/0"] == {"dtype": "string", "shape": [], "values": "größe"}
    assert found["z/1"]["values"] == [None, None, 0.5]
    assert np.array_equal(found["image"]["values"][0], 255 - CONTENT)


def test_a_grey_module_gets_and_gives_one_channel(pictures: tuple[str, str], tmp_path: Path) -> None:
    module = modules.computing(tmp_path / "module", modules.images_spec(None, 10, 20, 1), lambda images: images)
    run(module, tmp_path / "grey.png", pictures[0])
    image = Image.open(tmp_path / "grey.png")
    assert (image.mode, image.size) == ("L", (20, 10))


class TestSentences:
    """What does not fit ends in one sentence, and no file is written."""

    def refused(self, sentence: str, module: Path, output: Path, *inputs: str) -> None:
        with pytest.raises(UserError, match=sentence) as error:
            run(module, output, *inputs)
        assert "backbone" not in str(error.value)
        assert not output.exists()

    def test_too_few_and_too_many_inputs(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        module = style_transfer(tmp_path / "module")
        wanted = r"takes 2 images, \{content: float32 .*, painting: float32 .*\}, and --input names"
        self.refused(f"{wanted} 1:", module, tmp_path / "a.png", pictures[0])
        self.refused(f"{wanted} 3:", module, tmp_path / "a.png", *pictures, pictures[0])

    def test_an_answer_that_does_not_suit_the_file(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        style = style_transfer(tmp_path / "style")
        self.refused(r"gives an image: let --output end in \.png", style, tmp_path / "a.json", *pictures)
        vector = modules.inference_only(tmp_path / "vector")
        self.refused(
            r"gives \{output: float32 \[1, 4\]\}, and no image .* end in \.json",
            vector,
            tmp_path / "a.png",
            *pictures[:1],
        )

    def test_floats_far_from_0_to_1_are_no_image(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        spec = modules.images_spec(*ANY_SIZE)
        module = modules.computing(tmp_path / "module", spec, lambda images: images * 255)
        self.refused("no image", module, tmp_path / "a.png", pictures[0])
        run(module, tmp_path / "a.json", pictures[0])

    def test_two_images_are_too_many_for_a_png(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        spec = modules.images_spec(*ANY_SIZE)
        module = modules.computing(tmp_path / "module", spec, lambda images: (images, 1 - images))
        self.refused("gives several images, 0, 1, and a PNG holds one", module, tmp_path / "a.png", pictures[0])

    def test_modules_without_image_inputs(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        module = modules.text_input(tmp_path / "module")
        self.refused(r"takes \{.*: string \[batch\]\}, and not images alone", module, tmp_path / "a.json", pictures[0])

    def test_a_module_that_fails(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        def crop(images: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(images, [1, 5, 5, 3])

        module = modules.computing(tmp_path / "module", modules.images_spec(*ANY_SIZE), crop)
        self.refused(r"cannot be called with \{.*\[1, 24, 36, 3\]\}", module, tmp_path / "a.png", pictures[0])

    def test_a_module_that_reads_files_and_a_damaged_picture(self, pictures: tuple[str, str], tmp_path: Path) -> None:
        def leak(images: tf.Tensor) -> tf.Tensor:
            return tf.strings.length(tf.io.read_file("/etc/hostname"))

        module = modules.computing(tmp_path / "leak", modules.images_spec(*ANY_SIZE), leak)
        self.refused(f"^{module} is refused: its graph has ReadFile", module, tmp_path / "a.json", pictures[0])
        Path(pictures[0]).write_bytes(b"x")
        fine = modules.inference_only(tmp_path / "fine")
        self.refused(f"--input={pictures[0]} cannot be used: not a JPEG", fine, tmp_path / "a.json", pictures[0])

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["module"], "Give one module, --input and --output"),
            (["module", "other", "--input=x", "--output=a.png"], "Give one module, --input and --output"),
            (["module", "--input=x", "--output=a.jpg"], "--output=a.jpg must end in .png or .json"),
            (["module", "--input=nowhere.jpg", "--output=a.png"], "--input=nowhere.jpg: there is no such file"),
        ],
    )
    def test_the_command_line(self, arguments: list[str], sentence: str) -> None:
        values = flags.FlagValues()
        apply.define_flags(values)
        with pytest.raises(UserError, match=sentence):
            apply.request_from_flags(values, self.rest(values, arguments))

    @staticmethod
    def rest(values: flags.FlagValues, arguments: list[str]) -> list[str]:
        values.set_gnu_getopt(True)
        return list(values(["apply", *arguments])[1:])
