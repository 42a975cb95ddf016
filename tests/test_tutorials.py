"""The tutorial pages: their commands are ones that there are, and do what the pages say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from absl import flags
from prepare import prepare
from run import Block, PageError, blocks_of, run_page
from variables import environment

from trainer import apply, compare, predict
from trainer.config_flags import config_from_flags, define_flags, parse_command_line, read_local_text

PAGES = sorted(Path(__file__).resolve().parents[1].joinpath("tutorials").glob("[0-9]*.md"))

PAGE = """\
Some words.

```sh
echo "$PHOTOS"; pwd
```

```text
what it said before
```
<!-- shows: photos -->
<!-- picture: a.png -> b.png -->

```sh
true
```

```python
not = "run"
```
"""


def _commands(page: Path) -> list[list[str]]:
    """What stands behind `python -m` in a page, word by word."""
    text = "\n".join(block.commands for block in blocks_of(page.read_text(encoding="utf-8")))
    joined = re.sub(r"\$\([^)]*\)", "PHOTO", text.replace("\\\n", " "))
    return [shlex.split(found) for found in re.findall(r"python -m (trainer\.[^|>\n]*)", joined)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_ones_that_there_are(page: Path) -> None:
    found = _commands(page)
    assert found
    for program, *arguments in found:
        values = flags.FlagValues()
        if program == "trainer.task":
            define_flags(values)
            flags.DEFINE_string("sweep", "", "", flag_values=values)
            assert parse_command_line(values, arguments) == []
            config_from_flags(values, read_local_text)
        else:
            module = {"trainer.predict": predict, "trainer.apply": apply, "trainer.compare": compare}[program]
            module.define_flags(values)
            values.set_gnu_getopt(True)
            assert parse_command_line(values, arguments)


def test_a_page_is_taken_apart_and_only_its_outputs_change(tmp_path: Path) -> None:
    shown, silent = blocks_of(PAGE)
    assert shown == Block('echo "$PHOTOS"; pwd\n', "what it said before\n", ["photos"], [("a.png", "b.png")])
    assert silent == Block("true\n", None, [], [])
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("<!-- picture: a.png -> b.png -->\n", ""))
    run_page(page, {"PHOTOS": "/some/photos"}, update=True, pictures=tmp_path)
    changed = page.read_text()
    assert "```text\nphotos\n" in changed and "what it said before" not in changed
    assert changed.startswith("Some words.") and changed.endswith('```python\nnot = "run"\n```\n')


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("shows: photos", "shows: nowhere", "nothing in the output fits nowhere"), ("true\n", "exit 3\n", "exit code 3")],
)
def test_a_page_that_promises_too_much_fails(tmp_path: Path, old: str, new: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(old, new))
    with pytest.raises(PageError, match=message):
        run_page(page, {"PHOTOS": "/some/photos"}, update=False, pictures=tmp_path)
    assert "what it said before" in page.read_text()


@pytest.fixture(scope="session")
def prepared(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorials")
    prepare(test_data, folder)
    return folder


@pytest.mark.tutorials
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, prepared: Path, tmp_path: Path) -> None:
    run_page(page, environment(prepared), update=False, pictures=tmp_path)
