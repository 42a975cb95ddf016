"""Runs a module of TensorFlow Hub on pictures as it is, and says what it takes and gives.

    python -m trainer.apply HANDLE --input=photo.jpg --input=painting.jpg --output=stylized.png
    python -m trainer.apply HANDLE --input=photo.jpg --output=features.json

HANDLE is a folder, gs:// or https://. Inputs are given in the order in which the module's are printed. An answer that
is an image, uint8 or floats in [0, 1], is written as PNG; all else as JSON: of each output "dtype", "shape" and
"values".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from absl import flags

from trainer.errors import EXIT_DONE, UserError
from trainer.program import define_download_flags, start
from trainer.records.console import Console
from trainer.serving.image_files import read_image
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.storage import RunDirectory, is_remote

_EXTENSIONS = (".png", ".json")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `define_flags`. `handle` is the module."""

    handle: str
    input: tuple[str, ...]
    output: str
    image_size: int = 0
    hub_mirror: str = ""
    repair_hub_cache: bool = False


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_multi_string("input", [], "A picture, local or gs://; once for each.", flag_values=flag_values)
    flags.DEFINE_string("output", "", "File to write, .png or .json, local or gs://.", flag_values=flag_values)
    flags.DEFINE_integer(
        "image_size",
        0,
        "Where the module leaves the size open: longest side of the pictures, in pixels; 0 leaves them as they are.",
        0,
        flag_values=flag_values,
    )
    define_download_flags(flag_values)


def request_from_flags(flag_values: flags.FlagValues, arguments: Sequence[str]) -> Request:
    """What is asked for, as far as it can be checked without TensorFlow.

    Raises:
      UserError: something is missing or not there.
    """
    if len(arguments) != 1 or not flag_values.input or not flag_values.output:
        raise UserError("Give one module, --input and --output: python -m trainer.apply HANDLE --input=A --output=B.")
    if not flag_values.output.lower().endswith(_EXTENSIONS):
        raise UserError(f"--output={flag_values.output} must end in {' or '.join(_EXTENSIONS)}.")
    for path in flag_values.input:
        if not is_remote(path) and not os.path.isfile(os.path.expanduser(path)):
            raise UserError(f"--input={path}: there is no such file.")
    names = [name for name in Request.__dataclass_fields__ if name not in ("handle", "input")]
    values = {name: flag_values[name].value for name in names}
    return Request(handle=arguments[0], input=tuple(flag_values.input), **values)


def apply(request: Request, out: TextIO, err: TextIO) -> int:
    """Calls the module, writes what it gives, prints what it takes and gives; gives the exit code.

    Args:
      request: what to do.
      out: for what it prints.
      err: for warnings.

    Raises:
      UserError: the module or a picture cannot be used, or the answer does not suit the output.
    """
    require_temporary_folder()
    import_tensorflow_quietly()
    import tensorflow as tf

    from trainer.model.endpoint import CALL_ERRORS, shown
    from trainer.model.handles import resolve
    from trainer.model.hub import load_saved_model
    from trainer.serving.functions import image_function
    from trainer.serving.outputs import json_of, named_outputs, png_of
    from trainer.serving.pictures import image_batch
    from trainer.wording import first_line

    path = resolve(request.handle, mirror=request.hub_mirror, repair=request.repair_hub_cache, argument="")
    function = image_function(load_saved_model(path, request.handle), len(request.input), request.handle)
    console = Console(out=out, err=err)
    for name, spec in function.inputs.items():
        console.entry("takes", f"{name}: {shown(spec)}")
    specs = function.inputs.values()
    batches = [
        image_batch(_content(picture), spec, request.image_size, f"--input={picture}")
        for picture, spec in zip(request.input, specs)
    ]
    try:
        outputs = named_outputs(function.call(batches))
    except CALL_ERRORS as error:
        given = shown(dict(zip(function.inputs, batches)))
        raise UserError(f"{request.handle} cannot be called with {given} ({first_line(error)}).") from error
    for name, tensor in outputs.items():
        console.entry("gives", f"{name}: {shown(tf.TensorSpec(tensor.shape, tensor.dtype))}")
    write = png_of if request.output.lower().endswith(".png") else json_of
    folder, name = os.path.split(request.output)
    RunDirectory(folder or ".", "--output").write_bytes(name, write(outputs, request.handle))
    console.entry("output", request.output)
    return EXIT_DONE


def _content(path: str) -> bytes:
    content = read_image(path)
    if isinstance(content, str):
        raise UserError(f"--input={path}: {content}.")
    return content


def main(arguments: Sequence[str]) -> int:
    """Applies a module as the command line says; gives the exit code."""
    return apply(request_from_flags(flags.FLAGS, arguments), sys.stdout, sys.stderr)


if __name__ == "__main__":
    start(main, define_flags)
