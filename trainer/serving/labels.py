"""Names of classes from a file with one a line. No TensorFlow, unless the file is on gs://."""

from __future__ import annotations

from trainer.storage import RunDirectory


def read_labels(path: str) -> list[str]:
    """The lines of a local or gs:// file; see `label_lines`.

    Raises:
      UserError: it cannot be read; the sentence names --labels.
    """
    folder, _, name = path.rpartition("/")
    return label_lines(RunDirectory(folder or ("/" if path.startswith("/") else "."), "--labels").read_text(name))


def label_lines(text: str) -> list[str]:
    """The lines of a text. An empty one counts, unless it is the last; a byte order mark does not."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    return lines if lines[-1] else lines[:-1]
