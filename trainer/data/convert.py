"""Writes a folder of images, one folder a class, as TFRecord files: fewer and larger files, which storage likes.

    python -m trainer.data.convert PHOTOS RECORDS
    python -m trainer.task --data=tfrecord:RECORDS ...

A run on the records is the run on the folder, bit for bit: they have the same images under the same names, and so the
same splits and the same order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from trainer.config import Config
from trainer.config_fields import MAX_IMAGE_PIXELS
from trainer.config_values import credentials_problem
from trainer.data.record_files import CONVERTED, INDEX_FILE
from trainer.data.source import EncodedSource
from trainer.errors import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, UserError
from trainer.processors import processors
from trainer.startup import import_tensorflow_quietly, require_temporary_folder
from trainer.storage import RunDirectory, is_remote, reading_or_writing
from trainer.terminal import print_error, printable

_SHARD_BYTES = 128 * 2**20
"""About the size of a file, where --shards does not say how many there are to be."""

_TYPICAL_IMAGE_BYTES = 100_000
"""Taken for the size of images where the storage does not list it."""

_SECONDS_BETWEEN_LINES = 5.0


def main(arguments: Sequence[str]) -> int:
    """Converts as the arguments say; gives the exit code (`trainer.errors`)."""
    try:
        options = _parse(arguments)
        require_temporary_folder()
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # It computes nothing: a run beside it may have the GPUs.
        import_tensorflow_quietly()
        convert(**vars(options))
    except UserError as error:
        print_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt:
        print_error("interrupted; nothing was made.")
        return EXIT_PREEMPTED
    return EXIT_DONE


def convert(
    source: str,
    target: str,
    shards: int = 0,
    workers: int = 0,
    on_bad_image: str = "fail",
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> None:
    """Writes a folder of class folders as TFRecord files and their index.

    A local target appears in one move, when all is written and was read again; on `gs://` the index is written last,
    and a set that lacks some of its files is refused when it is opened.

    Args:
      source: local or `gs://`.
      target: a folder, local or `gs://`, that does not exist or is empty.
      shards: how many files; 0: about 128 MiB each.
      workers: threads; 0: two a core.
      on_bad_image: "fail" or "skip".
      max_image_pixels: an image whose header claims more is a bad one.

    Raises:
      UserError: the source is not as it must be, the target is not empty or lies in the source, or the disk is full.
    """
    from trainer.data.sources import open_source

    config = Config.parse(
        {"data": f"folder:{source}", "on_bad_image": on_bad_image, "max_image_pixels": max_image_pixels}
    )
    directory = _target(target, source)
    images = open_source(config, _say)
    assert isinstance(images, EncodedSource)
    if on_bad_image == "fail":
        _require_good_images(images)
    for image in images.skipped:
        _say(f"Left out {image.key}: {image.reason}.")
    _write(images, directory, min(shards or _fitting_shards(images), len(images)), workers or 2 * processors())
    _say(f"{len(images)} images of {len(images.class_names)} classes: --data=tfrecord:{directory.path}")


def _target(target: str, source_folder: str) -> RunDirectory:
    """The folder to write to.

    Raises:
      UserError: it has something in it, or lies in the source.
    """
    problem = credentials_problem(target)
    if problem:
        raise UserError(f"DST {problem}.")
    directory = RunDirectory(target, "DST")
    if not is_remote(target) and not is_remote(source_folder):
        inner, outer = (os.path.realpath(os.path.expanduser(path)) for path in (directory.path, source_folder))
        if os.path.commonpath([inner, outer]) == outer:
            raise UserError(
                f"{directory.path} lies in {source_folder}, where it would be taken for a class: give another DST."
            )
    if os.path.isfile(directory.path) or directory.list():
        raise UserError(f"{directory.path} is there already: give a DST that does not exist, or remove it first.")
    return directory


def _require_good_images(source: EncodedSource) -> None:
    """Raises UserError if images cannot be decoded; names the first."""
    from trainer.data.bad_images import find_bad_images
    from trainer.data.folders import bad_images_error

    bad = find_bad_images(source, report=_say)
    if bad:
        raise bad_images_error(f"{source.root}/{bad[0].key}", bad)


def _fitting_shards(source: EncodedSource) -> int:
    sizes = getattr(source, "sizes", None)
    total = int(sizes.sum()) if sizes is not None else len(source) * _TYPICAL_IMAGE_BYTES
    return -(-total // _SHARD_BYTES)


def _write(source: EncodedSource, directory: RunDirectory, shards: int, workers: int) -> None:
    """Fills the target, all or nothing."""
    from trainer.data.record_writer import Progress, write_records

    above, name = os.path.split(directory.path)
    parent = RunDirectory(above, "DST")
    folder = directory.make_folder() if directory.is_remote else parent.staging(name)
    try:
        with reading_or_writing(above, "DST"), _shown(len(source)) as show:
            index = write_records(source, folder, shards, workers, Progress(show))
        RunDirectory(folder, "DST").write_bytes(INDEX_FILE, index.to_bytes(CONVERTED))
        if not directory.is_remote:
            parent.publish_tree(folder, name)
    except BaseException:
        RunDirectory(folder, "DST").delete_tree()
        raise


@contextlib.contextmanager
def _shown(total: int) -> Iterator[Callable[[str, int], None]]:
    """A function that shows how far the work is: as a bar on a terminal, otherwise as a line now and then."""
    if not sys.stdout.isatty():
        last_line = time.monotonic()

        def line(what: str, images: int) -> None:
            nonlocal last_line
            if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                _say(f"{images} of {total} images {what}")
                last_line = time.monotonic()

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        tasks = {what: bar.add_task(what, total=total) for what in ("written", "checked")}
        yield lambda what, images: bar.update(tasks[what], completed=images)


def _say(sentence: str) -> None:
    print(printable(sentence, sys.stdout.encoding, kept="\n"), flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"{message[:1].upper()}{message[1:]}; python -m trainer.data.convert --help says what there is."
        )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
      UserError: one is unknown, missing or out of range.
    """
    parser = _Parser(prog="python -m trainer.data.convert", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SRC", help="folder with one folder of images a class, local or gs://")
    parser.add_argument("target", metavar="DST", help="folder to make, local or gs://")
    parser.add_argument("--shards", type=int, default=0, help="number of files; 0 (default): about 128 MiB each")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0 (default): two a core")
    parser.add_argument(
        "--on_bad_image",
        choices=("fail", "skip"),
        default="fail",
        help="fail (default): stop at a file that cannot be decoded; skip: leave it out and say so",
    )
    parser.add_argument(
        "--max_image_pixels",
        type=int,
        default=MAX_IMAGE_PIXELS,
        help="a file that claims more, height x width over all frames, counts as one that cannot be decoded "
        "(default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    for name, limit in (("shards", 99_999), ("workers", 1024)):
        if not 0 <= getattr(options, name) <= limit:
            raise UserError(f"--{name}={getattr(options, name)}: must be from 0 to {limit}.")
    return options


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
