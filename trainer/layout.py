"""What the folders of a run directory are called there. No TensorFlow.

The trainer knows each by one name; `trainer.storage.RunDirectory` looks it up here. So a run can leave its export and
its curves where Vertex AI looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Layout = Literal["plain", "vertex"]
"""plain: as the trainer calls them. vertex: as Vertex AI does, `FOLDER_NAMES` says how."""

DEFAULT_LAYOUT: Layout = "plain"

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

FOLDER_NAMES: Mapping[Layout, Mapping[str, str]] = {
    "plain": {},
    "vertex": {"export": "model", "tensorboard": "logs"},
}
"""The names that are not the trainer's own. Vertex AI's are BASE/model, BASE/checkpoints and BASE/logs (`CustomJobSpec`
in its v1 API, 2026-11); checkpoints/ is the trainer's name too."""


def folder_name(name: str, layout: Layout) -> str:
    """What a file or folder right in a run directory is called there.

    Args:
      name: the trainer's name, such as "export".
      layout: of the run directory.
    """
    return FOLDER_NAMES[layout].get(name, name)
