"""Runs the commands of tutorial pages, as their reader would, and writes what came out into the pages.

    python tutorials/run.py FOLDER [PAGE...]             run them, and check what they claim
    python tutorials/run.py FOLDER [PAGE...] --update    write the new output and pictures into the pages

FOLDER is one that tutorials/prepare.py filled. In a page, a block of "sh" is run in one shell, in a fresh folder; a
block of "text" behind it is its output; `<!-- shows: PATTERN -->` behind that is what the output must have in it, and
`<!-- picture: FILE -> NAME -->` takes a picture out of the folder, or of a page in it (index.html), into pictures/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from variables import environment

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 1800.0
"""For one block."""

_BLOCK = re.compile(
    r"^```sh\n(?P<commands>.*?)^```\n"
    r"(?P<gap>\n*)(?:^```text\n(?P<output>.*?)^```\n)?"
    r"(?P<notes>(?:\n*^<!-- (?:shows|picture): .*? -->\n)*)",
    re.MULTILINE | re.DOTALL,
)
_SHOWS = re.compile(r"<!-- shows: (.*?) -->")
_PICTURE = re.compile(r"<!-- picture: (\S+) -> (\S+) -->")


@dataclass(frozen=True)
class Block:
    """Commands of a page, and what it says of them.

    Attributes:
      commands: for a shell.
      output: what the page shows of their output; None where it shows none.
      patterns: regular expressions that the output must have in it.
      pictures: files in the folder that they ran in, and the names that they have in pictures/.
    """

    commands: str
    output: str | None
    patterns: Sequence[str]
    pictures: Sequence[tuple[str, str]]


class PageError(RuntimeError):
    """A page promises what its commands do not do."""


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(found["commands"], found["output"], _SHOWS.findall(found["notes"]), _PICTURE.findall(found["notes"]))
        for found in _BLOCK.finditer(text)
    ]


def run_page(page: Path, variables: Mapping[str, str], *, update: bool, pictures: Path) -> None:
    """Runs a page's blocks one after the other in a folder of their own.

    Args:
      page: a Markdown file.
      variables: what its commands use, by name: files and folders, which lie beside the commands under their own names.
      update: whether to write output and pictures.
      pictures: where they go.

    Raises:
      PageError: a command fails, or its output lacks what the page says.
    """
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        for path in variables.values():
            Path(folder, os.path.basename(path)).symlink_to(path)
        outputs = []
        for block in blocks_of(text):
            outputs.append(_readable(_run(block, folder, variables, page.name), folder))
            for pattern in block.patterns:
                if not re.search(pattern, outputs[-1]):
                    raise PageError(f"{page.name}: nothing in the output fits {pattern}:\n{outputs[-1]}")
            for source, name in block.pictures if update else []:
                _take_picture(Path(folder, source), pictures / name, folder)
    if update:
        page.write_text(_with_outputs(text, outputs), encoding="utf-8")


def _run(block: Block, folder: str, variables: Mapping[str, str], page: str) -> str:
    print(f"--- {page}\n{block.commands}", end="", flush=True)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.commands],
        cwd=folder,
        env=os.environ
        | {name: os.path.basename(place) for name, place in variables.items()}
        | {
            "PATH": path,
            "COLUMNS": "100",
            "PYTHONPATH": str(HERE.parent),
            "XDG_CACHE_HOME": os.path.join(folder, "cache"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise PageError(f"{page}: exit code {done.returncode} of\n{block.commands}{done.stdout}")
    return done.stdout


def _readable(output: str, folder: str) -> str:
    """The output without this machine's folder and without TensorFlow's own log lines."""
    lines = [line for line in output.splitlines() if not re.match(r"[IWEF]\d{4} \d\d:\d\d|WARNING: All log mess", line)]
    return _without_folder("".join(f"{line.rstrip()}\n" for line in lines), folder)


def _without_folder(text: str, folder: str) -> str:
    return text.replace(f"{os.path.realpath(folder)}/", "").replace(f"{folder}/", "")


def _take_picture(source: Path, target: Path, folder: str) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.suffix != ".html":
        shutil.copyfile(source, target)
        return
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        raise PageError("Chromium is needed to take a picture of a page: apt-get install chromium.")
    page = source.with_name("readable.html")
    page.write_text(_without_folder(source.read_text(encoding="utf-8"), folder), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,2300"]
    subprocess.run(
        [chromium, *options, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True, timeout=60
    )


def _with_outputs(text: str, outputs: Sequence[str]) -> str:
    remaining = iter(outputs)

    def updated(found: re.Match[str]) -> str:
        output = next(remaining)
        if found["output"] is None:
            return found[0]
        return f"```sh\n{found['commands']}```\n{found['gap']}```text\n{output}```\n{found['notes']}"

    return _BLOCK.sub(updated, text)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", type=Path, nargs="*", default=sorted(HERE.glob("[0-9]*.md")))
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    for page in options.pages:
        run_page(page, environment(options.folder.resolve()), update=options.update, pictures=HERE / "pictures")


if __name__ == "__main__":
    main()
